//! Many random requests of 50 tenants with users and permission sets: no answer crosses a boundary.
//!
//! The provider does not learn who asks: it receives nothing that names a caller. But it sees the id of the request
//! that reached it and returns that id as the answer, and each caller learns the id of its own request. So every answer
//! shows for whom it was made.

use crate::cache::{POLICY, Store, start};
use pointsman_integration::environment::load;
use pointsman_integration::raw::Connection;
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashMap};

const TENANTS: u64 = 50;
const USERS: u64 = 8;
const PERMISSIONS: u64 = 5;
const QUESTIONS: u64 = 12;
const CONNECTIONS: u64 = 48;

/// SplitMix64, which makes the same requests in every run.
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % end
    }
}

/// Who asked what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Asked {
    tenant: u64,
    user: u64,
    permissions: u64,
    task: &'static str,
    question: u64,
}

impl Asked {
    fn random(random: &mut Random) -> Self {
        let task = ["whole-tenant", "own-user", "own-permissions"][random.below(3) as usize];
        Self {
            tenant: random.below(TENANTS),
            user: random.below(USERS),
            permissions: random.below(PERMISSIONS),
            task,
            question: random.below(QUESTIONS),
        }
    }

    /// Returns whether this request may get the answer to `other`.
    fn may_share(&self, other: &Self) -> bool {
        let same = (self.tenant, self.task, self.question) == (other.tenant, other.task, other.question);
        same && match self.task {
            "own-user" => self.user == other.user,
            "own-permissions" => self.permissions == other.permissions,
            _ => true,
        }
    }

