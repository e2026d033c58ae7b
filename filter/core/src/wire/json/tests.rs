//! Tests of the scanner.

use super::*;

fn scan(text: &[u8]) -> Result<Scanned, InvalidJson> {
    let mut scanner = Scanner::new(text, 8);
    let value = scanner.value()?;
    scanner.finish()?;
    Ok(value)
}

#[test]
fn accepts_and_rejects_exactly_what_serde_json_does() {
    let long = format!("\"{}\\n{}\"", "a".repeat(40), "é".repeat(40));
    let cases: &[&[u8]] = &[
        b"{}",
        b" [ ] ",
        b"[1,2]",
        b"[1,]",
        b"{\"a\":1,}",
        b"{\"a\" 1}",
        b"{a:1}",
        b"nul",
        b"null ",
        b"true false",
        b"01",
        b"-",
        b"-0",
        b"1.",
        b"1.5e+3",
        b"1e",
        b".5",
        b"+1",
        b"\"",
        b"\"\\",
        b"\"\\u12\"",
        b"\"\\u1234\"",
        b"\"\\x\"",
        b"\"\t\"",
        b"\"tab\\t\"",
        b"\"\x7f\"",
        b"",
        b"[",
        b"[[",
        b"]",
        b"{\"a\":{\"b\":[1,{}]}}",
        b"\xff",
        b"\"\xff\"",
        b"\"\xc3\xa9\"",
        b"\"\xed\xa0\x80\"",
        b"\"0123456789abcdef\"",
        b"\"0123456789abcde\"",
        b"\"0123456789abcd",
        b"\"0123456789abcde\\",
        b"\"\0\"",
        b"\"a\0",
        b"[\"0123456789abcdef\xff\"]",
        long.as_bytes(),
    ];
    for case in cases {
        let ours = scan(case).is_ok();
        let theirs = serde_json::from_slice::<serde_json::Value>(case).is_ok();
        assert_eq!(ours, theirs, "{:?}", String::from_utf8_lossy(case));
    }
}

#[test]
fn every_truncation_and_every_changed_byte_agrees_with_serde_json() {
    let text = r#"{"k\u0041\n":[true,false,null,-1.25e-3,"ünïcödé and a long tail of text"],"z":{"y":""}}"#.as_bytes();
    for cut in 0..text.len() {
        assert!(scan(&text[..cut]).is_err(), "{cut}");
        for byte in [0u8, b'"', b'\\', b'{', b',', b'9', 0x80, 0xff, b'u'] {
            let mut changed = text.to_vec();
            changed[cut] = byte;
            let theirs = serde_json::from_slice::<serde_json::Value>(&changed);
            // The grammar allows a lone surrogate; only serde_json rejects it, because it decodes strings.
            if let Err(e) = &theirs
                && e.to_string().contains("surrogate")
            {
                continue;
            }
            assert_eq!(scan(&changed).is_ok(), theirs.is_ok(), "{cut} {byte}");
        }
    }
}

#[test]
fn long_strings_of_text_and_escapes_agree_with_serde_json() {
    let pieces: [&[u8]; 20] = [
        b"plain text of some length, as in a prompt ",
        b"a",
        b"0123456789abcdef",
        "ünï漢".as_bytes(),
        b"\\n",
        b"\\r\\n",
        b"\\\"",
        b"\\\\",
        b"\\\\\\\"",
        b"\\t\\/\\b\\f",
        b"\\u00e9",
        b"\\u6f22",
        b"0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcde\\",
        b"n",
        b"\\x",
        b"\\",
        b"\\u12",
        b"\t",
        b"\"",
        b"\xff",
    ];
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = |below: usize| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        (random >> 33) as usize % below
    };
    let mut valid = 0;
    for round in 0..20_000 {
        let mut text = vec![b'"'];
        // Half of the rounds use only valid pieces.
        let choice = if round % 2 == 0 { 12 } else { pieces.len() };
        for _ in 0..next(16) {
            text.extend_from_slice(pieces[next(choice)]);
        }
        text.extend_from_slice(&b"0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"[..next(65)]);
        text.push(b'"');
        let theirs = serde_json::from_slice::<String>(&text);
        match scan(&text) {
            Ok(value) => {
                assert!(theirs.is_ok(), "{:?}", String::from_utf8_lossy(&text));
                assert_eq!(value.span, 0..text.len());
                valid += 1;
            }
            Err(_) => assert!(theirs.is_err(), "{:?}", String::from_utf8_lossy(&text)),
        }
    }
    assert!(valid > 9_000);
}

