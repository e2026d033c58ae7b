//! The gateway's own answers in OpenAI's format: the policy's text, and the list of models.

use crate::ids::TenantId;
use crate::outcome::reply::Reply;
use crate::policy::Policy;

/// Returns the policy's own answer in place of a model's, marked as such: a completion or a stream.
pub fn template(text: &str, stream: bool, window: &str, now_ms: u64) -> Reply {
    let object = if stream { "chat.completion.chunk" } else { "chat.completion" };
    let document = |choice: serde_json::Value| {
        serde_json::json!({"id": "chatcmpl-pointsman-template", "object": object, "created": now_ms / 1000,
            "model": "pointsman-template", "choices": [choice]})
    };
    let said = serde_json::json!({"role": "assistant", "content": text});
    let (kind, body) = if stream {
        let first = document(serde_json::json!({"index": 0, "delta": said, "finish_reason": null}));
        let last = document(serde_json::json!({"index": 0, "delta": {}, "finish_reason": "stop"}));
        ("text/event-stream", format!("data: {first}\n\ndata: {last}\n\ndata: [DONE]\n\n"))
    } else {
        let mut whole = document(serde_json::json!({"index": 0, "message": said, "finish_reason": "stop"}));
        if let Some(whole) = whole.as_object_mut() {
            let nothing = serde_json::json!({"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0});
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
    let tenant = policy.tenant(tenant);
    let tier = policy.tier(tenant.tier);
    let usable = |model| tier.allows(model) && tenant.data <= policy.provider_of(model).data;
    let entry =
        |id: &str, owner: &str| serde_json::json!({"id": id, "object": "model", "created": 0, "owned_by": owner});
    let tasks = policy
        .tasks()
        .filter(|(_, task)| task.chain.iter().any(|model| usable(*model)))
        .map(|(_, task)| entry(&task.name, "pointsman-task"));
    let models = policy
        .models()
        .filter(|(id, _)| usable(*id))
        .map(|(id, model)| entry(&model.name, &policy.provider_of(id).name));
    let data: Vec<_> = tasks.chain(models).collect();
    let body = serde_json::json!({"object": "list", "data": data}).to_string().into_bytes();
    Reply { status: 200, headers: vec![("content-type", "application/json".into())], body, code: None }
}
