//! The script that Redis runs does to the number what the module does in shared data: both are asked the same, step by step.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

use pointsman_core::call::Answered;
use pointsman_core::load;
use pointsman_core::policy::{ModelId, Policy};
use pointsman_core::quota::calendar::Zone;
use pointsman_core::quota::estimate::Correction;
use pointsman_core::quota::ledger::{self, Ask, Charge, Reservation, Store};
use pointsman_core::quota::limits::{Limits, ScopeKey};
use pointsman_core::quota::remote::{self, Run};
use pointsman_core::quota::window::{Amount, Moment};
use serde_json::json;
use std::collections::HashMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// A Redis of the test's own.
struct Redis {
    server: Child,
    stream: BufReader<TcpStream>,
}

impl Redis {
    fn start() -> Self {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let arguments = ["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"];
        let started = Command::new("redis-server").args(arguments).stdout(Stdio::null()).spawn();
        let mut server = started.expect("redis-server is installed: run `make test`");
        let connect = |_| {
            std::thread::sleep(Duration::from_millis(10));
            TcpStream::connect(("127.0.0.1", port)).ok()
        };
        match (0..500).find_map(connect) {
            Some(stream) => Self { server, stream: BufReader::new(stream) },
            None => {
                let _ = server.kill();
                let _ = server.wait();
                panic!("redis-server does not listen");
            }
        }
    }

    /// Runs the script; the answer as it comes, which is what webdis passes on.
    fn run(&mut self, run: &Run) -> Vec<u8> {
        let count = run.keys().len().to_string();
        let mut all = vec!["EVAL", remote::SCRIPT, &count];
        all.extend(run.keys().iter().chain(run.arguments()).map(String::as_str));
        self.command(&all)
    }

    fn command(&mut self, arguments: &[&str]) -> Vec<u8> {
        let mut text = format!("*{}\r\n", arguments.len());
        arguments.iter().for_each(|argument| text.push_str(&format!("${}\r\n{argument}\r\n", argument.len())));
        self.stream.get_mut().write_all(text.as_bytes()).unwrap();
        let mut answer = Vec::new();
        self.read(&mut answer);
        answer
    }

    fn read(&mut self, answer: &mut Vec<u8>) {
        let mut line = Vec::new();
        self.stream.read_until(b'\n', &mut line).unwrap();
        answer.extend_from_slice(&line);
        let number = || std::str::from_utf8(&line[1..]).unwrap().trim().parse::<usize>().unwrap();
        match line[0] {
            b'*' => (0..number()).for_each(|_| self.read(answer)),
            b'$' => {
                let mut bytes = vec![0; number() + 2];
                self.stream.read_exact(&mut bytes).unwrap();
                answer.extend(bytes);
            }
            _ => {}
        }
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

#[derive(Default)]
struct Local(HashMap<String, Vec<u8>>);

impl Store for Local {
    fn update(&mut self, key: &str, change: &mut dyn FnMut(&[u8]) -> Option<Vec<u8>>) -> bool {
        let Some(after) = change(self.0.get(key).map_or(&[], Vec::as_slice)) else { return false };
        self.0.insert(key.to_owned(), after);
        true
    }
    fn read(&mut self, key: &str) -> Vec<u8> {
        self.0.get(key).cloned().unwrap_or_default()
    }
    fn now_ms(&mut self) -> u64 {
        0
    }
    fn correction(&mut self, _: &str) -> Correction {
        Correction::default()
    }
    fn correct(&mut self, _: &str, _: Correction) {}
    fn unique(&mut self) -> u128 {
        0
    }
}

/// SplitMix64 (public domain, Vigna).
struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % n
    }
}

fn policy(tier: serde_json::Value) -> Policy {
    let mut document = json!({
        "providers": {"p": {"dialect": "openai", "data": "internal"}},
        "models": {
            "small": {"provider": "p", "model": "s", "tier": "local", "context": 1000, "max_output_tokens": 100},
            "big": {"provider": "p", "model": "b", "tier": "local", "context": 1000, "max_output_tokens": 100},
        },
        "quota": {"default_price": {"input": 1, "output": 1}, "users": 65536},
        "tiers": {"t": {"models": ["small", "big"]}},
        "tenants": {"a": {"tier": "t"}},
        "identity": {"source": "header", "tenant": "x"},
    });
    for (name, value) in tier.as_object().unwrap() {
        document["tiers"]["t"][name] = value.clone();
    }
    load::from_value(&document).unwrap().1
}

/// What is the same in both stores: all but how the reservation is kept.
fn plain(verdict: &Result<ledger::Grant, ledger::Refused>) -> String {
    match verdict {
        Ok(grant) => {
            let mut standings: Vec<_> = grant.standings.iter().map(|standing| format!("{standing:?}")).collect();
            standings.sort();
            let ledger::Grant { full_models, crossed, shadowed, .. } = grant;
            format!("granted {full_models:?} {standings:#?} {crossed:?} {shadowed:?}")
        }
        Err(refused) => format!("{refused:?}"),
    }
}

/// A request that is under way: its reservation in either store, and what each model could take.
type Open = (Reservation, Reservation, Vec<(ModelId, Amount)>);

const START: u64 = 1_769_731_200_000;

