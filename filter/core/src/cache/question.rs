//! What a request asks the cache, under one policy: all that its key is made of.

use crate::config::DataClass;
use crate::ids::{ModelId, TaskId, TenantId};
use crate::request::endpoint::Endpoint;
use crate::wire::bytes::Writer;

/// What a key is made of, under one policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Question<'a> {
    /// Where it is asked: the same bytes mean something else elsewhere.
    pub endpoint: Endpoint,
    /// Who asks.
    pub tenant: TenantId,
    /// Who shares the answer.
    pub sharing: Sharing<'a>,
    /// The task.
    pub task: TaskId,
    /// The class of the request's data.
    pub data: DataClass,
    /// The plan's first model.
    pub model: ModelId,
    /// Most output tokens, by the quota of the tenant and of whoever its user is: the request is changed by it.
    pub max_output: Option<u64>,
    /// The request as it came.
    pub body: &'a [u8],
}

/// Who shares an answer: the tenant, and within it these.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Sharing<'a> {
    /// Everybody.
    Tenant,
    /// One end user, as a trusted filter has named it.
    User(&'a [u8]),
    /// One end user, as the tenant's own application names it.
    NamedUser(&'a [u8]),
    /// Callers of these permissions.
    Permissions(&'a [u8]),
}

/// The version of [`Question::identity_bytes`].
pub(super) const IDENTITY_VERSION: u8 = 2;

impl Question<'_> {
    /// All but the body, whose length is told: two questions that differ in anything else, or whose bodies differ in
    /// length, never have the same bytes.
    pub(super) fn identity_bytes(&self) -> Vec<u8> {
        let Self { endpoint, tenant, sharing, task, data, model, max_output, body } = *self;
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
