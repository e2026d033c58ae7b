//! One kept answer: as bytes for a store, and as the answer to a caller.

use crate::cache::key::Key;
use crate::dialect::openai::completion::{Choice, Completion};
use crate::usage::Usage;

/// A kept answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The whole key, so that a store which finds something else under a shortened one is found out.
    pub key: Key,
    /// When it was made, in milliseconds since the Unix epoch.
    pub created_ms: u64,
    /// When it ceases to be good, likewise.
    pub expires_ms: u64,
    /// What it took.
    pub usage: Usage,
    /// Whether that is an estimate.
    pub usage_estimated: bool,
    /// What it cost, in millionths of a dollar; what is not known counts as nothing.
    pub cost_micro_usd: u64,
    /// The tenant's name. It is part of the key, and said once more: an entry is read for no other tenant, whatever its key is.
    pub tenant: String,
    /// The provider's name.
    pub provider: String,
    /// The model's name in the policy.
    pub model: String,
    /// The prompt and its version, as `id@version`; empty if the request named none.
    pub prompt: String,
    /// The revision of the policy under which it was made.
    pub policy: u64,
    /// The answer.
    pub completion: Completion,
}

const VERSION: u8 = 3;
/// `created_ms` and `expires_ms` follow version and key, so that a store can read them without the rest.
const TIMES: usize = 1 + 32;

impl Entry {
    /// As bytes.
    pub fn encode(&self) -> Vec<u8> {
        // Every field by name: a new one does not compile until it is written.
        let Self {
            key,
            created_ms,
            expires_ms,
            usage,
            usage_estimated,
            cost_micro_usd,
            tenant,
            provider,
            model,
            prompt,
            policy,
            completion: Completion { common, extra, usage: usage_text, choices },
        } = self;
        let mut out = Vec::with_capacity(512 + choices.iter().map(|c| c.message.len()).sum::<usize>());
        out.push(VERSION);
        out.extend_from_slice(&key.0);
        for number in
            [*created_ms, *expires_ms, usage.input, usage.cached_input, usage.output, *cost_micro_usd, *policy]
        {
            out.extend(number.to_le_bytes());
        }
        out.push(u8::from(*usage_estimated));
        for text in [tenant, provider, model, prompt, common, extra] {
            put(&mut out, text);
        }
        put_optional(&mut out, usage_text.as_deref());
        out.extend((choices.len() as u32).to_le_bytes());
        for Choice { index, message, delta, logprobs, finish_reason, ending } in choices {
            out.extend(index.to_le_bytes());
            put(&mut out, message);
            put_optional(&mut out, delta.as_deref());
            put_optional(&mut out, logprobs.as_deref());
            put(&mut out, finish_reason);
            put(&mut out, ending);
        }
        out
    }

    /// Reads the entry of `key` and `tenant`. `None` for anything else, whatever it is.
    pub fn decode(bytes: &[u8], key: &Key, tenant: &str) -> Option<Self> {
        let mut reader = Reader(bytes);
        if reader.take(1)? != [VERSION] || reader.take(32)? != key.0 {
            return None;
        }
        let mut entry = Self {
            key: *key,
            created_ms: reader.number()?,
            expires_ms: reader.number()?,
            usage: Usage { input: reader.number()?, cached_input: reader.number()?, output: reader.number()? },
            cost_micro_usd: reader.number()?,
            policy: reader.number()?,
            usage_estimated: reader.flag()?,
            tenant: reader.text()?,
            provider: reader.text()?,
            model: reader.text()?,
            prompt: reader.text()?,
            completion: Completion {
                common: reader.text()?,
                extra: reader.text()?,
                usage: reader.optional()?,
                choices: Vec::new(),
            },
        };
        for _ in 0..reader.count()? {
            entry.completion.choices.push(Choice {
                index: reader.number()?,
                message: reader.text()?,
                delta: reader.optional()?,
                logprobs: reader.optional()?,
                finish_reason: reader.text()?,
                ending: reader.text()?,
            });
        }
        (reader.0.is_empty() && entry.tenant == tenant).then_some(entry)
    }

