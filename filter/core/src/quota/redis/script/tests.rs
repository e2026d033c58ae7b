//! The Redis script and the local store give the same numbers: both run the same random steps.

use super::*;
use crate::policy::Policy;
use crate::quota::fixture::{Random, START, Shared, policy};
use crate::quota::local;
use crate::quota::window::Window;
use serde_json::json;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// A Redis server for one test. It listens only on a Unix socket.
struct Redis {
    server: Child,
    stream: BufReader<UnixStream>,
    socket: PathBuf,
}

/// Polls for up to a minute, until `found` returns a value.
fn poll<T>(mut found: impl FnMut() -> Option<T>) -> Option<T> {
    (0..6000).find_map(|_| {
        found().or_else(|| {
            std::thread::sleep(Duration::from_millis(10));
            None
        })
    })
}

impl Redis {
    fn start() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let socket = std::env::temp_dir().join(format!("pointsman-core-{}-{number}.sock", std::process::id()));
        let mut command = Command::new("redis-server");
        command.args(["--port", "0", "--save", "", "--appendonly", "no", "--unixsocket"]).arg(&socket);
        let started = command.stdout(Stdio::null()).spawn();
        let mut server = started.expect("redis-server is installed: run `make test`");
        match poll(|| UnixStream::connect(&socket).ok()) {
            Some(stream) => Self { server, stream: BufReader::new(stream), socket },
            None => {
                let _ = server.kill();
                let _ = server.wait();
                panic!("redis-server does not listen");
            }
        }
    }

    /// Runs the script and returns the raw answer, as webdis passes it on.
    fn run(&mut self, run: &Run) -> Vec<u8> {
        let count = run.keys().len().to_string();
        let mut all = vec!["EVAL", SCRIPT, &count];
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
        let _ = std::fs::remove_file(&self.socket);
    }
}

/// Formats what both stores must agree on: everything except how the reservation is stored.
fn plain(verdict: &Result<Grant, Refused>) -> String {
    match verdict {
        Ok(grant) => {
            let mut statuses: Vec<_> = grant.statuses.iter().map(|status| format!("{status:?}")).collect();
            statuses.sort();
            let Grant { full_models, crossed, shadowed, .. } = grant;
            format!("granted {full_models:?} {statuses:#?} {crossed:?} {shadowed:?}")
        }
        Err(refused) => format!("{refused:?}"),
    }
}

/// A running request: its reservation in each store, and the worst case of each model that may answer.
type Open = (Reservation, Reservation, Vec<(ModelId, Amount)>);

