//! The question that a request asks the cache under one policy: everything that its key is made of.

use crate::config::DataClass;
use crate::ids::{ModelId, TaskId, TenantId};
use crate::request::endpoint::Endpoint;
use crate::wire::bytes::Writer;

/// The inputs of a key under one policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Question<'a> {
    /// The endpoint: the same bytes mean something else at another one.
    pub endpoint: Endpoint,
    /// The tenant that asks.
    pub tenant: TenantId,
    /// Who within the tenant shares the answer.
    pub sharing: Sharing<'a>,
    /// The task.
    pub task: TaskId,
    /// The class of the request's data.
    pub data: DataClass,
    /// The first model of the plan.
    pub model: ModelId,
    /// Maximum output tokens, by the quota of the tenant and of its user. The limit changes the request that the model
    /// gets.
    pub max_output: Option<u64>,
    /// The headers of the caller's dialect, which go to the model.
    pub headers: &'a [u8],
    /// The request body as received.
    pub body: &'a [u8],
}

/// Who shares an answer within the tenant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Sharing<'a> {
    /// Every caller.
    Tenant,
    /// One end user, as named by a trusted filter.
    User(&'a [u8]),
    /// One end user, as named by the tenant's own application.
    NamedUser(&'a [u8]),
    /// Callers with the same permissions.
    Permissions(&'a [u8]),
}

/// The version of [`Question::identity_bytes`].
pub(super) const IDENTITY_VERSION: u8 = 3;

impl Question<'_> {
    /// Encodes everything except the body, of which it encodes the length. Two questions that differ in any other
    /// field, or in the length of their bodies, never have the same bytes.
    pub(super) fn identity_bytes(&self) -> Vec<u8> {
        let Self { endpoint, tenant, sharing, task, data, model, max_output, headers, body } = *self;
        let (scope, who): (u8, &[u8]) = match sharing {
            Sharing::Tenant => (0, b""),
            Sharing::User(user) => (1, user),
            Sharing::NamedUser(user) => (2, user),
            Sharing::Permissions(permissions) => (3, permissions),
        };
        let mut out = Writer::with_capacity(32 + who.len());
        out.u32(tenant.0);
        out.u16(task.0);
        out.u16(model.0);
        out.raw(&[endpoint as u8, data as u8, scope]);
        out.flag(max_output.is_some());
        out.u64(max_output.unwrap_or(0));
        out.u64(body.len() as u64);
        out.bytes(headers);
        out.raw(who);
        out.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::fixture::QUESTION;
    use std::collections::HashSet;

    #[test]
    fn one_body_on_two_endpoints_is_two_questions() {
        let all: HashSet<Vec<u8>> = Endpoint::ALL
            .iter()
            .map(|endpoint| Question { endpoint: *endpoint, ..QUESTION }.identity_bytes())
            .collect();
        assert_eq!(all.len(), Endpoint::ALL.len());
    }
}
