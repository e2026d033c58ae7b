//! A request's headers: what the gateway reads of them, and which ones go on to a provider.

use crate::config::{DataClass, Identity};
use crate::identity::keys::{ApiKeyMemo, InvalidIdentity, api_key};
use crate::ids::TenantId;
use crate::policy::Policy;
use crate::request::cache_control::CacheControl;

/// A header as the host provides it: neither name nor value is necessarily UTF-8.
pub type Header<'a> = (&'a [u8], &'a [u8]);

/// What the gateway reads of a request's headers. If a task, deadline, request id or key header is repeated, the first
/// line counts.
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
    /// Whether `content-type` is exactly `application/json`.
    pub is_json: bool,
    /// `x-pointsman-task`
    pub task: Option<&'a [u8]>,
    /// `x-pointsman-deadline-ms`
    pub deadline: Option<&'a [u8]>,
    /// `x-pointsman-data-class`: the highest class sent, or an error if a line is not a class.
    pub data_class: Option<Result<DataClass, ()>>,
    /// `x-request-id`, which Envoy sets.
    pub request_id: Option<&'a [u8]>,
    /// The headers of the caller's dialect that go on to a provider, one line each, in order.
    pub dialect_headers: Vec<u8>,
    /// `cache-control`, all lines combined.
    pub cache_control: CacheControl,
    authorization: Option<&'a [u8]>,
    x_api_key: Option<&'a [u8]>,
    api_key: Option<&'a [u8]>,
    tenant: Option<&'a [u8]>,
    user: Option<&'a [u8]>,
    permissions: Option<&'a [u8]>,
}

/// Headers in which providers get credentials and signatures. Envoy keeps what it added to one attempt for the next.
pub const CREDENTIALS: [&str; 8] = [
    "authorization",
    "x-api-key",
    "api-key",
    "x-goog-api-key",
    "x-amz-date",
    "x-amz-security-token",
    "x-amz-content-sha256",
    "x-goog-user-project",
];

/// How the names of the headers of Anthropic's API begin.
const ANTHROPIC: &[u8] = b"anthropic-";

/// Returns whether a request header goes on to a provider. This is an allowlist, because the headers that can identify
/// a caller cannot all be listed. `has_dialect_headers`: whether the caller's dialect has headers of its own.
pub fn request_header_passes(name: &[u8], has_dialect_headers: bool) -> bool {
    name.first() == Some(&b':')
        || has_dialect_headers && name.starts_with(ANTHROPIC)
        || matches!(
            name,
            b"content-type" | b"content-length" | b"accept" | b"x-request-id" | b"traceparent" | b"tracestate"
        )
        // The gateway stage replaces it with its own.
        || name == b"user-agent"
        // Envoy needs it to find a route; the routes remove it.
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
                name if name.starts_with(ANTHROPIC) => {
                    for part in [name, b":", value, b"\n"] {
                        head.dialect_headers.extend_from_slice(part);
                    }
                }
                _ => {}
            }
            for (_, said) in trusted.iter_mut().filter(|(header, _)| *header == Some(name)) {
                // A repeated header is not trusted: the caller may have sent one of the lines.
                *said = Some(if said.is_none() { value } else { b"" });
            }
        }
        let [(_, tenant), (_, user), (_, permissions)] = trusted;
        (head.tenant, head.user, head.permissions) = (tenant, user, permissions);
        head
    }

    /// Returns whether the caller speaks Anthropic's API, which always comes with its version.
    pub fn wants_anthropic(&self) -> bool {
        self.dialect_headers.split(|byte| *byte == b'\n').any(|line| line.starts_with(b"anthropic-version:"))
    }

    /// Returns the caller's tenant.
    ///
    /// # Errors
    /// Why the caller could not be identified.
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

    /// Returns the end user's id, as set by a trusted filter.
    pub fn user(&self) -> Option<&'a [u8]> {
        self.user.filter(|user| !user.is_empty())
    }

    /// Returns the caller's permissions, as set by a trusted filter.
    pub fn permissions(&self) -> Option<&'a [u8]> {
        self.permissions.filter(|permissions| !permissions.is_empty())
    }

    /// Returns the id that links the log lines of this request: Envoy's request id, which the attempts' lines also
    /// have, cut to 128 bytes.
    pub fn trace_id(&self) -> String {
        let id = self.request_id.unwrap_or_default();
        String::from_utf8_lossy(id.get(..id.len().min(128)).unwrap_or_default()).into_owned()
    }
}

/// Returns whether a provider's response header goes on to the caller. This is also an allowlist: organisation ids,
/// account limits, cookies and server names stay here.
///
/// The model stage sets the first two and overwrites the provider's. If `skips_model_stage`, headers with these names
/// come from the provider.
pub fn response_header_passes(name: &[u8], skips_model_stage: bool) -> bool {
    !skips_model_stage && matches!(name, b"x-pointsman-model" | b"x-pointsman-attempts")
        || name.first() == Some(&b':')
        || matches!(
            name,
            b"content-type" | b"content-length" | b"cache-control" | b"date" | b"retry-after" | b"retry-after-ms"
        )
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