    /// About how many bytes it takes: those of its texts, and of what holds them.
    pub fn bytes(&self) -> usize {
        const AROUND: usize = size_of::<Entry>();
        let Completion { common, extra, usage, choices } = &self.completion;
        let length = |text: &Option<String>| text.as_ref().map_or(0, String::len);
        let of_choice = |choice: &Choice| {
            let Choice { index: _, message, delta, logprobs, finish_reason, ending } = choice;
            size_of::<Choice>() + message.len() + length(delta) + length(logprobs) + finish_reason.len() + ending.len()
        };
        let names = self.tenant.len() + self.provider.len() + self.model.len() + self.prompt.len();
        AROUND + names + common.len() + extra.len() + length(usage) + choices.iter().map(of_choice).sum::<usize>()
    }

    /// The key, and when it was made and ceases to be good, of an encoded entry.
    pub fn peek(bytes: &[u8]) -> Option<(Key, u64, u64)> {
        let (version, mut rest) = bytes.split_first()?;
        let key = rest.first_chunk::<32>().filter(|_| *version == VERSION)?;
        rest = bytes.get(TIMES..)?;
        let (created, rest) = rest.split_first_chunk::<8>()?;
        let expires = rest.first_chunk::<8>()?;
        Some((Key(*key), u64::from_le_bytes(*created), u64::from_le_bytes(*expires)))
    }

    /// How old it is in milliseconds, if it is good: not past its time, nor past the task's, which may have been shortened
    /// since, nor older than the caller wants (what was made since it `asked_ms` is not), nor from a future that a clock has
    /// jumped back from.
    pub fn age_ms(&self, now_ms: u64, ttl_ms: u64, max_age_s: Option<u64>, asked_ms: u64) -> Option<u64> {
        const CLOCKS_DIFFER_MS: u64 = 60_000;
        if self.created_ms > now_ms.saturating_add(CLOCKS_DIFFER_MS) {
            return None;
        }
        let age = now_ms.saturating_sub(self.created_ms);
        let is_wanted = |max: u64| age <= max.saturating_mul(1000) || self.created_ms >= asked_ms;
        (now_ms < self.expires_ms && age < ttl_ms && max_age_s.is_none_or(is_wanted)).then_some(age)
    }

    /// The answer to a caller that wants no stream.
    pub fn whole(&self, id: &str, now_ms: u64) -> Vec<u8> {
        let Completion { common, extra, usage, choices } = &self.completion;
        let mut out = Out(Vec::with_capacity(self.room(id)));
        let mut digits = itoa::Buffer::new();
        out.all(&[
            "{\"id\":\"",
            id,
            "\",\"object\":\"chat.completion\",\"created\":",
            digits.format(now_ms / 1000),
            common,
        ]);
        out.all(&[",\"choices\":["]);
        for (i, choice) in choices.iter().enumerate() {
            out.all(&[
                if i > 0 { "," } else { "" },
                "{\"index\":",
                digits.format(choice.index),
                ",\"message\":",
                &choice.message,
            ]);
            out.all(&[",\"logprobs\":", choice.logprobs.as_deref().unwrap_or("null")]);
            out.all(&[",\"finish_reason\":\"", &choice.finish_reason, "\"", &choice.ending, "}"]);
        }
        out.all(&["]"]);
        if let Some(usage) = usage {
            out.all(&[",\"usage\":", usage]);
        }
        out.all(&[extra, "}"]);
        out.0
    }

