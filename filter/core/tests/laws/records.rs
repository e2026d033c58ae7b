//! The records that workers and stages share: a record that is damaged, or from another version, decodes to some record
//! of its kind or to none. A record that decodes encodes to the same bytes.

use super::host::{self, Host};
use super::policy::NOW;
use pointsman_core::cache::coalesce::{self, Coalescer, Join, Outcome};
use pointsman_core::cache::key::Key;
use pointsman_core::cache::local::key_index::SharedKeyIndex;
use pointsman_core::cache::local::key_memo::KeyMemo;
use pointsman_core::cache::local::table::Table;
use pointsman_core::cache::question::{Question, Sharing};
use pointsman_core::config::DataClass;
use pointsman_core::dialect::client::ClientDialect;
use pointsman_core::policy::Policy;
use pointsman_core::quota::local::record;
use pointsman_core::quota::local::user_record::UserRecord;
use pointsman_core::quota::reservation::{Ask, Charge};
use pointsman_core::quota::users::UserTable;
use pointsman_core::quota::window::{Amount, Moment};
use pointsman_core::quota::{local, report};
use pointsman_core::request::endpoint::Endpoint;
use pointsman_core::routing::in_flight::{self, Full, Places};
use pointsman_core::routing::{begun, dispatch};
use pointsman_core::tokens::Correction;
use std::sync::LazyLock;

static POLICY: LazyLock<Policy> = LazyLock::new(|| host::policy("local"));

pub fn records(bytes: &[u8]) {
    stages(bytes);
    requests_in_flight(bytes);
    corrections(bytes);
    quotas(bytes);
    cache(bytes);
}

fn stages(bytes: &[u8]) {
    if let Some(dispatch) = dispatch::decode(bytes) {
        assert!(!dispatch.attempts.is_empty());
        for attempt in &dispatch.attempts {
            let chosen = dispatch.choose(attempt.provider, 1).expect("the plan has it");
            assert_eq!(chosen.1.provider, attempt.provider);
            let _ = (dispatch.is_of_first_model(attempt), dispatch.content_length(attempt));
        }
        let _ = (dispatch.canonical_head(), dispatch.needs_count("vllm"), dispatch.retries.follow(503));
    }
    let failed = dispatch::read_failed(bytes);
    let mut again = Vec::new();
    failed.iter().for_each(|(index, outcome)| dispatch::push_failed(&mut again, *index, *outcome));
    assert_eq!(dispatch::read_failed(&again), failed);
    let _ = dispatch::read_failed(bytes);
    let all = begun::read(bytes, bytes);
    let mut again = Vec::new();
    all.iter().for_each(|one| begun::push_begun(&mut again, one.index, one.number as usize, one.began_ms));
    assert!(bytes.starts_with(&again), "what was read is what was written");
    assert_eq!(begun::last_begun(bytes), all.last().map(|last| (last.index, last.number)));
}

fn requests_in_flight(bytes: &[u8]) {
    for (limit, share) in [(1, 1), (u32::MAX, u32::MAX), (u32::MAX, 1)] {
        let places = Places::new(limit, share, "t");
        let acquired = in_flight::acquire(bytes, NOW, places);
        assert_eq!(acquired.as_ref().err(), in_flight::check(bytes, NOW, places).as_ref().err());
        if let Ok((record, slot)) = acquired {
            let _ = in_flight::release(bytes, slot);
            let released = in_flight::release(&record, slot);
            assert_eq!(in_flight::check(&released, NOW, places), Ok(()), "what was taken is given back");
        }
    }
}

fn corrections(bytes: &[u8]) {
    let correction = Correction::decode(bytes);
    assert_eq!(Correction::decode(&correction.encode()), correction);
    for (estimate, counted) in [(100, 1), (100, u64::MAX), (u64::MAX, u64::MAX)] {
        let learned = correction.learn(estimate, counted);
        assert_eq!(Correction::decode(&learned.encode()), learned, "what is learned is within bounds");
        let _ = learned.apply(estimate);
    }
}

