//! A request's headers: its target, its sender, and its options.

use crate::config::Identity;
use crate::dialect::client::ClientDialect;
use crate::exchange::cache::state::CacheRequest;
use crate::exchange::caller::Caller;
use crate::exchange::{Exchange, RequestStep};
use crate::identity::keys::{InvalidIdentity, UserHash};
use crate::ids::TenantId;
use crate::memory::Context;
use crate::outcome::outcome::Outcome;
use crate::outcome::refusal::Refusal;
use crate::outcome::reply::Reply;
use crate::quota::store::Store;
use crate::request::endpoint::{self, Endpoint};
use crate::request::facts::InvalidField;
use crate::request::head::RequestHead;

fn invalid(name: &str, message: &str) -> Refusal {
    Refusal::InvalidField(InvalidField {
        param: name.to_owned(),
        code: Outcome::InvalidValue,
        message: message.to_owned(),
    })
}

impl Exchange {
    /// The request's headers have arrived.
    pub fn on_request_headers(
        &mut self,
        context: &mut Context,
        head: &RequestHead,
        store: &mut dyn Store,
    ) -> RequestStep {
        self.trace_id = head.trace_id();
        self.is_json = head.is_json;
        self.length = head.content_length;
        match self.admit(context, head) {
            Ok(None) if self.endpoint == Endpoint::Usage => self.usage_reply(context, store),
            Ok(None) => RequestStep::AwaitBody,
            Ok(Some(reply)) => RequestStep::Reply(self.reply(reply)),
            Err(refusal) => RequestStep::Reply(self.refuse(&refusal)),
        }
    }

    fn admit(&mut self, context: &mut Context, head: &RequestHead) -> Result<Option<Reply>, Refusal> {
        if head.path == b"/" && head.method == b"HEAD" {
            // Claude Code asks so whether a gateway is there.
            self.endpoint = Endpoint::Health;
            return Ok(Some(Reply::healthy()));
        }
        self.endpoint = Endpoint::of_path(head.path);
        if head.wants_anthropic() && matches!(self.endpoint, Endpoint::Models | Endpoint::Model) {
            self.listing = Some(ClientDialect::Anthropic);
        }
        let method = self.endpoint.method().ok_or(Refusal::UnknownPath)?;
        if head.method != method.as_bytes() {
            return Err(Refusal::WrongMethod(method));
        }
        match self.endpoint {
            Endpoint::Unknown => Err(Refusal::UnknownPath),
            Endpoint::Health => Ok(Some(Reply::healthy())),
            Endpoint::Models => {
                let tenant = self.identify(context, head)?;
                Ok(Some(self.dialect().models(context.policy, tenant)))
            }
            Endpoint::Model => {
                let tenant = self.identify(context, head)?;
                let id = endpoint::model_id(head.path).unwrap_or_default();
                match self.dialect().model(context.policy, tenant, &id) {
                    Some(reply) => Ok(Some(reply)),
                    None => Err(Refusal::UnknownModel(id)),
                }
            }
            Endpoint::Usage => {
                self.identify(context, head)?;
                Ok(None)
            }
            Endpoint::Chat | Endpoint::Messages | Endpoint::CountTokens => {
                self.identify(context, head)?;
                if head.is_encoded {
                    return Err(Refusal::ContentEncoding);
                }
                let limit = context.policy.request.max_body_bytes;
                if head.content_length.is_some_and(|length| length > limit) {
                    return Err(Refusal::TooLarge(limit));
                }
                Ok(None)
            }
        }
    }

    fn identify(&mut self, context: &mut Context, head: &RequestHead) -> Result<TenantId, Refusal> {
        let policy = context.policy;
        let tenant = head.tenant(policy, self.started_ms, &mut context.memory.api_keys).map_err(|why| {
            match (why, &policy.identity) {
                (InvalidIdentity::Missing, Identity::ApiKey) => Refusal::MissingKey,
                (InvalidIdentity::Missing, Identity::Header { .. }) => Refusal::UnknownTenant,
                (InvalidIdentity::Expired, _) => Refusal::ExpiredKey,
                (InvalidIdentity::Unknown, Identity::ApiKey) => Refusal::UnknownKey,
                (InvalidIdentity::Unknown, Identity::Header { .. }) => Refusal::UnknownTenant,
            }
        })?;
        self.caller = Some(Caller {
            tenant,
            user: head.user().map(|user| UserHash::new(&policy.tenant(tenant).name, user)),
            task: None,
            data_class: None,
            deadline_ms: None,
            cache_request: CacheRequest::of(policy, head),
            dialect_headers: match self.dialect().has_headers() {
                true => head.dialect_headers.clone(),
                false => Vec::new(),
            },
        });
        let text = |name: &str, value: &[u8]| match std::str::from_utf8(value) {
            Ok(text) => Ok(text.to_owned()),
            Err(_) => Err(invalid(name, &format!("The header '{name}' is not valid UTF-8."))),
        };
        let task = head.task.map(|task| text("x-pointsman-task", task)).transpose()?;
        let class = match head.data_class {
            None => None,
            Some(class) => Some(class.map_err(|()| {
                let message =
                    "The header 'x-pointsman-data-class' must be one of public, internal, confidential, regulated.";
                invalid("x-pointsman-data-class", message)
            })?),
        };
        let deadline_ms = match head.deadline {
            None => None,
            Some(value) => {
                let digits = std::str::from_utf8(value).ok().filter(|ms| ms.bytes().all(|b| b.is_ascii_digit()));
                let ms = digits.and_then(|ms| ms.parse::<u64>().ok()).filter(|ms| *ms > 0);
                Some(ms.ok_or_else(|| {
                    let message =
                        "The header 'x-pointsman-deadline-ms' must be a positive whole number of milliseconds.";
                    invalid("x-pointsman-deadline-ms", message)
                })?)
            }
        };
        if let Some(caller) = &mut self.caller {
            caller.deadline_ms = deadline_ms;
            caller.task = task;
            caller.data_class = class;
        }
        Ok(tenant)
    }

    /// This many bytes of the body have arrived, or all of it if `is_whole`. Returns a reply if that is too much. Envoy
    /// often reports the end of a body separately, after its last byte.
    pub fn on_request_size(&mut self, context: &mut Context, bytes: usize, is_whole: bool) -> Option<Reply> {
        let (bounds, bytes) = (&context.policy.request, bytes as u64);
        if bytes > bounds.max_body_bytes {
            self.end_upload(context);
            return Some(self.refuse(&Refusal::TooLarge(bounds.max_body_bytes)));
        }
        if is_whole || self.length == Some(bytes) {
            return None;
        }
        let tenant = self.caller.as_ref()?.tenant;
        self.upload = context.memory.uploads.grow(self.upload.take(), tenant, bytes, bounds);
        match self.upload {
            Some(_) => None,
            None => Some(self.refuse(&Refusal::TooManyUploads)),
        }
    }

    /// The body is no longer arriving.
    pub(super) fn end_upload(&mut self, context: &mut Context) {
        if let Some(upload) = self.upload.take() {
            context.memory.uploads.end(upload);
        }
    }
}
