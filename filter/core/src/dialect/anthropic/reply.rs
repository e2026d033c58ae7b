//! The gateway's own answers in Anthropic's format: the policy's text, and the list of models.

use crate::config::Dialect;
use crate::dialect::anthropic::message::Message;
use crate::dialect::anthropic::replay;
use crate::dialect::usable::usable;
use crate::ids::TenantId;
use crate::outcome::reply::Reply;
use crate::policy::Policy;
use serde_json::{Value, json};

/// Returns the policy's own answer in place of a model's, marked as such: a message or a stream.
pub fn template(text: &str, stream: bool, window: &str) -> Reply {
    const ID: &str = "msg_pointsman_template";
    let message = Message {
        common: ",\"type\":\"message\",\"role\":\"assistant\",\"model\":\"pointsman-template\"".to_owned(),
        blocks: vec![json!({"type": "text", "text": text}).to_string()],
        ending: ",\"stop_reason\":\"end_turn\",\"stop_sequence\":null".to_owned(),
        usage: json!({"input_tokens": 0, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 0,
            "output_tokens": 0})
        .to_string(),
    };
    let (kind, body) = match stream {
        true => ("text/event-stream", replay::stream(&message, ID)),
        false => ("application/json", replay::whole(&message, ID)),
    };
    let headers = vec![("content-type", kind.into()), ("x-pointsman-template", window.to_owned().into())];
    Reply { status: 200, headers, body, code: None }
}

/// `GET /v1/models`: returns the models that the tenant may send its data to in this dialect, and the tasks that
/// include one of them, as one page of Anthropic's list.
pub fn models(policy: &Policy, tenant: TenantId) -> Reply {
    let data: Vec<Value> = usable(policy, tenant, Some(Dialect::Anthropic)).map(|(id, _)| entry(id)).collect();
    let at = |entry: Option<&Value>| entry.and_then(|entry| entry.get("id")).cloned().unwrap_or(Value::Null);
    let (first, last) = (at(data.first()), at(data.last()));
    let list = json!({"data": data, "has_more": false, "first_id": first, "last_id": last});
    Reply::json(list.to_string().into_bytes())
}

/// `GET /v1/models/{id}`: returns one entry of that list.
pub fn model(policy: &Policy, tenant: TenantId, id: &str) -> Option<Reply> {
    let (id, _) = usable(policy, tenant, Some(Dialect::Anthropic)).find(|(other, _)| *other == id)?;
    Some(Reply::json(entry(id).to_string().into_bytes()))
}

fn entry(id: &str) -> Value {
    json!({"type": "model", "id": id, "display_name": id, "created_at": "1970-01-01T00:00:00Z"})
}
