//! A caller's request: what our scanner accepts is JSON, means the same to another parser, and has one normal form.

use pointsman_core::cache::normal_form::{self, Reading};
use pointsman_core::dialect::client::ClientDialect;
use serde_json::{Map, Value};

const NESTING: u32 = 64;

pub fn request(text: &[u8]) {
    for dialect in ClientDialect::ALL {
        of_dialect(dialect, text);
    }
}

fn of_dialect(dialect: ClientDialect, text: &[u8]) {
    let reading = |nfc| Reading { max_depth: NESTING, nfc, delivery: dialect.delivery_members() };
    let form = normal_form::request(text, reading(false));
    let _ = normal_form::request(text, reading(true));
    let Ok(request) = dialect.parse(text, NESTING) else { return };
    let facts = request.facts();
    let _ = (facts.prompt_characters(), facts.prompt_bytes(), request.bytes_found());
    let tree: Map<String, Value> = match serde_json::from_slice(text) {
        Ok(tree) => tree,
        // The grammar allows a lone surrogate; only a decoder refuses it.
        Err(e) if ["surrogate", "end of hex escape"].iter().any(|half| e.to_string().contains(half)) => return,
        Err(e) if e.to_string().contains("number out of range") => return,
        Err(e) => panic!("{e}: {}", String::from_utf8_lossy(text)),
    };
    assert_eq!(tree.len(), facts.members.len(), "a name was taken twice");
    for member in &facts.members {
        let value: Value = serde_json::from_slice(facts.bytes(&member.value.span)).unwrap();
        assert_eq!(tree.get(&*member.name), Some(&value), "{}", member.name);
    }
    assert_eq!(facts.model.as_deref(), tree.get("model").and_then(Value::as_str));
    // A count of tokens is never streamed.
    let wants_stream = tree.get("stream").and_then(Value::as_bool).unwrap_or(false);
    assert_eq!(facts.stream, wants_stream && dialect != ClientDialect::AnthropicCount);
    if let Ok(form) = form
        && !has_hard_number(text)
    {
        // Another serializer, with other member order and white space, produces the same question.
        let anew = serde_json::to_vec_pretty(&tree).unwrap();
        assert_eq!(normal_form::request(&anew, reading(false)), Ok(form), "{}", String::from_utf8_lossy(&anew));
    }
}

/// Returns whether the text may hold a number that the other serializer does not preserve: too many digits, or too
/// close to zero.
fn has_hard_number(text: &[u8]) -> bool {
    let is_of_number = |byte: &u8| b"0123456789.eE+-".contains(byte);
    let is_hard = |run: &[u8]| run.len() > 15 || run.windows(2).any(|pair| matches!(pair, b"e-" | b"E-"));
    text.split(|byte| !is_of_number(byte)).any(is_hard)
}
