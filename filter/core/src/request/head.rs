//! A request's headers: what the gateway reads of them, and what of them may go on to a provider.

use crate::config::{DataClass, Identity};
use crate::identity::keys::{ApiKeyMemo, InvalidIdentity, api_key};
use crate::ids::TenantId;
use crate::policy::Policy;
use crate::request::cache_control::CacheControl;

/// A header as the host gives it: neither name nor value need be UTF-8.
pub type Header<'a> = (&'a [u8], &'a [u8]);

/// What the gateway reads of a request's headers; the first of each name counts.
#[derive(Debug, Default)]
pub struct RequestHead<'a> {
    /// `:method`
    pub method: &'a [u8],
    /// `:path` without its query.
    pub path: &'a [u8],
    /// `content-length`, if it is a number.
    pub content_length: Option<u64>,
    /// Whether the body has a `content-encoding` other than identity.
    pub is_encoded: bool,
    /// Whether `content-type` is `application/json`, and that alone.
    pub is_json: bool,
    /// `x-pointsman-task`
    pub task: Option<&'a [u8]>,
    /// `x-pointsman-deadline-ms`
    pub deadline: Option<&'a [u8]>,
    /// `x-pointsman-data-class`: the highest that was sent, or an error if one is none.
    pub data_class: Option<Result<DataClass, ()>>,
    /// `x-request-id`, which Envoy sets.
    pub request_id: Option<&'a [u8]>,
    /// `cache-control`, all lines of it.
    pub cache_control: CacheControl,
    authorization: Option<&'a [u8]>,
    x_api_key: Option<&'a [u8]>,
    api_key: Option<&'a [u8]>,
    tenant: Option<&'a [u8]>,
    user: Option<&'a [u8]>,
    permissions: Option<&'a [u8]>,
}

/// Whether a request's header goes on to a provider. A list of what may pass, because what names a caller has no end.
pub fn request_header_passes(name: &[u8]) -> bool {
    name.first() == Some(&b':')
        || matches!(
            name,
            b"content-type" | b"content-length" | b"accept" | b"x-request-id" | b"traceparent" | b"tracestate"
        )
        // The gateway stage puts its own in place of it.
        || name == b"user-agent"
        // Envoy finds no route without it; the routes remove it.
        || name == b"x-forwarded-proto"
}

impl<'a> RequestHead<'a> {
    /// Reads the headers.
    pub fn read(policy: &Policy, headers: impl Iterator<Item = Header<'a>>) -> Self {
        let (tenant_header, user_header, permissions_header) = match &policy.identity {
            Identity::ApiKey => (None, None, None),
            Identity::Header { tenant, user, permissions } => (
                Some(tenant.as_bytes()),
                user.as_ref().map(String::as_bytes),
                permissions.as_ref().map(String::as_bytes),
            ),
        };
        let mut head = Self::default();
        let mut trusted = [(tenant_header, None), (user_header, None), (permissions_header, None)];
        for (name, value) in headers {
            match name {
                b":method" => head.method = value,
                b":path" => head.path = value.split(|b| *b == b'?').next().unwrap_or_default(),
                b"content-length" => head.content_length = std::str::from_utf8(value).ok().and_then(|n| n.parse().ok()),
                b"content-encoding" => head.is_encoded |= !value.is_empty() && !value.eq_ignore_ascii_case(b"identity"),
                b"content-type" => head.is_json = value == b"application/json",
                b"x-pointsman-task" => head.task = head.task.or(Some(value)),
                b"x-pointsman-data-class" => {
                    head.data_class = match (head.data_class, DataClass::named(value)) {
                        (None, Some(class)) => Some(Ok(class)),
                        (Some(Ok(other)), Some(class)) => Some(Ok(class.max(other))),
                        _ => Some(Err(())),
                    }
                }
                b"x-pointsman-deadline-ms" => head.deadline = head.deadline.or(Some(value)),
                b"cache-control" => head.cache_control = head.cache_control.and(value),
                b"x-request-id" => head.request_id = head.request_id.or(Some(value)),
                b"authorization" => head.authorization = head.authorization.or(Some(value)),
                b"x-api-key" => head.x_api_key = head.x_api_key.or(Some(value)),
                b"api-key" => head.api_key = head.api_key.or(Some(value)),
                _ => {}
            }
            for (_, said) in trusted.iter_mut().filter(|(header, _)| *header == Some(name)) {
                // Said twice it is nobody's word: one of the lines may be the caller's own.
                *said = Some(if said.is_none() { value } else { b"" });
            }
        }
        let [(_, tenant), (_, user), (_, permissions)] = trusted;
        (head.tenant, head.user, head.permissions) = (tenant, user, permissions);
        head
    }