#[test]
fn depth_is_limited_and_the_place_is_told() {
    assert!(scan(b"[[[[[[[[1]]]]]]]]").is_ok());
    assert_eq!(scan(b"[[[[[[[[[1]]]]]]]]]"), Err(InvalidJson { at: 8, why: Why::TooDeep }));
    assert_eq!(scan(&[b'['; 100_000]).unwrap_err().why, Why::TooDeep);
    assert_eq!(scan(b"{\"a\":").unwrap_err(), InvalidJson { at: 5, why: Why::End });
    assert_eq!(scan(b"{\"a\":x}").unwrap_err(), InvalidJson { at: 5, why: Why::Unexpected });
}

#[test]
fn quotes_every_character_at_every_place() {
    for code in (0..0x200).chain([0x7ff, 0x800, 0xffff, 0x10000, 0x10ffff]) {
        let Some(character) = char::from_u32(code) else { continue };
        for at in 0..20 {
            let text = format!("{}{character}{}", "x".repeat(at), "y".repeat(19 - at));
            let mut out = Vec::new();
            quote_into(&mut out, &text);
            assert!(out.iter().all(|byte| *byte >= 0x20 && *byte != 0x7f));
            assert_eq!(serde_json::from_slice::<String>(&out).unwrap(), text);
        }
    }
}

#[test]
fn unquotes_and_quotes() {
    assert_eq!(unquote(br#""mod\u0065l""#).as_deref(), Some("model"));
    assert_eq!(unquote(br#""plain""#).as_deref(), Some("plain"));
    assert_eq!(unquote(br#""\ud800""#), None);
    assert_eq!(unquote(b"\"\xff\""), None);
    let mut out = Vec::new();
    quote_into(&mut out, "a\"b\\c\n\u{1}é");
    assert_eq!(serde_json::from_slice::<String>(&out).unwrap(), "a\"b\\c\n\u{1}é");
}

#[test]
fn characters_are_those_that_strings_stand_for() {
    assert_eq!(characters(br#"[ {"a" :  "bc"} , 12, true ]"#), 3);
    assert_eq!(characters("[\"\\u0434\\n\\\"\\\\\", \"д中😀\"]".as_bytes()), 7);
    for broken in [&b"\"a"[..], b"\"\\", b"\"\\u12", b""] {
        characters(broken);
    }
}

#[test]
fn the_work_of_a_scan_is_bounded() {
    let scan = |text: &[u8], values| {
        let mut scanner = Scanner::bounded(text, 8, values);
        scanner.value().map(drop).and_then(|()| scanner.finish()).map_err(|error| error.why)
    };
    for (text, values) in [("[1,2,3]", 3), (r#"{"a":1,"b":[2,{"c":3}]}"#, 5), ("[[],[[]]]", 3), ("\"text\"", 0)] {
        assert_eq!(scan(text.as_bytes(), values), Ok(()), "{text}");
        assert_eq!(scan(text.as_bytes(), values.saturating_sub(1)).is_ok(), values == 0, "{text}");
    }
}

#[test]
fn names_are_compared_as_the_most_lenient_reader_does() {
    let folded = |name: &str| {
        let text = format!("{{{name}:1}}");
        let mut scanner = Scanner::bounded(text.as_bytes(), 8, 100);
        let mut found = None;
        let read = scanner.object(|s, key| {
            found = Some(String::from_utf8(s.folded_name(&key)?.into_owned()).unwrap());
            s.value().map(drop)
        });
        read.map(|()| found.unwrap()).map_err(|error| error.why)
    };
    for (name, known) in [
        (r#""image_url""#, "image_url"),
        (r#""Image_URL""#, "image_url"),
        (r#""\u0069mage_url""#, "image_url"),
        (r#""\u0049mage\u005furl""#, "image_url"),
        ("\"\u{17f}ervice_tier\"", "service_tier"),
        (r#""to\u212aens""#, "tokens"),
        (r#""\ud800""#, ""),
    ] {
        assert_eq!(folded(name), Ok(known.to_owned()), "{name}");
    }
    // No known name is that long, so it is not decoded.
    assert_eq!(folded(&format!("\"{}\"", "\\u0061".repeat(1000))), Ok(String::new()));
    let many = format!("{{{}\"z\":1}}", r#""\u0061":1,"#.repeat(20));
    let mut scanner = Scanner::bounded(many.as_bytes(), 8, 100);
    let read = scanner.object(|s, key| s.folded_name(&key).and_then(|_| s.value().map(drop)));
    assert_eq!(read.map_err(|error| error.why), Err(Why::TooMany));
}