fn quotas(bytes: &[u8]) {
    let scopes = record::decode(bytes);
    assert_eq!(record::decode(&record::encode(&scopes)), scopes);
    let of_users = UserRecord::decode(bytes);
    assert_eq!(UserRecord::decode(&of_users.encode()), of_users);
    let tenant = POLICY.find_tenant("t").unwrap();
    let limits = POLICY.quota_of(tenant).unwrap();
    let moment = Moment::new(&POLICY.counting.zone, NOW);
    let model = POLICY.find_model("m").unwrap();
    let amount = Amount::new(10, 20);
    let models = [(model, amount)];
    // A user of the record, if there is one.
    let user = scopes.first().map_or([1; 32], |(key, _)| *key);
    for lease_ms in [Some(60_000), None] {
        let ask = Ask {
            tenant: "t",
            user: &user,
            models: &models,
            lease_ms,
            adds_up: false,
            stop_at_degrade_threshold: true,
            is_rough: false,
        };
        let mut host = Host(bytes);
        let _ = local::view(&mut host, limits, &ask, &moment);
        let statuses = local::look(&mut host, limits, &ask, &moment);
        let _ = ClientDialect::OpenAi.rate_limits(&statuses, 0);
        let _ = ClientDialect::Anthropic.rate_limits(&statuses, u64::MAX);
        let _ = report::usage::usage(&POLICY, "t", &statuses, NOW);
        let _ = report::gauges::look(&POLICY, tenant, &mut host);
        if let Ok(grant) = local::reserve(&mut host, limits, &ask, &moment) {
            let charge = Charge { model, used: amount };
            let _ = local::settle(&mut host, limits, &grant.reservation, &[charge], &moment);
            let _ = local::settle(&mut host, limits, &grant.reservation, &[], &moment);
        }
    }
}

fn cache(bytes: &[u8]) {
    // The key of the entry that the record may hold.
    let key = Key(bytes.get(1..33).map_or([0; 32], |key| key.try_into().unwrap()));
    let host = &mut Host(bytes);

    let table = Table { limit: 1 << 20, share: 1 << 19 };
    if let Some(entry) = table.lookup(host, &key, "t") {
        assert_eq!((entry.key, &*entry.tenant), (key, "t"));
    }
    let _ = (table.insert(host, &key, bytes, NOW), Table::occupancy(host).bytes());
    Table::count_bucket(host);

    let coalescer = Coalescer { wait_ms: 1000, max_waiting: 10 };
    match coalescer.join(host, &key, NOW) {
        Join::Follower(ticket) => {
            assert!(!coalesce::is_over(host, &key, NOW), "it waits for what is over");
            coalesce::withdraw(host, &key, ticket);
        }
        Join::Leader { ticket, .. } => {
            coalesce::finish(host, &key, ticket, Outcome::NotKept, NOW);
            coalesce::finish(host, &key, ticket, Outcome::Over, NOW);
        }
        Join::Alone => {}
    }
    let _ = coalesce::is_over(host, &key, NOW);

    UserTable::new(1024).agree(host, 1024);
    let mut memo = KeyMemo::default();
    memo.agree(host, 1);
    let question = Question {
        endpoint: Endpoint::Chat,
        tenant: POLICY.find_tenant("t").unwrap(),
        sharing: Sharing::Tenant,
        task: POLICY.find_task("k").unwrap(),
        data: DataClass::Internal,
        model: POLICY.find_model("m").unwrap(),
        max_output: None,
        headers: b"",
        body: b"{}",
    };
    let Err(Some(fingerprint)) = memo.key(&question) else { panic!("it is not known, and can be") };
    let index = SharedKeyIndex::within(1 << 20);
    assert_eq!(index.lookup(host, &fingerprint), None, "nobody could have known its fingerprint");
    let _ = index.insert(host, &fingerprint, &key);
}

/// Returns whether a record of the corpus is what its name says; `None` if any bytes would be.
pub fn is_read(name: &str, bytes: &[u8]) -> Option<bool> {
    let host = &mut Host(bytes);
    Some(match name {
        "dispatch" => dispatch::decode(bytes).is_some(),
        "served" => begun::last_begun(bytes) == Some((1, 2)),
        "failed" => !dispatch::read_failed(bytes).is_empty(),
        "in_flight" => in_flight::check(bytes, NOW, Places::new(5, 5, "t")) == Err(Full::Model),
        "correction" => Correction::decode(bytes) != Correction::default(),
        "quota" => record::decode(bytes).len() == 3,
        "flight" => !coalesce::is_over(host, &Key([7; 32]), NOW),
        "total" => Table::occupancy(host).entries == 5000,
        "entry" => Table { limit: 1 << 20, share: 1 << 19 }.lookup(host, &Key([7; 32]), "t").is_some(),
        _ => return None,
    })
}
