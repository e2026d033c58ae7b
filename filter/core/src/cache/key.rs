//! The cache key: SHA-256 over every input that can change the answer, each variable-length field after its length.

use crate::cache::question::Sharing;
use crate::config::DataClass;
use crate::request::endpoint::Endpoint;
use crate::request::prompt::PromptName;
use crate::wire::bytes::{Sink, Writer};
use sha2::{Digest, Sha256};

/// A cache key. Only equal fields produce equal keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Key(pub [u8; 32]);

impl Key {
    /// Returns the key in hexadecimal, for a store whose keys are text.
    pub fn hex(&self) -> String {
        self.0.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

/// Must change when the fields below or the meaning of their bytes change, so that no old entry is read as a new one.
pub(super) const VERSION: &[u8] = b"pointsman.cache.v3";

/// The inputs of a key.
#[derive(Debug, Clone, Copy)]
pub struct Fields<'a> {
    /// The endpoint: the same bytes mean something else at another one.
    pub endpoint: Endpoint,
    /// The tenant's name, which is part of every key.
    pub tenant: &'a str,
    /// Who shares the answer within the tenant.
    pub sharing: Sharing<'a>,
    /// The task's name.
    pub task: &'a str,
    /// The data class of the request.
    pub data: DataClass,
    /// The provider's name.
    pub provider: &'a str,
    /// The model's name in the policy.
    pub model: &'a str,
    /// The prompt that the request names, whether or not the model receives that name.
    pub prompt: &'a PromptName<'a>,
    /// Whether the canonical form treats texts that are equal under NFC as equal.
    pub nfc: bool,
    /// The request as the model receives it, in canonical form: prompt, tools, formats, parameters, and the provider's
    /// id for the model.
    pub request: &'a [u8],
    /// The headers of the caller's dialect that the model receives.
    pub headers: &'a [u8],
    /// Revisions that an operator raises to discard answers: of all, of the tenant, of the task, of the prompt.
    pub revisions: [u64; 4],
}

impl Fields<'_> {
    /// Computes the key.
    pub fn key(&self) -> Key {
        let Self { endpoint, tenant, sharing, task, data, provider, model, prompt, nfc, request, headers, revisions } =
            self;
        let PromptName { id, version, schema } = prompt;
        let (scope, who): (&[u8], &[u8]) = match sharing {
            Sharing::Tenant => (b"tenant", b""),
            Sharing::User(user) => (b"user", user),
            Sharing::NamedUser(user) => (b"named_user", user),
            Sharing::Permissions(permissions) => (b"permission", permissions),
        };
        let (data, nfc) = ([*data as u8], [u8::from(*nfc)]);
        let mut hash = Writer::to(Hash(Sha256::new()));
        for field in [
            VERSION,
            endpoint.word().as_bytes(),
            tenant.as_bytes(),
            scope,
            who,
            task.as_bytes(),
            &data,
            provider.as_bytes(),
            model.as_bytes(),
            id.as_bytes(),
            version.as_bytes(),
            schema.as_bytes(),
            &nfc,
            request,
        ] {
            hash.bytes(field);
        }
        for revision in revisions {
            hash.u64(*revision);
        }
        // The dialect that had no headers when the version was set keeps its keys.
        if !headers.is_empty() {
            hash.bytes(headers);
        }
        Key(hash.finish().0.finalize().into())
    }
}

/// Hashes a record as it is written, without buffering it.
struct Hash(Sha256);