fn agree(policy: &Policy, seed: u64, redis: &mut Redis) -> [u32; 3] {
    let limits: &Limits = policy.quota_of(policy.find_tenant("acme").unwrap()).unwrap();
    let models: [ModelId; 2] = ["small", "big"].map(|name| policy.find_model(name).unwrap());
    let tenant = format!("t{seed}");
    let zone = Zone::new("-03:30", &[]).unwrap();
    let (mut local, mut random, mut now) = (Shared::default(), Random(seed), START);
    let mut open: Vec<Open> = Vec::new();
    let (mut granted, mut refused, mut told_on_refusal) = (0, 0, 0);
    for step in 0..300 {
        let moment = Moment::new(&zone, now);
        let user: ScopeKey = [random.below(3) as u8; 32];
        let tokens = 1 + random.below(300);
        let plan = [(models[0], Amount::new(tokens, 0)), (models[1], Amount::new(tokens, tokens * 3))];
        let lease_ms = (random.below(10) > 0).then_some(600_000 + random.below(3) * 1_000_000);
        let ask = Ask {
            tenant: &tenant,
            user: &user,
            models: &plan,
            lease_ms,
            adds_up: random.below(2) == 0,
            stop_at_degrade_threshold: random.below(2) == 0,
            is_rough: false,
        };
        match random.below(10) {
            0..5 => {
                let id = format!("{seed}-{step}");
                let run = reserve(limits, 1024, &id, &ask, &moment).at(now);
                let body = redis.run(&run);
                // Running it twice has the effect of running it once.
                if step % 3 == 0 {
                    redis.run(&run);
                }
                let answered = HttpCallResult { status: 200, body: &body };
                let (theirs, view) = reserved(limits, &zone, &id, &ask, &answered)
                    .unwrap_or_else(|why| panic!("{why:?}: {}", String::from_utf8_lossy(&body)));
                let ours = local::reserve(&mut local, limits, &ask, &moment);
                assert_eq!(plain(&ours), plain(&theirs), "seed {seed}, step {step}");
                match (ours, theirs) {
                    (Ok(ours), Ok(theirs)) => {
                        granted += 1;
                        if lease_ms.is_some() {
                            // A model that was left out cannot answer.
                            let may = plan.into_iter().filter(|(id, _)| !ours.full_models.contains(id));
                            open.push((ours.reservation, theirs.reservation, may.collect()));
                        }
                    }
                    _ => {
                        refused += 1;
                        let ours = local::view(&mut local, limits, &ask, &moment);
                        assert_eq!(ours.crossed, view.crossed, "seed {seed}, step {step}");
                        told_on_refusal += ours.crossed.len() as u32;
                    }
                }
            }
            5..8 if !open.is_empty() => {
                let (ours, theirs, plan) = open.swap_remove(random.below(open.len() as u64) as usize);
                // Nothing, one model, or also one whose attempt was abandoned before.
                let count = random.below(3) as usize;
                let at = random.below(plan.len() as u64) as usize;
                let charged = plan.iter().cycle().skip(at).take(count);
                let charge: Vec<_> = charged.map(|(model, used)| Charge { model: *model, used: *used }).collect();
                let held = theirs.held().unwrap();
                let run = settle(limits, (&tenant, 1024), held, &charge, &moment).at(now);
                let body = redis.run(&run);
                let answered = HttpCallResult { status: 200, body: &body };
                let theirs = settled(limits, &zone, &tenant, held, &answered).unwrap();
                let again = redis.run(&run);
                assert!(again.windows(4).any(|window| window == b"\r\n0\r" || window == b":0\r\n"), "{again:?}");
                let ours = local::settle(&mut local, limits, &ours, &charge, &moment);
                if ours != Settled::default() {
                    assert_eq!(ours.crossed, theirs.crossed, "seed {seed}, step {step}");
                }
            }
            8 => now += random.below(20_000),
            _ => match random.below(4) {
                0 => now += random.below(50_000_000),
                // When a user's reservation is cancelled, the local clock of that user stays at the time of the
                // request, and the script's clock at the user's last reservation. After a jump back, one of them stands
                // still longer.
                1 if limits.user(&user).is_none() => now -= random.below(100_000),
                _ => {}
            },
        }
        let moment = Moment::new(&zone, now);
        let ask = crate::quota::fixture::ask(&tenant, &user, &[], None);
        let body = redis.run(&look(limits, "l", &ask, &moment).at(now));
        let (theirs, _) = looked(limits, &zone, "l", &ask, &HttpCallResult { status: 200, body: &body }).unwrap();
        let sorted = |all: Vec<_>| {
            let mut all: Vec<_> = all.into_iter().map(|status| format!("{status:?}")).collect();
            all.sort();
            all
        };
        let ours = local::look(&mut local, limits, &ask, &moment);
        assert_eq!(sorted(ours), sorted(theirs), "seed {seed}, step {step}");
    }
    [granted, refused, told_on_refusal]
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
    let mut sums = [0; 3];
    for (i, tier) in [full, shadow, few, users, models].into_iter().enumerate() {
        let policy = policy(&tier, 65_536);
        for seed in 0..8 {
            let more = agree(&policy, i as u64 * 1000 + seed, &mut redis);
            sums.iter_mut().zip(more).for_each(|(sum, more)| *sum += more);
        }
    }
    let [granted, refused, told_on_refusal] = sums;
    assert!(granted > 1500 && refused > 500 && told_on_refusal > 5, "{sums:?}");
}

#[test]
fn the_scripts_sha1_is_current() {
    use sha1::Digest as _;
    let digest: String = sha1::Sha1::digest(SCRIPT).iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(SCRIPT_SHA1, digest, "put this into SCRIPT_SHA1");
}

/// One tenant with these limits, in a separate Redis.
struct Tenant {
    redis: Redis,
    policy: Policy,
    zone: Zone,
    asked: u32,
    users: u32,
    user: ScopeKey,
    evicted: u64,
}