    /// The answer to a caller that wants a stream: server-sent events to the last one.
    pub fn stream(&self, id: &str, now_ms: u64, include_usage: bool) -> Vec<u8> {
        let Completion { common, extra: _, usage, choices } = &self.completion;
        let created = (now_ms / 1000).to_string();
        let head = ["data: {\"id\":\"", id, "\",\"object\":\"chat.completion.chunk\",\"created\":", &created, common];
        // With usage asked for, every other chunk says that it has none.
        let tail = if include_usage { ",\"usage\":null}\n\n" } else { "}\n\n" };
        let mut out = Out(Vec::with_capacity(self.room(id)));
        for choice in choices {
            let index = choice.index.to_string();
            out.all(&head);
            out.all(&[
                ",\"choices\":[{\"index\":",
                &index,
                ",\"delta\":",
                choice.delta.as_ref().unwrap_or(&choice.message),
            ]);
            out.all(&[
                ",\"logprobs\":",
                choice.logprobs.as_deref().unwrap_or("null"),
                ",\"finish_reason\":null}]",
                tail,
            ]);
        }
        for choice in choices {
            out.all(&head);
            out.all(&[",\"choices\":[{\"index\":", &choice.index.to_string(), ",\"delta\":{},\"logprobs\":null"]);
            out.all(&[",\"finish_reason\":\"", &choice.finish_reason, "\"", &choice.ending, "}]", tail]);
        }
        if include_usage {
            out.all(&head);
            out.all(&[",\"choices\":[],\"usage\":"]);
            match usage {
                Some(usage) => out.all(&[usage]),
                None => out.all(&[&self.own_usage()]),
            }
            out.all(&["}\n\n"]);
        }
        out.all(&["data: [DONE]\n\n"]);
        out.0
    }

    fn own_usage(&self) -> String {
        let Usage { input, output, .. } = self.usage;
        let total = input.saturating_add(output);
        format!("{{\"prompt_tokens\":{input},\"completion_tokens\":{output},\"total_tokens\":{total}}}")
    }

    /// As many bytes as the answer has at the most, so that a long one is not copied while it is written.
    fn room(&self, id: &str) -> usize {
        const AROUND: usize = 256;
        let Completion { common, extra, usage, choices } = &self.completion;
        let length = |text: &Option<String>| text.as_ref().map_or(0, String::len);
        let chunk = AROUND + id.len() + common.len();
        let of_choice = |choice: &Choice| {
            let text = choice.message.len().max(length(&choice.delta));
            2 * chunk + text + length(&choice.logprobs) + choice.finish_reason.len() + choice.ending.len()
        };
        2 * chunk + extra.len() + length(usage) + choices.iter().map(of_choice).sum::<usize>()
    }
}

struct Out(Vec<u8>);

impl Out {
    fn all(&mut self, parts: &[&str]) {
        parts.iter().for_each(|part| self.0.extend_from_slice(part.as_bytes()));
    }
}

fn put(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as u32).to_le_bytes());
    out.extend_from_slice(text.as_bytes());
}

