//! Durations in Go's format.

/// Formats a duration as Go does, and OpenAI's headers with it: `120ms`, `1s`, `6m0s`, `1h0m0s`.
pub fn go_duration(ms: u64) -> String {
    if ms < 1000 {
        return if ms == 0 { "0s".to_owned() } else { [itoa::Buffer::new().format(ms), "ms"].concat() };
    }
    let (hours, minutes, seconds) = (ms / 3_600_000, ms / 60_000 % 60, ms / 1000 % 60);
    let mut text = String::with_capacity(24);
    if hours > 0 {
        push(&mut text, hours);
        text.push('h');
    }
    if hours > 0 || minutes > 0 {
        push(&mut text, minutes);
        text.push('m');
    }
    push(&mut text, seconds);
    match ms % 1000 {
        0 => {}
        rest => {
            text.push('.');
            // Three digits: keep leading zeros, drop trailing ones.
            text.extend([rest / 100, rest / 10 % 10, rest % 10].map(|digit| char::from(b'0' + digit as u8)));
            text.truncate(text.trim_end_matches('0').len());
        }
    }
    text.push('s');
    text
}

fn push(text: &mut String, number: u64) {
    text.push_str(itoa::Buffer::new().format(number));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_written_as_openai_writes_them() {
        for (ms, text) in [
            (0, "0s"),
            (20, "20ms"),
            (1000, "1s"),
            (1500, "1.5s"),
            (10_050, "10.05s"),
            (61_007, "1m1.007s"),
            (360_000, "6m0s"),
            (3_600_000, "1h0m0s"),
            (90_061_000, "25h1m1s"),
        ] {
            assert_eq!(go_duration(ms), text);
        }
    }
}