const USER: ScopeKey = [1; 32];

impl Tenant {
    fn new(tier: serde_json::Value) -> Self {
        Self {
            redis: Redis::start(),
            policy: policy(&tier, 65_536),
            zone: Zone::fixed(0),
            asked: 0,
            users: 1024,
            user: USER,
            evicted: 0,
        }
    }

    fn limits(&self) -> &Limits {
        self.policy.quota_of(self.policy.find_tenant("acme").unwrap()).unwrap()
    }

    /// Reserves at an Envoy's time (`envoy`) and a Redis time (`now`; 0 for the real clock).
    fn reserve(
        &mut self,
        tokens: u64,
        lease_ms: u64,
        envoy: u64,
        now: u64,
    ) -> Result<RemoteReservation, Option<Refused>> {
        let models = [(self.policy.find_model("small").unwrap(), Amount::new(tokens, tokens))];
        let lease_ms = Some(lease_ms);
        let user = self.user;
        let ask = crate::quota::fixture::ask("acme", &user, &models, lease_ms);
        self.asked += 1;
        let id = self.asked.to_string();
        let run = super::reserve(self.limits(), self.users, &id, &ask, &Moment::new(&self.zone, envoy)).at(now);
        let body = self.redis.run(&run);
        match reserved(self.limits(), &self.zone, &id, &ask, &HttpCallResult { status: 200, body: &body }) {
            Ok((Ok(grant), _)) => {
                self.evicted += grant.evicted;
                Ok(grant.reservation.remote.unwrap())
            }
            Ok((Err(refused), _)) => Err(Some(refused)),
            Err(_) => Err(None),
        }
    }

    fn settle(&mut self, held: &RemoteReservation, tokens: u64, envoy: u64, now: u64) {
        let charge = Charge { model: self.policy.find_model("small").unwrap(), used: Amount::new(tokens, tokens) };
        let moment = Moment::new(&self.zone, envoy);
        let body =
            self.redis.run(&super::settle(self.limits(), ("acme", self.users), held, &[charge], &moment).at(now));
        settled(self.limits(), &self.zone, "acme", held, &HttpCallResult { status: 200, body: &body }).unwrap();
    }

    fn used(&mut self, envoy: u64, now: u64) -> Vec<(u64, u64)> {
        let user = self.user;
        let ask = crate::quota::fixture::ask("acme", &user, &[], None);
        let body = self.redis.run(&look(self.limits(), "l", &ask, &Moment::new(&self.zone, envoy)).at(now));
        let all = looked(self.limits(), &self.zone, "l", &ask, &HttpCallResult { status: 200, body: &body }).unwrap().0;
        all.into_iter().map(|(_, status)| (status.used, status.reserved)).collect()
    }

    fn ttl(&mut self) -> u64 {
        self.number(&["TTL", "pointsman:quota:{acme}:t"])
    }

    /// Returns the number that a command answers.
    fn number(&mut self, command: &[&str]) -> u64 {
        let answer = self.redis.command(command);
        String::from_utf8(answer).unwrap().trim_start_matches(':').trim().parse().unwrap()
    }
}

