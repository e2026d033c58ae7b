//! One stored answer with its metadata, encoded for a store.

use crate::cache::key::Key;
use crate::dialect::kept::KeptAnswer;
use crate::usage::Usage;
use crate::wire::bytes::{Reader, Writer};

/// A stored answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The full key, which exposes a store that returns another entry for a shortened key.
    pub key: Key,
    /// When the entry was created, in milliseconds since the Unix epoch.
    pub created_ms: u64,
    /// When it expires, in milliseconds since the Unix epoch.
    pub expires_ms: u64,
    /// Tokens that the answer used.
    pub usage: Usage,
    /// Whether the usage is an estimate.
    pub usage_estimated: bool,
    /// Cost in millionths of a dollar. An unknown cost counts as zero.
    pub cost_micro_usd: u64,
    /// The tenant's name. The key covers it too, but decoding checks it again: no other tenant can read the entry,
    /// whatever its key.
    pub tenant: String,
    /// The provider's name.
    pub provider: String,
    /// The model's name in the policy.
    pub model: String,
    /// The prompt's id and version as `id@version`; empty if the request named no prompt.
    pub prompt: String,
    /// The revision of the policy under which the entry was created.
    pub policy: u64,
    /// The answer.
    pub answer: KeptAnswer,
}

/// The fields of an entry that a store reads without the rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peek<'a> {
    /// The key.
    pub key: Key,
    /// When the entry was created, in milliseconds since the Unix epoch.
    pub created_ms: u64,
    /// When it expires, in milliseconds since the Unix epoch.
    pub expires_ms: u64,
    /// The tenant's name.
    pub tenant: &'a str,
}

/// Version of the encoding. The fields of [`Peek`] can be read without the answer.
const VERSION: u8 = 5;

impl Entry {
    /// Encodes the entry.
    pub fn encode(&self) -> Vec<u8> {
        // Names every field, so that a new one does not compile until it is encoded.
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
        // The cost, which is stored, is all that depends on the audio.
        let Usage { input, cached_input, cache_write, output, audio_input: _, audio_output: _ } = *usage;
        for number in [*created_ms, *expires_ms, input, cached_input, cache_write, output, *cost_micro_usd, *policy] {
            out.u64(number);
        }
        out.flag(*usage_estimated);
        [tenant, provider, model, prompt].into_iter().for_each(|text| out.text(text));
        answer.encode(&mut out);
        out.finish()
    }

    /// Decodes the entry of `key` and `tenant`. Returns `None` for any other bytes.
    pub fn decode(bytes: &[u8], key: &Key, tenant: &str) -> Option<Self> {
        let mut reader = Reader::new(bytes);
        if reader.u8()? != VERSION || *reader.array()? != key.0 {
            return None;
        }
        let entry = Self {
            key: *key,
            created_ms: reader.u64()?,
            expires_ms: reader.u64()?,
            usage: Usage {
                input: reader.u64()?,
                cached_input: reader.u64()?,
                cache_write: reader.u64()?,
                output: reader.u64()?,
                ..Usage::default()
            },
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

    /// Returns the approximate memory use in bytes: the texts and the structures that hold them.
    pub fn bytes(&self) -> usize {
        const AROUND: usize = size_of::<Entry>();
        let names = self.tenant.len() + self.provider.len() + self.model.len() + self.prompt.len();
        AROUND + names + self.answer.bytes()
    }

    /// Reads the first fields of an encoded entry.
    pub fn peek(bytes: &[u8]) -> Option<Peek<'_>> {
        let mut reader = Reader::new(bytes);
        (reader.u8()? == VERSION).then_some(())?;
        let (key, created_ms, expires_ms) = (Key(*reader.array()?), reader.u64()?, reader.u64()?);
        // The usage, the cost, the policy and a flag.
        reader.raw(6 * 8 + 1)?;
        Some(Peek { key, created_ms, expires_ms, tenant: reader.text()? })
    }

    /// Returns the age in milliseconds, or `None` if the entry must not be used.
    ///
    /// An entry is usable before its expiry and while it is younger than `ttl_ms`, which the task may have shortened
    /// since. With `max_age_s` it must also be no older than that, or created at or after `asked_ms`, when the caller
    /// asked. An entry created more than 60 seconds in the future is rejected: the clock has jumped back.
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
            usage: Usage { input: 3, cached_input: 1, cache_write: 1, output: 4, ..Usage::default() },
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
        let Entry { key, created_ms, expires_ms, ref tenant, .. } = entry;
        assert_eq!(Entry::peek(&bytes), Some(Peek { key, created_ms, expires_ms, tenant }));
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
        // Two callers want a fresh answer: one asked before the entry was created, one after.
        assert_eq!(entry.age_ms(1_000_700, 60_000, Some(0), 1_000_000), Some(700));
        assert_eq!(entry.age_ms(1_000_700, 60_000, Some(0), 1_000_001), None);
        assert_eq!(entry.age_ms(1_060_000, 60_000, Some(0), 1_000_000), None);
    }
}
