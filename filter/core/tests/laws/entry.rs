//! A cache entry: bytes that decode encode to the same bytes, and an entry made of a provider's answer replays as a
//! valid answer.

use pointsman_core::cache::entry::{Entry, Peek};
use pointsman_core::cache::key::Key;
use pointsman_core::dialect::client::ClientDialect;
use pointsman_core::dialect::kept::KeptAnswer;
use pointsman_core::exchange::answer::{Answer, StreamRules};
use pointsman_core::usage::Usage;
use serde_json::Value;

pub fn entry(bytes: &[u8]) {
    // A stored entry, looked up by its own key.
    let key = bytes.get(1..33).map_or([0; 32], |key| key.try_into().unwrap());
    if let Some(entry) = Entry::decode(bytes, &Key(key), "t") {
        assert_eq!(entry.encode(), bytes);
        let Entry { key: of, created_ms, expires_ms, ref tenant, .. } = entry;
        assert_eq!(Entry::peek(bytes), Some(Peek { key: of, created_ms, expires_ms, tenant }));
        assert_eq!(Entry::decode(bytes, &Key(key), "u"), None, "another tenant's");
        assert_eq!(Entry::decode(bytes, &Key([!key[0]; 32]), "t"), None, "another question's");
        let _ = (entry.answer.whole("id", 1), entry.bytes(), entry.age_ms(2, 3, Some(4), 5));
        let _ = [true, false].map(|usage| entry.answer.stream(&entry.usage, "id", 1, usage));
    }
    // An entry made of a provider's answer.
    for dialect in ClientDialect::ALL {
        if dialect.read_whole(bytes).is_ok() {
            let choices = serde_json::from_slice::<Value>(bytes).map_or(1, |tree| {
                tree.get("choices").and_then(Value::as_array).map_or(1, |choices| choices.len() as u64)
            });
            if let Ok(answer) = dialect.keep(bytes, choices) {
                kept(Key(key), dialect, answer, choices);
            }
        }
    }
}

fn kept(key: Key, dialect: ClientDialect, answer: KeptAnswer, choices: u64) {
    let entry = entry_of(key, answer);
    assert_eq!(Entry::decode(&entry.encode(), &key, "t").as_ref(), Some(&entry));
    let whole = entry.answer.whole("id", 1);
    assert_eq!(dialect.keep(&whole, choices).as_ref(), Ok(&entry.answer), "kept again it is another");
    assert!(dialect.read_whole(&whole).is_ok(), "{}", String::from_utf8_lossy(&whole));
    for wants_usage in [true, false] {
        let stream = entry.answer.stream(&entry.usage, "id", 1, wants_usage);
        let mut answer = Answer::stream(
            dialect,
            200,
            StreamRules { hide_usage: false, recording: None, max_event: u64::MAX, held: None },
        );
        assert_eq!(answer.stream_chunk(&stream, false, || 1), None, "{}", String::from_utf8_lossy(&stream));
        assert!(answer.is_done(), "{}", String::from_utf8_lossy(&stream));
    }
}

/// Returns an entry of the tenant `t`.
pub fn entry_of(key: Key, answer: KeptAnswer) -> Entry {
    Entry {
        key,
        created_ms: 1,
        expires_ms: 1 << 50,
        usage: Usage { input: 1, output: 1, ..Usage::default() },
        usage_estimated: true,
        cost_micro_usd: 3,
        tenant: "t".to_owned(),
        provider: "p".to_owned(),
        model: "m".to_owned(),
        prompt: "a@1".to_owned(),
        policy: 4,
        answer,
    }
}

/// Returns whether a text of the corpus is what its name says; `None` if it has none of our formats.
pub fn is_read(name: &str, bytes: &[u8]) -> Option<bool> {
    (name == "encoded").then(|| Entry::decode(bytes, &Key([7; 32]), "t").is_some())
}