#[test]
#[ignore = "needs redis-server: make test"]
fn envoys_whose_clocks_differ_agree_on_buckets_leases_and_midnight() {
    const HOUR: u64 = 3_600_000;
    let mut all = Tenant::new(json!({"requests_per_minute": 2, "tokens_per_day": 100, "budget_usd_per_day": 1}));
    let noon = START + 12 * HOUR;
    // Buckets drain by the Redis clock, however wrong the Envoy's clock is.
    for ahead in [0, HOUR] {
        all.reserve(1, 600_000, noon + ahead, noon).unwrap();
    }
    for ahead in [0, 5 * HOUR] {
        let refused = all.reserve(1, 600_000, noon + ahead, noon).unwrap_err().unwrap();
        assert!(matches!(refused, Refused::Full(_, full)
                if full.window == Window::RequestsPerMinute && full.wait_ms == Some(30_000)));
    }
    // The Redis clock decides when midnight is, for Envoys that are already past it and for those that are not.
    let midnight = START + 24 * HOUR;
    let held = all.reserve(90, 600_000, midnight - 9, midnight - 10 * 60_000).unwrap();
    all.settle(&held, 90, midnight + 1, midnight - 2 * 60_000);
    assert_eq!(all.used(midnight + HOUR, midnight - 60_000)[1], (90, 0));
    let refused = all.reserve(20, 600_000, midnight + 60_000, midnight - 60_000).unwrap_err().unwrap();
    assert!(
        matches!(refused, Refused::Full(_, full) if full.wait_ms == Some(60_000) && !full.is_momentary),
        "{refused:?}"
    );
    assert_eq!(all.used(midnight - HOUR, midnight)[1], (0, 0));
    all.reserve(20, 600_000, midnight - 60_000, midnight).unwrap();
    // An Envoy whose clock is behind does not bring yesterday back.
    assert_eq!(all.used(midnight - HOUR, midnight + 1)[1], (0, 20));
    // A clock that is off by more than a day cannot be used. The request is handled as if Redis were unavailable.
    for wrong in [noon + 72 * HOUR, noon - 72 * HOUR] {
        assert_eq!(all.reserve(1, 600_000, wrong, midnight + 60_000), Err(None));
    }
    assert_eq!(all.used(midnight, midnight + 60_000)[1], (0, 20));
}

#[test]
#[ignore = "needs redis-server: make test"]
fn the_answer_to_another_question_is_no_answer() {
    let mut all = Tenant::new(json!({"concurrent": 1}));
    let models = [(all.policy.find_model("small").unwrap(), Amount::new(1, 1))];
    let [ours, theirs] = ["acme", "other"].map(|tenant| Ask {
        tenant,
        user: &USER,
        models: &models,
        lease_ms: Some(600_000),
        adds_up: false,
        stop_at_degrade_threshold: false,
        is_rough: false,
    });
    let moment = Moment::new(&all.zone, START);
    let mut run = |run: Run| all.redis.run(&run.at(START));
    let limits = all.policy.quota_of(all.policy.find_tenant("acme").unwrap()).unwrap();
    let granted = run(reserve(limits, 1024, "1", &ours, &moment));
    let refused = run(reserve(limits, 1024, "2", &ours, &moment));
    let looks = run(look(limits, "1", &ours, &moment));
    let elsewhere = run(reserve(limits, 1024, "1", &theirs, &moment));
    let read = |id, body: &[u8]| reserved(limits, &all.zone, id, &ours, &HttpCallResult { status: 200, body });
    assert!(matches!(read("1", &granted), Ok((Ok(_), _))) && matches!(read("2", &refused), Ok((Err(_), _))));
    for (id, body) in [("2", &granted), ("1", &refused), ("1", &looks), ("1", &elsewhere)] {
        assert_eq!(read(id, body).map(|_| ()), Err(Failure::Malformed), "{}", String::from_utf8_lossy(body));
    }
    let held = RemoteReservation { id: "1".into(), user: USER, models: vec![models[0].0] };
    for body in [&granted, &looks] {
        let settled = settled(limits, &all.zone, "acme", &held, &HttpCallResult { status: 200, body });
        assert_eq!(settled.map(|_| ()), Err(Failure::Malformed));
    }
    let other_look = looked(limits, &all.zone, "2", &ours, &HttpCallResult { status: 200, body: &looks });
    assert_eq!(other_look.map(|_| ()), Err(Failure::Malformed));
}

#[test]
#[ignore = "needs redis-server: make test"]
fn by_itself_it_goes_by_the_clock_of_redis() {
    let mut all = Tenant::new(json!({"requests_per_minute": 60, "burst": "1s"}));
    let now = || std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis() as u64;
    all.reserve(1, 600_000, now(), 0).unwrap();
    // An Envoy that is a minute ahead finds no more room.
    assert!(all.reserve(1, 600_000, now() + 60_000, 0).is_err());
    // An Envoy that is a minute behind finds room after the bucket has drained.
    poll(|| all.reserve(1, 600_000, now() - 60_000, 0).ok()).expect("it drains");
}

