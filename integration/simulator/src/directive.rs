//! Finds a `[[sim:{…}]]` directive in a prompt.

use memchr::memmem;

use crate::behavior::Behavior;

const OPEN: &str = "[[sim:";

/// Returns the behavior that a prompt asks for, if any. An error says what is wrong with the directive.
pub fn find(text: &str) -> Result<Option<Behavior>, String> {
    let Some(at) = memmem::find(text.as_bytes(), OPEN.as_bytes()) else { return Ok(None) };
    let rest = text.get(at + OPEN.len()..).unwrap_or_default();
    let mut documents = serde_json::Deserializer::from_str(rest).into_iter::<Behavior>();
    let behavior = match documents.next() {
        Some(Ok(behavior)) => behavior,
        Some(Err(error)) => return Err(format!("[[sim:…]]: {error}")),
        None => return Err("[[sim:…]]: there is no behavior in it".to_owned()),
    };
    let end = rest.get(documents.byte_offset()..).unwrap_or_default();
    if end.trim_start().starts_with("]]") {
        Ok(Some(behavior))
    } else {
        Err("[[sim:…]]: the behavior is not followed by ]]".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directive_is_found_among_other_words() {
        let found = find(r#"please [[sim:{"content":"]] {","chunks":2}]] now"#).unwrap().unwrap();
        assert_eq!(found.content.as_deref(), Some("]] {"));
        assert_eq!(found.chunks, Some(2));
        assert!(find("please [sim:{}] now").unwrap().is_none());
    }

    #[test]
    fn a_broken_directive_is_an_error() {
        assert!(find("[[sim:{\"statu\":1}]]").unwrap_err().contains("unknown field `statu`"));
        assert!(find("[[sim:{} ]").unwrap_err().contains("not followed by ]]"));
        assert!(find("[[sim:").unwrap_err().contains("no behavior"));
    }
}