    /// Returns the request in one of many spellings, with headers that try to pass it off as another caller's.
    fn request(&self, random: &mut Random, streams: bool) -> String {
        let Self { tenant, user, permissions, task, question } = self;
        let (other_tenant, other_user) = (random.below(TENANTS), random.below(USERS));
        let content = ["question", "quest\\u0069on", "\\u0071uestion"][random.below(3) as usize];
        let message = match random.below(2) {
            0 => format!(r#"{{"role":"user","content":"{content} {question}"}}"#),
            _ => format!(r#"{{ "content" : "{content} {question}" , "role":"user" }}"#),
        };
        let zero = ["0", "0.0", "-0", "0e3"][random.below(4) as usize];
        let mut members = vec![
            format!(r#""model":"{task}""#),
            format!(r#""messages":[{message}]"#),
            format!(r#""temperature":{zero}"#),
        ];
        if streams {
            members.push(r#""stream":true"#.to_owned());
        }
        let first = random.below(members.len() as u64) as usize;
        members.rotate_left(first);
        let body = format!("{{{}}}", members.join([",", " , ", ",\n"][random.below(3) as usize]));
        let spoofed = match random.below(6) {
            0 => format!("x-pointsman-tenant: tenant-{other_tenant}\r\nx-tenant: tenant-{other_tenant}\r\n"),
            1 => format!("x-pointsman-user: user-{other_user}\r\nx-jwt_sub: user-{other_user}\r\n"),
            2 => format!("authorization: Bearer sk-{other_tenant}\r\ncookie: tenant=tenant-{other_tenant}\r\n"),
            3 => "x-pointsman-cache: hit\r\nx-request-id: 00000000-0000-4000-8000-000000000000\r\n".to_owned(),
            4 => "cache-control: max-age=100000\r\nage: 0\r\n".to_owned(),
            _ => String::new(),
        };
        format!(
            "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nx-jwt-tenant: tenant-{tenant}\r\n\
             x-jwt-sub: user-{user}\r\n\
             x-jwt-scope: set-{permissions}\r\n{spoofed}content-length: {}\r\n\r\n{body}",
            body.len()
        )
    }
}

/// One answer.
struct Answered {
    asked: Asked,
    cache: String,
    /// The id of the caller's own request.
    own_id: String,
    /// The id of the request for which the answer was made.
    made_for: String,
}

fn read(asked: Asked, response: &pointsman_integration::raw::RawResponse, streams: bool) -> Answered {
    assert_eq!(response.status, 200, "{asked:?}: {}", response.text());
    let text = response.text();
    let content = if streams {
        assert!(text.ends_with("data: [DONE]\n\n"), "{text}");
        let chunks =
            text.split("\n\n").filter_map(|event| serde_json::from_str::<Value>(event.strip_prefix("data: ")?).ok());
        chunks.filter_map(|c| c.pointer("/choices/0/delta/content")?.as_str().map(str::to_owned)).collect::<String>()
    } else {
        let whole: Value = serde_json::from_str(&text).unwrap();
        whole.pointer("/choices/0/message/content").and_then(Value::as_str).unwrap().to_owned()
    };
    let echo: Value = serde_json::from_str(&content).unwrap_or_else(|error| panic!("{error}: {content}"));
    let headers = echo["headers"].to_string();
    let after = headers.split("\"x-request-id\"").nth(1).unwrap_or_else(|| panic!("no id in {headers}"));
    let made_for = after.split('"').nth(1).unwrap_or_default().to_owned();
    assert!(!headers.contains("tenant-") && !headers.contains("user-canary"), "{headers}");
    let header = |name: &str| response.header(name).unwrap_or_default().to_owned();
    Answered { asked, cache: header("x-pointsman-cache"), own_id: header("x-request-id"), made_for }
}

#[test]
#[ignore = "needs a real Envoy: make test"]
fn no_answer_crosses_a_tenant_user_or_permission_boundary() {
    replay(Store::Local, load(16_000, 100_000));
}

#[test]
#[ignore = "needs a real Envoy: make test"]
fn nor_does_one_that_is_kept_in_redis() {
    replay(Store::Redis, load(6_000, 20_000));
}

/// Sends this many random requests and checks for whom each answer was made.
fn replay(store: Store, requests: u64) {
    let tenants: String = (0..TENANTS).map(|n| format!("  tenant-{n}: {{tier: pro}}\n")).collect();
    let (head, _) = POLICY.split_once("tenants:\n").unwrap();
    let identity = "identity: {source: header, tenant: x-jwt-tenant, user: x-jwt-sub, permissions: x-jwt-scope}";
    let tasks = "  whole-tenant: {primary: small, cache: {ttl: 1h}}\n  own-user: {primary: small, cache: {ttl: 1h, \
        scope: user}}\n  \
                 own-permissions: {primary: small, cache: {ttl: 1h, scope: permission}}\n  # permission scope\n";
    let policy = head.replace("identity: {source: api_key}", identity).replace("  # permission scope\n", tasks);
    let gateway = start(&format!("{policy}tenants:\n{tenants}"), store);
    gateway.simulator.add_rule(&json!({"when": {"body_contains": "uest"}, "respond": {"echo": "user"}}));
    gateway.simulator.add_rule(&json!({"when": {"body_contains": "\\u"}, "respond": {"echo": "user"}}));

    let address = gateway.address;
    let all: Vec<Answered> = std::thread::scope(|scope| {
        let ask = |number: u64| {
            move || {
                let mut random = Random(number);
                let mut connection = Connection::to(address);
                let one = |_| {
                    let asked = Asked::random(&mut random);
                    let streams = random.below(4) == 0;
                    let response = connection.send(asked.request(&mut random, streams)).response();
                    read(asked, &response, streams)
                };
                (0..requests / CONNECTIONS + 1).map(one).collect::<Vec<_>>()
            }
        };
        let threads: Vec<_> = (0..CONNECTIONS).map(|number| scope.spawn(ask(number))).collect();
        threads.into_iter().flat_map(|thread| thread.join().expect("ends well")).collect()
    });
    assert!(all.len() as u64 >= requests);
    let by_id: HashMap<&str, &Asked> = all.iter().map(|answer| (answer.own_id.as_str(), &answer.asked)).collect();
    assert_eq!(by_id.len(), all.len(), "every request has an id of its own, whatever the caller sent");
    let mut counts: BTreeMap<(&str, &str), u32> = BTreeMap::new();
    for answer in &all {
        let made_for = by_id.get(answer.made_for.as_str()).unwrap_or_else(|| panic!("{:?}", answer.made_for));
        assert!(answer.asked.may_share(made_for), "{:?} got the answer of {made_for:?}", answer.asked);
        assert_eq!(answer.cache == "miss", answer.own_id == answer.made_for, "{:?} {}", answer.asked, answer.cache);
        *counts.entry((answer.asked.task, answer.cache.as_str())).or_default() += 1;
    }
    println!("{counts:?}");
    for task in ["whole-tenant", "own-user", "own-permissions"] {
        // With few requests, many ask a question for the first time: users alone have 4,800 questions.
        let least = match store {
            Store::Local if requests > 50_000 => requests / 5,
            Store::Local => requests / 10,
            Store::Redis => requests / 20,
        };
        assert!(counts.get(&(task, "hit")).is_some_and(|hits| u64::from(*hits) > least), "{counts:?}");
    }
    assert_eq!(counts.keys().filter(|(_, cache)| *cache != "hit" && *cache != "miss").count(), 0, "{counts:?}");
    let bytes = crate::metrics::value(&gateway.metrics(), "llm_cache_bytes", &[]);
    assert!(bytes.is_some_and(|bytes| bytes > 0 && bytes <= 16_777_216), "{bytes:?}");
}