#[test]
#[ignore = "needs redis-server: make test"]
fn a_scope_is_kept_as_long_as_anything_of_it_counts() {
    let mut all = Tenant::new(json!({"tokens_per_minute": 1, "burst": "1h", "concurrent": 5}));
    // A request may run for ten hours. A short one is settled in the meantime.
    all.reserve(1, 36_000_000, START, START).unwrap();
    let short = all.reserve(1, 600_000, START, START).unwrap();
    all.settle(&short, 1, START, START);
    assert!(all.ttl() >= 36_000, "{}", all.ttl());
    // A charge beyond the limit is kept until it has drained.
    let short = all.reserve(1, 600_000, START, START).unwrap();
    all.settle(&short, 3000, START, START);
    assert!(all.ttl() >= 3000 * 60, "{}", all.ttl());
}

/// Returns the key of user `n`.
fn user(n: u32) -> ScopeKey {
    let mut key = [3; 32];
    key[..4].copy_from_slice(&n.to_le_bytes());
    key
}

#[test]
#[ignore = "needs redis-server: make test"]
fn a_user_is_kept_until_its_longest_window_ends() {
    const HOUR: u64 = 3_600_000;
    for (windows, least, most) in [
        (json!({"requests_per_minute": 5}), 60, 900),
        (json!({"tokens_per_day": 1000}), 12 * 3600, 14 * 3600),
        // 2026-01-31 is the last day of its month.
        (json!({"tokens_per_day": 1000, "budget_usd_per_month": 1}), 36 * 3600, 38 * 3600),
    ] {
        let mut all = Tenant::new(json!({"per_user": windows}));
        let noon = START + 12 * HOUR;
        let held = all.reserve(1, 60_000, noon, noon).unwrap();
        all.settle(&held, 1, noon, noon);
        let key = format!("pointsman:quota:{{acme}}:u:{}", "01".repeat(32));
        let ttl = all.number(&["TTL", &key]);
        assert!((least..=most).contains(&ttl), "{windows}: {ttl}");
        let index = all.number(&["TTL", "pointsman:quota:{acme}:users:use"]);
        assert!(index >= ttl && index <= ttl + 3600, "{index}");
    }
}

#[test]
#[ignore = "needs redis-server: make test"]
fn a_tenant_has_no_more_users_than_the_policy_says_and_those_who_used_the_least_make_room() {
    let mut all = Tenant::new(json!({"per_user": {"tokens_per_day": 100, "concurrent": 2}}));
    all.users = 50;
    let take = |all: &mut Tenant, n: u32, tokens: u64, now: u64| {
        all.user = user(n);
        let held = all.reserve(tokens, 60_000, now, now).unwrap();
        all.settle(&held, tokens, now, now);
    };
    let keys = |all: &mut Tenant| {
        let known = all.number(&["ZCARD", "pointsman:quota:{acme}:users:use"]);
        assert_eq!(known, all.number(&["ZCARD", "pointsman:quota:{acme}:users:expiry"]));
        let count = "return #redis.call('KEYS', 'pointsman:quota:{acme}:u:*')";
        assert_eq!(all.number(&["EVAL", count, "0"]), known);
        known
    };
    (0..40).for_each(|n| take(&mut all, n, 90, START));
    assert_eq!((keys(&mut all), all.evicted), (40, 0));
    (100..700).for_each(|n| take(&mut all, n, 1, START));
    assert_eq!((keys(&mut all), all.evicted), (50, 590));
    for n in 0..40 {
        all.user = user(n);
        assert_eq!(all.used(START, START)[0], (90, 0), "{n}");
    }
    // A lower bound is reached little by little.
    all.users = 20;
    (1000..1100).for_each(|n| take(&mut all, n, 1, START));
    assert_eq!(keys(&mut all), 20);
    // All have running requests: none is refused, and there may be four times as many.
    let held: Vec<_> = (2000..2200)
        .map(|n| {
            all.user = user(n);
            all.reserve(5, 60_000, START, START).unwrap()
        })
        .collect();
    assert_eq!(keys(&mut all), 80);
    // When these end, those who were evicted are not counted again, and the others are.
    held.iter().for_each(|held| all.settle(held, 5, START, START));
    assert_eq!(keys(&mut all), 80);
    // The next day, all are idle. Their keys are gone an hour later, whatever they used.
    let evicted = all.evicted;
    let next = START + 26 * 3_600_000;
    (3000..3020).for_each(|n| take(&mut all, n, 1, next));
    assert_eq!(all.evicted, evicted);
}