impl Sink for Hash {
    fn put(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::normal_form::{self, Reading};
    use crate::dialect::client::ClientDialect;
    use serde_json::{Map, Value, json};
    use std::borrow::Cow;
    use std::collections::HashSet;

    const fn prompt(id: &'static str, version: &'static str, schema: &'static str) -> PromptName<'static> {
        PromptName { id: Cow::Borrowed(id), version: Cow::Borrowed(version), schema: Cow::Borrowed(schema) }
    }

    const NO_PROMPT: PromptName = prompt("", "", "");

    const FIELDS: Fields = Fields {
        endpoint: Endpoint::Chat,
        tenant: "acme",
        sharing: Sharing::Tenant,
        task: "extract",
        data: DataClass::Internal,
        provider: "vllm",
        model: "small",
        prompt: &NO_PROMPT,
        nfc: false,
        headers: b"",
        request: b"{}",
        revisions: [0; 4],
    };

    fn key(body: &str) -> Key {
        let reading = Reading { max_depth: 32, nfc: false, delivery: ClientDialect::OpenAi.delivery_members() };
        let request = normal_form::request(body.as_bytes(), reading).unwrap();
        Fields { request: &request, ..FIELDS }.key()
    }

    #[test]
    fn every_field_changes_the_key_and_none_runs_into_the_next() {
        let user = |user| Fields { sharing: Sharing::User(user), ..FIELDS };
        let all = [
            FIELDS,
            Fields { endpoint: Endpoint::Models, ..FIELDS },
            Fields { tenant: "acm", task: "eextract", ..FIELDS },
            Fields { tenant: "acme2", ..FIELDS },
            user(b""),
            user(b"u"),
            user(b"u\0"),
            Fields { sharing: Sharing::NamedUser(b"u"), ..FIELDS },
            Fields { sharing: Sharing::Permissions(b"u"), ..FIELDS },
            Fields { task: "extrac", ..FIELDS },
            Fields { data: DataClass::Public, ..FIELDS },
            Fields { provider: "vll", model: "msmall", ..FIELDS },
            Fields { provider: "ollama", ..FIELDS },
            Fields { model: "big", ..FIELDS },
            Fields { prompt: &prompt("a", "", ""), ..FIELDS },
            Fields { prompt: &prompt("", "a", ""), ..FIELDS },
            Fields { prompt: &prompt("", "", "a"), ..FIELDS },
            Fields { prompt: &prompt("a", "b", "c"), ..FIELDS },
            Fields { prompt: &prompt("ab", "", "c"), ..FIELDS },
            Fields { nfc: true, ..FIELDS },
            Fields { request: b"{}{}", ..FIELDS },
            Fields { revisions: [1, 0, 0, 0], ..FIELDS },
            Fields { revisions: [0, 1, 0, 0], ..FIELDS },
            Fields { revisions: [0, 0, 1, 0], ..FIELDS },
            Fields { revisions: [0, 0, 0, 1], ..FIELDS },
        ];
        let keys: HashSet<Key> = all.iter().map(Fields::key).collect();
        assert_eq!(keys.len(), all.len());
    }

    /// Checks the vectors in `key/vectors.json`: groups of bodies with the same meaning, each with its expected key.
    #[test]
    fn the_golden_vectors_hold() {
        let groups: Vec<Value> = serde_json::from_str(include_str!("key/vectors.json")).unwrap();
        let mut seen = HashSet::new();
        for group in &groups {
            let bodies: Vec<&str> = group["bodies"].as_array().unwrap().iter().map(|b| b.as_str().unwrap()).collect();
            for body in &bodies {
                assert_eq!(key(body).hex(), group["key"], "{body}");
            }
            assert!(seen.insert(key(bodies[0])), "{group}");
        }
        assert!(groups.len() >= 20);
    }

    /// Returns a request with every field of OpenAI's "Create chat completion", and some fields that it does not
    /// define.
    fn everything() -> Value {
        serde_json::from_str(include_str!("key/everything.json")).unwrap()
    }

    /// Returns every document that differs from `value` in one place: a value of another type or size, a member
    /// removed, added or renamed, an element removed, duplicated or moved.
    fn changes(value: &Value) -> Vec<Value> {
        let mut all: Vec<Value> = [
            json!(null),
            json!(true),
            json!(false),
            json!(0),
            json!(1),
            json!(-1),
            json!(0.25),
            json!(""),
            json!("x"),
            json!("0"),
        ]
        .into_iter()
        .chain([json!([]), json!({})])
        .filter(|other| other != value)
        .collect();
        match value {
            Value::String(text) => {
                all.extend([
                    json!(format!("{text} ")),
                    json!(format!("{text}\u{301}")),
                    json!(text.to_uppercase() + "\0"),
                ]);
            }
            Value::Number(number) => all.push(json!(number.as_f64().unwrap() + 3.0)),
            Value::Array(list) => {
                for (i, element) in list.iter().enumerate() {
                    let with = |changed: Value| {
                        let mut list = list.clone();
                        list[i] = changed;
                        Value::Array(list)
                    };
                    all.extend(changes(element).into_iter().map(with));
                    let (mut less, mut twice) = (list.clone(), list.clone());
                    less.remove(i);
                    twice.insert(i, element.clone());
                    all.extend([Value::Array(less), Value::Array(twice)]);
                }
                if list.len() > 1 {
                    all.push(Value::Array(list.iter().rev().cloned().collect()));
                    all.push(json!([list]));
                }
            }
            Value::Object(map) => {
                for (name, member) in map {
                    let with = |changed: Value| {
                        let mut map = map.clone();
                        map.insert(name.clone(), changed);
                        Value::Object(map)
                    };
                    all.extend(changes(member).into_iter().map(with));
                    let mut less = map.clone();
                    less.remove(name);
                    let mut renamed = less.clone();
                    renamed.insert(format!("{name}_"), member.clone());
                    all.extend([Value::Object(less), Value::Object(renamed)]);
                }
                let mut more = map.clone();
                more.insert("unknown".to_owned(), json!(1));
                all.push(Value::Object(more));
            }
            Value::Null | Value::Bool(_) => {}
        }
        all
    }

    /// Writes the same document differently: members reversed, extra white space, escapes, other spellings of numbers.
    fn rewrite(value: &Value) -> String {
        match value {
            Value::Object(map) => {
                let members: Vec<_> =
                    map.iter().rev().map(|(k, v)| format!(" {}\t:\n{} ", escape(k), rewrite(v))).collect();
                format!("{{{}}}", members.join(","))
            }
            Value::Array(list) => format!("[ {} ]", list.iter().map(rewrite).collect::<Vec<_>>().join(" , ")),
            Value::String(text) => escape(text),
            Value::Number(number) => {
                let digits = number.to_string();
                match digits.contains('.') {
                    true => format!("{digits}00"),
                    false if digits == "0" => "-0.0E7".to_owned(),
                    false => format!("{digits}0.0e-1"),
                }
            }
            other => other.to_string(),
        }
    }

    fn escape(text: &str) -> String {
        let units: String = text.encode_utf16().map(|unit| format!("\\u{unit:04X}")).collect();
        format!("\"{units}\"")
    }

    #[test]
    fn any_change_of_one_field_changes_the_key_and_no_other_spelling_does() {
        let request = everything();
        let original = key(&request.to_string());
        assert_eq!(key(&rewrite(&request)), original);
        let mut documents: HashSet<String> = HashSet::new();
        let mut keys = HashSet::from([original]);
        for changed in changes(&request).into_iter().filter(Value::is_object) {
            // Deduplicated by serde_json's text, which distinguishes -0 from 0 and 1.0 from 1. `changes` makes no such
            // pair.
            let text = changed.to_string();
            // The key treats an empty `stream_options` as absent.
            let options = &changed["stream_options"];
            if changed == request || options.is_null() || *options == json!({}) || !documents.insert(text.clone()) {
                continue;
            }
            let changed_key = key(&text);
            assert!(keys.insert(changed_key), "{text}");
            assert_eq!(key(&rewrite(&changed)), changed_key, "{text}");
        }
        assert!(keys.len() > 1900, "{}", keys.len());
    }

    #[test]
    fn how_it_is_sent_does_not_change_the_key() {
        let original = key(&everything().to_string());
        for (name, value) in [("stream", json!(true)), ("stream", json!(false)), ("stream", Value::Null)] {
            let mut request = everything();
            request[name] = value;
            assert_eq!(key(&request.to_string()), original);
        }
        let mut request = everything();
        request["stream_options"]["include_usage"] = json!(true);
        assert_eq!(key(&request.to_string()), original);
        let mut without: Map<_, _> = everything().as_object().unwrap().clone();
        without.remove("stream_options");
        let bare = key(&Value::Object(without.clone()).to_string());
        without.insert("stream_options".to_owned(), json!({"include_usage": true}));
        assert_eq!(key(&Value::Object(without).to_string()), bare);
    }
}