fn agree(policy: &Policy, seed: u64, redis: &mut Redis) -> (u32, u32) {
    let limits: &Limits = policy.quota_of(policy.find_tenant("a").unwrap()).unwrap();
    let models: [ModelId; 2] = ["small", "big"].map(|name| policy.find_model(name).unwrap());
    let tenant = format!("t{seed}");
    let zone = Zone::new("-03:30", &[]).unwrap();
    let (mut local, mut random, mut now) = (Local::default(), Random(seed), START);
    let mut open: Vec<Open> = Vec::new();
    let (mut granted, mut refused) = (0, 0);
    for step in 0..300 {
        let moment = Moment::new(&zone, now);
        let user: ScopeKey = [random.below(3) as u8; 32];
        let tokens = 1 + random.below(300);
        let plan = [(models[0], Amount::new(tokens, 0)), (models[1], Amount::new(tokens, tokens * 3))];
        let lease_ms = (random.below(10) > 0).then_some(600_000 + random.below(3) * 1_000_000);
        let ask = Ask { tenant: &tenant, user: &user, models: &plan, lease_ms, heed_share: random.below(2) == 0 };
        match random.below(10) {
            0..5 => {
                let id = format!("{seed}-{step}");
                let run = remote::reserve(limits, &id, &ask, &moment);
                let body = redis.run(&run);
                // Asked twice, done once.
                if step % 3 == 0 {
                    redis.run(&run);
                }
                let answered = Answered { status: 200, body: &body };
                let (theirs, _) = remote::reserved(limits, &id, &ask, &moment, &answered)
                    .unwrap_or_else(|why| panic!("{why:?}: {}", String::from_utf8_lossy(&body)));
                let ours = ledger::reserve(&mut local, limits, 65_536, &ask, &moment);
                assert_eq!(plain(&ours), plain(&theirs), "seed {seed}, step {step}");
                match (ours, theirs) {
                    (Ok(ours), Ok(theirs)) => {
                        granted += 1;
                        if lease_ms.is_some() {
                            // What was left out cannot answer.
                            let may = plan.into_iter().filter(|(id, _)| !ours.full_models.contains(id));
                            open.push((ours.reservation, theirs.reservation, may.collect()));
                        }
                    }
                    _ => refused += 1,
                }
            }
            5..8 if !open.is_empty() => {
                let (ours, theirs, plan) = open.swap_remove(random.below(open.len() as u64) as usize);
                let (model, most) = plan[random.below(plan.len() as u64) as usize];
                let charge = (random.below(4) > 0).then_some(Charge { model, used: most });
                let held = theirs.held().unwrap();
                let run = remote::settle(limits, &tenant, held, charge, &moment);
                let body = redis.run(&run);
                let answered = Answered { status: 200, body: &body };
                let theirs = remote::settled(limits, &tenant, held, &moment, &answered).unwrap();
                let again = redis.run(&run);
                assert!(again.windows(4).any(|window| window == b"\r\n0\r" || window == b":0\r\n"), "{again:?}");
                let ours = ledger::settle(&mut local, limits, 65_536, &ours, charge, &moment);
                if ours != ledger::Settled::default() {
                    assert_eq!(ours.crossed, theirs.crossed, "seed {seed}, step {step}");
                }
            }
            8 => now += random.below(20_000),
            _ => match random.below(4) {
                0 => now += random.below(50_000_000),
                // A user's reservation that is given back leaves the module's clock for that user where it was asked, and
                // the script's where it last reserved: after a jump back one of them stands still for longer.
                1 if limits.user.is_none() => now -= random.below(100_000),
                _ => {}
            },
        }
        let moment = Moment::new(&zone, now);
        let ask = Ask { tenant: &tenant, user: &user, models: &[], lease_ms: None, heed_share: false };
        let body = redis.run(&remote::look(limits, &ask, &moment));
        let theirs = remote::looked(limits, &ask, &moment, &Answered { status: 200, body: &body }).unwrap();
        let sorted = |all: Vec<_>| {
            let mut all: Vec<_> = all.into_iter().map(|standing| format!("{standing:?}")).collect();
            all.sort();
            all
        };
        let ours = ledger::look(&mut local, limits, 65_536, &ask, &moment);
        assert_eq!(sorted(ours), sorted(theirs), "seed {seed}, step {step}");
    }
    (granted, refused)
}

#[test]
#[ignore = "needs redis-server: make test"]
fn the_script_and_the_module_agree_on_every_step() {
    let mut redis = Redis::start();
    let full = json!({
        "requests_per_minute": 30, "tokens_per_minute": 2000, "burst": "45s", "tokens_per_day": 9000,
        "budget_usd_per_day": 0.006, "budget_usd_per_month": 0.03, "concurrent": 9, "alert_at": [0.2, 0.5, 0.9],
        "degrade_at": 0.7, "on_exhausted": {"degrade": "small"},
        "per_user": {"tokens_per_day": 4000, "requests_per_minute": 12, "concurrent": 4},
        "per_model": {"big": {"budget_usd_per_day": 0.004}, "small": {"tokens_per_day": 5000}}
    });
    let mut shadow = full.clone();
    shadow["shadow"] = true.into();
    let few = json!({"tokens_per_day": 500, "concurrent": 3});
    let users = json!({"per_user": {"budget_usd_per_month": 0.01, "concurrent": 2}});
    let models = json!({"per_model": {"big": {"requests_per_minute": 5}, "small": {"concurrent": 2}}});
    let (mut granted, mut refused) = (0, 0);
    for (i, tier) in [full, shadow, few, users, models].into_iter().enumerate() {
        let policy = policy(tier);
        for seed in 0..8 {
            let (more_granted, more_refused) = agree(&policy, i as u64 * 1000 + seed, &mut redis);
            (granted, refused) = (granted + more_granted, refused + more_refused);
        }
    }
    assert!(granted > 1500 && refused > 500, "{granted} granted, {refused} refused");
}
