//! Server-sent events by the WHATWG HTML standard: the data of each event, and the lines that are no field of one.

/// Returns the data of each event that has any. A line break is LF, CRLF or CR; an event that no empty line ends is
/// discarded, unless it is the end marker.
pub fn data(text: &str) -> Vec<String> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let text = text.replace("\r\n", "\n").replace('\r', "\n");
    let (mut events, mut lines): (Vec<String>, Vec<&str>) = (Vec::new(), Vec::new());
    for line in text.split('\n') {
        let value = line.strip_prefix("data").filter(|rest| rest.is_empty() || rest.starts_with(':'));
        if line.is_empty() {
            if !lines.is_empty() {
                events.push(lines.join("\n"));
            }
            lines.clear();
        } else if let Some(value) = value {
            let value = value.strip_prefix(':').unwrap_or(value);
            lines.push(value.strip_prefix(' ').unwrap_or(value));
        }
    }
    if lines.join("\n").trim() == "[DONE]" {
        events.push("[DONE]".to_owned());
    }
    events
}

#[cfg(test)]
mod tests {
    use super::data;

    #[test]
    fn events_have_their_data() {
        assert_eq!(data("\u{feff}data: a\r\rdata:b\r\ndata: c\r\n\r\n: x\nevent: y\n\ndata: cut"), ["a", "b\nc"]);
        assert_eq!(data("data: a\n\ndata: [DONE]"), ["a", "[DONE]"]);
        assert!(data("database: x\n\nerror: y\n\n").is_empty());
    }
}
