//! Reads the fields of a form (RFC 7578) that are text. Files are left out.

use memchr::memmem;
use serde_json::{Map, Value};

/// Returns the fields, or `None` if the content type is not that of a form. A field without an end is left out.
pub fn fields(content_type: &str, body: &[u8]) -> Option<Value> {
    let (kind, parameters) = content_type.split_once(';')?;
    if !kind.trim().eq_ignore_ascii_case("multipart/form-data") {
        return None;
    }
    let boundary = parameters.split(';').find_map(|parameter| parameter.trim().strip_prefix("boundary="))?;
    let delimiter = format!("--{}", boundary.trim_matches('"'));
    let mut starts = memmem::find_iter(body, delimiter.as_bytes()).peekable();
    let mut fields = Map::new();
    while let Some(start) = starts.next() {
        let Some(&end) = starts.peek() else { break };
        let part = body.get(start + delimiter.len()..end).unwrap_or_default();
        if let Some((name, value)) = field(part) {
            fields.insert(name, Value::String(value));
        }
    }
    Some(Value::Object(fields))
}

/// Returns the name and value of a part, unless it is a file or no text.
fn field(part: &[u8]) -> Option<(String, String)> {
    let at = memmem::find(part, b"\r\n\r\n")?;
    let head = std::str::from_utf8(part.get(..at)?).ok()?;
    if head.contains("filename=") {
        return None;
    }
    let (_, name) = head.split_once("name=\"")?;
    let (name, _) = name.split_once('"')?;
    let value = std::str::from_utf8(part.get(at + 4..)?).ok()?;
    Some((name.to_owned(), value.strip_suffix("\r\n").unwrap_or(value).to_owned()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn text_is_read_and_a_file_is_not() {
        let body = "--b\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\nwhisper\r\n\
            --b\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a.wav\"\r\n\r\nRIFF\r\n--b--\r\n";
        let read = fields("multipart/form-data; boundary=\"b\"", body.as_bytes());
        assert_eq!(read, Some(json!({"model": "whisper"})));
        assert_eq!(fields("application/json", body.as_bytes()), None);
        assert_eq!(fields("multipart/form-data; boundary=b", b"--b\r\nname"), Some(json!({})));
    }
}
