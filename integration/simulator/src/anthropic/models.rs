//! The models as Anthropic lists them.

use serde_json::{Value, json};

/// Returns the list of models, all on one page.
pub fn models(names: &[String]) -> Value {
    let data: Vec<Value> = names.iter().map(|name| model(name)).collect();
    json!({"data": data, "has_more": false, "first_id": names.first(), "last_id": names.last()})
}

/// Returns one model.
pub fn model(name: &str) -> Value {
    json!({
        "type": "model",
        "id": name,
        "display_name": format!("{name} (simulated)"),
        "created_at": "2026-01-01T00:00:00Z",
        "lifecycle": "active",
        "max_input_tokens": 200_000,
        "max_tokens": 64_000,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_names_its_ends() {
        let page = models(&["a".to_owned(), "b".to_owned()]);
        assert_eq!((&page["first_id"], &page["last_id"], &page["has_more"]), (&json!("a"), &json!("b"), &json!(false)));
        assert_eq!(page["data"][1]["display_name"], "b (simulated)");
        assert_eq!(models(&[])["first_id"], Value::Null);
    }
}
