//! One kept answer with what is known of it, as bytes for a store.

use crate::cache::key::Key;
use crate::dialect::kept::KeptAnswer;
use crate::usage::Usage;
use crate::wire::bytes::{Reader, Writer};

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
    /// The tenant's name. It is part of the key, and said once more: an entry is read for no other tenant, whatever its
    /// key is.
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
    pub answer: KeptAnswer,
}

/// Key, `created_ms` and `expires_ms` follow it, so that a store can read them without the rest.
const VERSION: u8 = 4;

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
            answer,
        } = self;
        let mut out = Writer::with_capacity(512 + answer.bytes());
        out.u8(VERSION);
        out.raw(&key.0);
        let Usage { input, cached_input, output } = *usage;
        for number in [*created_ms, *expires_ms, input, cached_input, output, *cost_micro_usd, *policy] {
            out.u64(number);
        }
        out.flag(*usage_estimated);
        [tenant, provider, model, prompt].into_iter().for_each(|text| out.text(text));
        answer.encode(&mut out);
        out.finish()
    }

    /// Reads the entry of `key` and `tenant`. `None` for anything else, whatever it is.
    pub fn decode(bytes: &[u8], key: &Key, tenant: &str) -> Option<Self> {
        let mut reader = Reader::new(bytes);
        if reader.u8()? != VERSION || *reader.array()? != key.0 {
            return None;
        }
        let entry = Self {
            key: *key,
            created_ms: reader.u64()?,
            expires_ms: reader.u64()?,
            usage: Usage { input: reader.u64()?, cached_input: reader.u64()?, output: reader.u64()? },
            cost_micro_usd: reader.u64()?,
            policy: reader.u64()?,
            usage_estimated: reader.flag()?,
            tenant: reader.text()?.to_owned(),
            provider: reader.text()?.to_owned(),
            model: reader.text()?.to_owned(),
            prompt: reader.text()?.to_owned(),
            answer: KeptAnswer::decode(&mut reader)?,
        };
        reader.end()?;
        (entry.tenant == tenant).then_some(entry)
    }

    /// About how many bytes it takes: those of its texts, and of what holds them.
    pub fn bytes(&self) -> usize {
        const AROUND: usize = size_of::<Entry>();
        let names = self.tenant.len() + self.provider.len() + self.model.len() + self.prompt.len();
        AROUND + names + self.answer.bytes()
    }

    /// The key, and when it was made and ceases to be good, of an encoded entry.
    pub fn peek(bytes: &[u8]) -> Option<(Key, u64, u64)> {
        let mut reader = Reader::new(bytes);
        (reader.u8()? == VERSION).then_some(())?;
        Some((Key(*reader.array()?), reader.u64()?, reader.u64()?))
    }

    /// How old it is in milliseconds, if it is good: not past its time, nor past the task's, which may have been
    /// shortened since, nor older than the caller wants (what was made since it `asked_ms` is not), nor from a future
    /// that a clock has jumped back from.
    pub fn age_ms(&self, now_ms: u64, ttl_ms: u64, max_age_s: Option<u64>, asked_ms: u64) -> Option<u64> {
        const CLOCKS_DIFFER_MS: u64 = 60_000;
        if self.created_ms > now_ms.saturating_add(CLOCKS_DIFFER_MS) {
            return None;
        }
        let age = now_ms.saturating_sub(self.created_ms);
        let is_wanted = |max: u64| age <= max.saturating_mul(1000) || self.created_ms >= asked_ms;
        (now_ms < self.expires_ms && age < ttl_ms && max_age_s.is_none_or(is_wanted)).then_some(age)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dialect::client::ClientDialect;
    use serde_json::json;

    fn entry() -> Entry {
        let call = json!([{"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}]);
        let whole = json!({"id": "old", "created": 1, "model": "gpt", "vendor": true,
            "choices": [{"index": 0, "message": {"role": "assistant", "content": "é\n"},
                         "finish_reason": "stop", "stop_reason": "#"},
                        {"index": 1, "message": {"role": "assistant", "tool_calls": call},
                         "finish_reason": "tool_calls"}],
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
            answer: ClientDialect::OpenAi.keep(whole.to_string().as_bytes(), 2).unwrap(),
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
}
