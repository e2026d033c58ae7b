//! The rules that tests set: which requests they apply to, and how often.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use memchr::memmem;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::behavior::Behavior;

/// The rules, in the order they were added.
#[derive(Debug, Default)]
pub struct Rules {
    any: AtomicBool,
    list: Mutex<Vec<Rule>>,
}

#[derive(Debug)]
struct Rule {
    written: Value,
    when: When,
    left: Option<u64>,
    hits: u64,
    respond: Arc<Behavior>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    #[serde(default)]
    when: When,
    #[serde(default)]
    times: Option<u64>,
    respond: Behavior,
}

/// The conditions on a request. A condition that is left out always holds.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct When {
    path_suffix: Option<String>,
    model: Option<String>,
    body_contains: Option<String>,
    listener: Option<usize>,
    stream: Option<bool>,
}

/// The properties of a request that rules examine.
#[derive(Debug, Clone, Copy)]
pub struct Facts<'a> {
    /// Whether the request is a GET or HEAD. Only rules with a `path_suffix` match such a request, so that a health
    /// check does not use up a rule meant for a completion.
    pub looks: bool,
    /// The path, without the query.
    pub path: &'a str,
    /// The model that it names.
    pub model: &'a str,
    /// The body.
    pub body: &'a [u8],
    /// The listener on which it arrived.
    pub listener: usize,
    /// Whether it asks for a stream.
    pub stream: bool,
}

impl Rules {
    /// Adds one rule or an array of rules, all or none. Returns how many, or what is wrong.
    pub fn add(&self, body: &[u8]) -> Result<usize, String> {
        let document: Value = serde_json::from_slice(body).map_err(|error| format!("not JSON: {error}"))?;
        let documents = match document {
            Value::Array(documents) => documents,
            one => vec![one],
        };
        let rules = documents.into_iter().enumerate().map(|(index, written)| {
            let rule: Written =
                serde_json::from_str(&written.to_string()).map_err(|error| format!("rule {index}: {error}"))?;
            let Written { when, times, respond } = rule;
            Ok(Rule { written, when, left: times, hits: 0, respond: Arc::new(respond) })
        });
        let rules: Vec<Rule> = rules.collect::<Result<_, String>>()?;
        let added = rules.len();
        self.locked().extend(rules);
        self.any.store(true, Ordering::Release);
        Ok(added)
    }

    /// Removes all rules. Returns how many there were.
    pub fn clear(&self) -> usize {
        let mut list = self.locked();
        self.any.store(false, Ordering::Release);
        std::mem::take(&mut *list).len()
    }

    /// Returns the rules with their hit counts.
    pub fn list(&self) -> Value {
        self.locked().iter().map(|rule| json!({"rule": rule.written, "hits": rule.hits, "left": rule.left})).collect()
    }

    /// Returns the behavior of the first matching rule that has times left, and uses one of them.
    pub fn take(&self, facts: Facts<'_>) -> Option<Arc<Behavior>> {
        if !self.any.load(Ordering::Acquire) {
            return None;
        }
        let mut list = self.locked();
        let rule = list.iter_mut().find(|rule| rule.left != Some(0) && rule.when.holds(facts))?;
        rule.left = rule.left.map(|left| left - 1);
        rule.hits += 1;
        Some(Arc::clone(&rule.respond))
    }

    fn locked(&self) -> MutexGuard<'_, Vec<Rule>> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl When {
    fn holds(&self, facts: Facts<'_>) -> bool {
        let Self { path_suffix, model, body_contains, listener, stream } = self;
        path_suffix.as_ref().map_or(!facts.looks, |suffix| facts.path.ends_with(suffix.as_str()))
            && model.as_ref().is_none_or(|model| model == facts.model)
            && body_contains.as_ref().is_none_or(|text| memmem::find(facts.body, text.as_bytes()).is_some())
            && listener.is_none_or(|listener| listener == facts.listener)
            && stream.is_none_or(|stream| stream == facts.stream)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FACTS: Facts<'_> =
        Facts { looks: false, path: "/v1/chat/completions", model: "m", body: b"hello", listener: 1, stream: true };

    fn holds(when: &str, facts: Facts<'_>) -> bool {
        serde_json::from_str::<When>(when).unwrap().holds(facts)
    }

    #[test]
    fn every_condition_can_hold_and_fail() {
        for (yes, no) in [
            (r#"{"path_suffix":"/completions"}"#, r#"{"path_suffix":"/messages"}"#),
            (r#"{"model":"m"}"#, r#"{"model":"m2"}"#),
            (r#"{"body_contains":"ell"}"#, r#"{"body_contains":"elf"}"#),
            (r#"{"listener":1}"#, r#"{"listener":0}"#),
            (r#"{"stream":true}"#, r#"{"stream":false}"#),
        ] {
            assert!(holds(yes, FACTS), "{yes}");
            assert!(!holds(no, FACTS), "{no}");
        }
    }

    #[test]
    fn a_look_needs_a_path() {
        let look = Facts { looks: true, path: "/v1/models", ..FACTS };
        assert!(!holds("{}", look));
        assert!(holds(r#"{"path_suffix":"/models"}"#, look));
    }

    #[test]
    fn times_run_out_in_order() {
        let rules = Rules::default();
        rules.add(br#"[{"times":1,"respond":{"content":"a"}},{"respond":{"content":"b"}}]"#).unwrap();
        let said: Vec<_> = (0..3).map(|_| rules.take(FACTS).unwrap().content.clone().unwrap()).collect();
        assert_eq!(said, ["a", "b", "b"]);
        assert_eq!(rules.list()[1]["hits"], 2);
        assert_eq!(rules.clear(), 2);
        assert!(rules.take(FACTS).is_none());
    }

    #[test]
    fn a_bad_rule_adds_none() {
        let rules = Rules::default();
        let error = rules.add(br#"[{"respond":{}},{"respond":{"stauts":1}}]"#).unwrap_err();
        assert!(error.starts_with("rule 1: unknown field `stauts`"), "{error}");
        assert!(rules.add(b"{}").unwrap_err().contains("missing field `respond`"));
        assert!(rules.take(FACTS).is_none());
    }
}
