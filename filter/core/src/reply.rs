//! Answers that the gateway gives itself.

use crate::policy::{Policy, TenantId};
use crate::refusal::{OVERLOADED_RETRY_AFTER, Refusal};

/// A whole response. Once given it is final.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// HTTP status.
    pub status: u16,
    /// Headers, without content-length.
    pub headers: Vec<(&'static str, String)>,
    /// Body.
    pub body: Vec<u8>,
    /// The refusal's code; `None` for an answer that is no refusal.
    pub code: Option<&'static str>,
}

impl Reply {
    /// A refusal in OpenAI's shape.
    pub fn refusal(refusal: &Refusal) -> Self {
        let words = refusal.words();
        let mut headers = vec![("content-type", "application/json".to_owned())];
        match refusal {
            Refusal::WrongMethod(allowed) => headers.push(("allow", (*allowed).to_owned())),
            Refusal::MissingKey | Refusal::UnknownKey | Refusal::ExpiredKey => {
                headers.push(("www-authenticate", "Bearer".to_owned()));
            }
            Refusal::Overloaded => headers.push(("retry-after", OVERLOADED_RETRY_AFTER.to_owned())),
            _ => {}
        }
        Self { status: words.status, headers, body: words.openai_body(), code: Some(words.code) }
    }

    /// `GET /healthz`
    pub fn healthy() -> Self {
        let headers = vec![("content-type", "application/json".to_owned())];
        Self { status: 200, headers, body: b"{\"status\":\"ok\"}".to_vec(), code: None }
    }

    /// `GET /v1/models`: the models and tasks that the tenant may use, in the shape of OpenAI's list.
    pub fn models(policy: &Policy, tenant: TenantId) -> Self {
        let tier = policy.tier(policy.tenant(tenant).tier);
        let entry =
            |id: &str, owner: &str| serde_json::json!({"id": id, "object": "model", "created": 0, "owned_by": owner});
        let tasks = policy
            .tasks()
            .filter(|(_, task)| task.chain.iter().any(|model| tier.allows(*model)))
            .map(|(_, task)| entry(&task.name, "pointsman-task"));
        let models = policy
            .models()
            .filter(|(id, _)| tier.allows(*id))
            .map(|(id, model)| entry(&model.name, &policy.provider_of(id).name));
        let data: Vec<_> = tasks.chain(models).collect();
        let body = serde_json::json!({"object": "list", "data": data}).to_string().into_bytes();
        Self { status: 200, headers: vec![("content-type", "application/json".to_owned())], body, code: None }
    }
}