    /// Who is calling.
    ///
    /// # Errors
    /// Why nobody is.
    pub fn tenant(&self, policy: &Policy, now_ms: u64, memo: &mut ApiKeyMemo) -> Result<TenantId, InvalidIdentity> {
        match policy.identity {
            Identity::ApiKey => {
                let key = api_key(self.authorization, self.x_api_key, self.api_key)?;
                policy.keys.tenant_of(key, now_ms, memo)
            }
            Identity::Header { .. } => {
                let name = self.tenant.filter(|name| !name.is_empty()).ok_or(InvalidIdentity::Missing)?;
                let name = std::str::from_utf8(name).map_err(|_| InvalidIdentity::Unknown)?;
                policy.find_tenant(name).ok_or(InvalidIdentity::Unknown)
            }
        }
    }

    /// The end user's id that a trusted filter has set.
    pub fn user(&self) -> Option<&'a [u8]> {
        self.user.filter(|user| !user.is_empty())
    }

    /// What the caller may see, as a trusted filter has said it.
    pub fn permissions(&self) -> Option<&'a [u8]> {
        self.permissions.filter(|permissions| !permissions.is_empty())
    }

    /// The id that ties the log lines of this request together: Envoy's request id, which the attempts' lines have too.
    pub fn trace_id(&self) -> String {
        let id = self.request_id.unwrap_or_default();
        String::from_utf8_lossy(id.get(..id.len().min(128)).unwrap_or_default()).into_owned()
    }
}

/// Whether a provider's response header goes on to the caller. Again a list of what may pass: organisation ids, account
/// limits, cookies and server names stay here.
///
/// The model stage has set the first two itself, over whatever the provider sent. Where there is none (`skips_model_stage`),
/// what comes by these names is the provider's own.
pub fn response_header_passes(name: &[u8], skips_model_stage: bool) -> bool {
    !skips_model_stage && matches!(name, b"x-pointsman-model" | b"x-pointsman-attempts")
        || name.first() == Some(&b':')
        || matches!(name, b"content-type" | b"content-length" | b"cache-control" | b"date" | b"retry-after")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture;

    #[test]
    fn what_a_provider_says_by_the_gateways_own_names_passes_only_where_the_model_stage_has_overwritten_it() {
        for name in [&b"x-pointsman-model"[..], b"x-pointsman-attempts"] {
            assert!(response_header_passes(name, false) && !response_header_passes(name, true));
        }
        for name in [&b"x-pointsman-cache"[..], b"x-pointsman-cost-usd", b"server", b"set-cookie"] {
            assert!(!response_header_passes(name, false) && !response_header_passes(name, true));
        }
    }

    #[test]
    fn a_trusted_header_that_is_said_twice_is_nobodys_word() {
        let mut document = fixture::document();
        document["identity"] =
            serde_json::json!({"source": "header", "tenant": "x-tenant", "user": "x-user", "permissions": "x-scope"});
        let policy = crate::policy::parse::from_value(&document).unwrap().1;
        let read = |headers: &[(&str, &str)]| {
            let headers: Vec<_> = headers.iter().map(|(n, v)| (n.as_bytes().to_vec(), v.as_bytes().to_vec())).collect();
            let head = RequestHead::read(&policy, headers.iter().map(|(n, v)| (&**n, &**v)));
            let text = |value: Option<&[u8]>| value.map(|value| String::from_utf8_lossy(value).into_owned());
            (head.tenant(&policy, 0, &mut ApiKeyMemo::default()).is_ok(), text(head.user()), text(head.permissions()))
        };
        let once = [("x-tenant", "acme"), ("x-user", "ann"), ("x-scope", "a")];
        assert_eq!(read(&once), (true, Some("ann".into()), Some("a".into())));
        for (at, header) in once.iter().enumerate() {
            let twice = [&once[..], &[*header]].concat();
            let (tenant, user, permissions) = read(&twice);
            assert_eq!([tenant, user.is_some(), permissions.is_some()], [at != 0, at != 1, at != 2], "{header:?}");
        }
    }
}
