//! The gateway's own answers in OpenAI's format: the policy's text, and the list of models.

use crate::dialect::usable::usable;
use crate::ids::TenantId;
use crate::outcome::reply::Reply;
use crate::policy::Policy;
use serde_json::{Value, json};

/// Returns the policy's own answer in place of a model's, marked as such: a completion or a stream.
pub fn template(text: &str, stream: bool, window: &str, now_ms: u64) -> Reply {
    let object = if stream { "chat.completion.chunk" } else { "chat.completion" };
    let document = |choice: Value| {
        json!({"id": "chatcmpl-pointsman-template", "object": object, "created": now_ms / 1000,
            "model": "pointsman-template", "choices": [choice]})
    };
    let said = json!({"role": "assistant", "content": text});
    let (kind, body) = if stream {
        let first = document(json!({"index": 0, "delta": said, "finish_reason": null}));
        let last = document(json!({"index": 0, "delta": {}, "finish_reason": "stop"}));
        ("text/event-stream", format!("data: {first}\n\ndata: {last}\n\ndata: [DONE]\n\n"))
    } else {
        let mut whole = document(json!({"index": 0, "message": said, "finish_reason": "stop"}));
        if let Some(whole) = whole.as_object_mut() {
            let nothing = json!({"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0});
            whole.insert("usage".to_owned(), nothing);
        }
        ("application/json", whole.to_string())
    };
    let headers = vec![("content-type", kind.into()), ("x-pointsman-template", window.to_owned().into())];
    Reply { status: 200, headers, body: body.into_bytes(), code: None }
}

/// `GET /v1/models`: returns the models that the tenant may send its data to, and the tasks that include one of them,
/// in the format of OpenAI's list.
pub fn models(policy: &Policy, tenant: TenantId) -> Reply {
    let data: Vec<_> = usable(policy, tenant, None).map(|(id, owner)| entry(id, owner)).collect();
    Reply::json(json!({"object": "list", "data": data}).to_string().into_bytes())
}

/// `GET /v1/models/{id}`: returns one entry of that list.
pub fn model(policy: &Policy, tenant: TenantId, id: &str) -> Option<Reply> {
    let (id, owner) = usable(policy, tenant, None).find(|(other, _)| *other == id)?;
    Some(Reply::json(entry(id, owner).to_string().into_bytes()))
}

fn entry(id: &str, owner: &str) -> Value {
    json!({"id": id, "object": "model", "created": 0, "owned_by": owner})
}