fn put_optional(out: &mut Vec<u8>, text: Option<&str>) {
    out.push(u8::from(text.is_some()));
    if let Some(text) = text {
        put(out, text);
    }
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn number(&mut self) -> Option<u64> {
        self.take(8)?.try_into().ok().map(u64::from_le_bytes)
    }

    fn count(&mut self) -> Option<usize> {
        let count = self.take(4)?.try_into().ok().map(u32::from_le_bytes)?;
        usize::try_from(count).ok()
    }

    fn flag(&mut self) -> Option<bool> {
        match self.take(1)? {
            [0] => Some(false),
            [1] => Some(true),
            _ => None,
        }
    }

    fn text(&mut self) -> Option<String> {
        let len = self.count()?;
        // An answer may be long: this looks at sixteen bytes at a time.
        simdutf8::basic::from_utf8(self.take(len)?).ok().map(str::to_owned)
    }

    fn optional(&mut self) -> Option<Option<String>> {
        if self.flag()? { self.text().map(Some) } else { Some(None) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn entry() -> Entry {
        let call = json!([{"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}]);
        let whole = json!({"id": "old", "created": 1, "model": "gpt", "vendor": true,
            "choices": [{"index": 0, "message": {"role": "assistant", "content": "é\n"}, "finish_reason": "stop", "stop_reason": "#"},
                        {"index": 1, "message": {"role": "assistant", "tool_calls": call}, "finish_reason": "tool_calls"}],
            "usage": {"prompt_tokens": 3, "completion_tokens": 4}});
        Entry {
            key: Key([7; 32]),
            created_ms: 1_000_000,
            expires_ms: 1_060_000,
            usage: Usage { input: 3, cached_input: 1, output: 4 },
            usage_estimated: true,
            cost_micro_usd: 99,
            tenant: "t".to_owned(),
            provider: "p".to_owned(),
            model: "m".to_owned(),
            prompt: "a@1".to_owned(),
            policy: 5,
            completion: Completion::from_whole(whole, 2).unwrap(),
        }
    }

    #[test]
    fn comes_back_from_its_bytes_and_from_no_others() {
        let entry = entry();
        let bytes = entry.encode();
        assert_eq!(Entry::decode(&bytes, &entry.key, "t").as_ref(), Some(&entry));
        assert_eq!(Entry::peek(&bytes), Some((entry.key, entry.created_ms, entry.expires_ms)));
        assert_eq!(Entry::decode(&bytes, &Key([8; 32]), "t"), None);
        assert_eq!(Entry::decode(&bytes, &entry.key, "another"), None);
        for cut in 0..bytes.len() {
            assert_eq!(Entry::decode(&bytes[..cut], &entry.key, "t"), None);
        }
        let mut longer = bytes.clone();
        longer.push(0);
        assert_eq!(Entry::decode(&longer, &entry.key, "t"), None);
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 0xff;
            let _ = Entry::decode(&changed, &entry.key, "t");
        }
    }

    #[test]
    fn is_good_for_its_time_and_no_longer() {
        let entry = entry();
        let age = |now_ms, ttl_ms, max_age| entry.age_ms(now_ms, ttl_ms, max_age, u64::MAX);
        assert_eq!(age(1_000_000, 60_000, None), Some(0));
        assert_eq!(age(1_059_999, 60_000, None), Some(59_999));
        assert_eq!(age(1_060_000, 600_000, None), None);
        assert_eq!(age(1_030_000, 30_000, None), None);
        assert_eq!(age(1_030_000, 60_000, Some(30)), Some(30_000));
        assert_eq!(age(1_030_001, 60_000, Some(30)), None);
        assert_eq!(age(1_030_001, 60_000, Some(u64::MAX)), Some(30_001));
        assert_eq!(age(500_000, 60_000, None), None, "from the future");
        // Two callers who want nothing old: one has asked before it was made, one after.
        assert_eq!(entry.age_ms(1_000_700, 60_000, Some(0), 1_000_000), Some(700));
        assert_eq!(entry.age_ms(1_000_700, 60_000, Some(0), 1_000_001), None);
        assert_eq!(entry.age_ms(1_060_000, 60_000, Some(0), 1_000_000), None);
    }

    #[test]
    fn answers_both_kinds_of_callers() {
        let entry = entry();
        let room = entry.room("chatcmpl-new");
        assert!(entry.whole("chatcmpl-new", 5_000_000).len() <= room);
        let whole: Value = serde_json::from_slice(&entry.whole("chatcmpl-new", 5_000_000)).unwrap();
        assert_eq!(
            (&whole["id"], &whole["created"], &whole["model"]),
            (&json!("chatcmpl-new"), &json!(5000), &json!("gpt"))
        );
        assert_eq!(whole["choices"][0]["message"]["content"], "é\n");
        assert_eq!((&whole["usage"]["prompt_tokens"], &whole["vendor"]), (&json!(3), &json!(true)));
        for include_usage in [false, true] {
            let stream = String::from_utf8(entry.stream("chatcmpl-new", 5_000_000, include_usage)).unwrap();
            assert!(stream.len() <= room);
            let events: Vec<&str> =
                stream.split_terminator("\n\n").map(|e| e.strip_prefix("data: ").unwrap()).collect();
            assert_eq!(events.last(), Some(&"[DONE]"));
            let chunks: Vec<Value> =
                events[..events.len() - 1].iter().map(|e| serde_json::from_str(e).unwrap()).collect();
            assert_eq!(chunks.len(), 4 + usize::from(include_usage));
            assert!(chunks.iter().all(|c| c["object"] == "chat.completion.chunk" && c["id"] == "chatcmpl-new"));
            assert_eq!(chunks[0]["choices"][0]["delta"]["content"], "é\n");
            assert_eq!(chunks[1]["choices"][0]["delta"]["tool_calls"][0]["index"], 0);
            assert_eq!(chunks[3]["choices"][0]["finish_reason"], "tool_calls");
            assert_eq!(chunks[0].get("usage"), include_usage.then_some(&Value::Null));
            if include_usage {
                assert_eq!((&chunks[4]["choices"], &chunks[4]["usage"]["completion_tokens"]), (&json!([]), &json!(4)));
            }
        }
    }
}
