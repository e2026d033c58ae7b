//! Responses of Redis, or of whatever answers in its place: any bytes are an answer of ours or a failure.

use super::host;
use super::policy::NOW;
use pointsman_core::cache::key::Key;
use pointsman_core::cache::redis as cache;
use pointsman_core::dialect::client::ClientDialect;
use pointsman_core::policy::Policy;
use pointsman_core::quota::redis::script;
use pointsman_core::quota::redis::settlement::Unsettled;
use pointsman_core::quota::report;
use pointsman_core::quota::reservation::{Ask, RemoteReservation};
use pointsman_core::quota::window::Amount;
use pointsman_core::wire::http_call::HttpCallResult;
use pointsman_core::wire::redis::{self, Failure, Value};
use std::sync::LazyLock;

static POLICY: LazyLock<Policy> = LazyLock::new(|| host::policy("redis"));

pub fn redis(body: &[u8]) {
    let answered = HttpCallResult { status: 200, body };
    if let Ok(value) = redis::answer(&answered) {
        let mut again = Vec::new();
        write(&value, &mut again);
        assert_eq!(redis::answer(&HttpCallResult { status: 200, body: &again }), Ok(value));
    }
    let away = HttpCallResult { status: 503, body };
    assert_eq!(redis::answer(&away), Err(Failure::Unreachable));
    let _ = (cache::entry(&answered, &Key([7; 32]), "t"), script::is_unknown(&answered));

    let tenant = POLICY.find_tenant("t").unwrap();
    let (limits, zone) = (POLICY.quota_of(tenant).unwrap(), &POLICY.counting.zone);
    let model = POLICY.find_model("m").unwrap();
    let models = [(model, Amount::new(10, 20))];
    let user = [1; 32];
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
        if let Ok((Ok(grant), _)) = script::reserved(limits, zone, "1", &ask, &answered) {
            assert!(grant.full_models.iter().all(|id| *id == model));
            let _ =
                (ClientDialect::OpenAi.rate_limits(&grant.statuses, 0), report::usage::alert_header(&grant.crossed));
        }
        if let Ok((statuses, now_ms)) = script::looked(limits, zone, "1", &ask, &answered) {
            let _ = report::usage::usage(&POLICY, "t", &statuses, now_ms);
        }
    }
    let _ = script::settled(limits, zone, "t", &HELD, &answered);
    let _ = Unsettled::look(&POLICY, tenant, NOW).answered(&POLICY, &answered);
}

/// What Redis would hold for a request.
static HELD: LazyLock<RemoteReservation> = LazyLock::new(|| {
    let tenant = POLICY.find_tenant("t").unwrap();
    let models = [(POLICY.find_model("m").unwrap(), Amount::new(10, 20))];
    let ask = Ask {
        tenant: "t",
        user: &[1; 32],
        models: &models,
        lease_ms: Some(60_000),
        adds_up: false,
        stop_at_degrade_threshold: true,
        is_rough: false,
    };
    let body = include_bytes!("../../../../integration/fuzz/corpus/redis/reserved");
    let answered = HttpCallResult { status: 200, body };
    let answer = script::reserved(POLICY.quota_of(tenant).unwrap(), &POLICY.counting.zone, "1", &ask, &answered);
    let (Ok(grant), _) = answer.expect("is an answer of Redis") else { panic!("it is let through") };
    grant.reservation.held().expect("is held").clone()
});

/// Writes a value as Redis does (RESP2).
fn write(value: &Value, out: &mut Vec<u8>) {
    let number = |kind: char, number: i64| format!("{kind}{number}\r\n").into_bytes();
    match value {
        Value::Status(text) => out.extend([b"+", *text, b"\r\n"].concat()),
        Value::Integer(integer) => out.extend(number(':', *integer)),
        Value::Bytes(bytes) => out.extend([&number('$', bytes.len() as i64), *bytes, b"\r\n"].concat()),
        Value::Nil => out.extend(number('$', -1)),
        Value::Array(all) => {
            out.extend(number('*', all.len() as i64));
            all.iter().for_each(|value| write(value, out));
        }
    }
}

/// Returns whether a response of the corpus is what its name says; `None` if it has none of our formats.
pub fn is_read(name: &str, body: &[u8]) -> Option<bool> {
    let answered = HttpCallResult { status: 200, body };
    let tenant = POLICY.find_tenant("t").unwrap();
    let (limits, zone) = (POLICY.quota_of(tenant).unwrap(), &POLICY.counting.zone);
    let models = [(POLICY.find_model("m").unwrap(), Amount::new(10, 20))];
    let ask = Ask {
        tenant: "t",
        user: &[1; 32],
        models: &models,
        lease_ms: Some(60_000),
        adds_up: false,
        stop_at_degrade_threshold: true,
        is_rough: false,
    };
    let reserved = || script::reserved(limits, zone, "1", &ask, &answered);
    Some(match name {
        "reserved" => matches!(reserved(), Ok((Ok(_), _))),
        "refused" | "full_model" => matches!(reserved(), Ok((Err(_), _))),
        "settled" => script::settled(limits, zone, "t", &HELD, &answered).is_ok(),
        "looked" => script::looked(limits, zone, "1", &ask, &answered).is_ok(),
        "looked_for_gauges" => Unsettled::look(&POLICY, tenant, NOW).answered(&POLICY, &answered).is_ok(),
        "entry" => cache::entry(&answered, &Key([7; 32]), "t").is_ok(),
        _ => return None,
    })
}
