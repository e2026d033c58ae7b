//! What goes wrong around the gateways: reloads, invalid policies, kills, hangs, and clocks that are set.

use crate::numbers::Numbers;
use pointsman_integration::clock::Clock;
use pointsman_integration::environment::program;
use pointsman_integration::gateway::Gateway;
use pointsman_integration::process::Process;
use pointsman_integration::redis::Redis;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant, SystemTime};

/// When the test takes place, so that no day ends during it.
pub const START: &str = "2027-03-10T03:00:00Z";

/// Starts the provider that is killed now and then.
pub fn provider(address: SocketAddr) -> Process {
    let address = address.to_string();
    let process = Process::start(&program("simulator"), ["--listen", &address, "--no-record"], &[], None);
    process.await_line("its address", |line| line.starts_with("listening on ").then_some(()));
    process
}

/// What is disturbed.
pub struct Scene<'a> {
    /// The gateway with local counters. Its clock is set.
    pub local: &'a Gateway,
    /// The gateway whose counters are in Redis.
    pub shared: &'a Gateway,
    /// The policies that take turns, of both gateways.
    pub policies: [[String; 2]; 2],
    /// That Redis.
    pub redis: &'a mut Redis,
    /// The clock of the first gateway.
    pub clock: &'a Clock,
    /// The address of the provider that is killed.
    pub mortal: SocketAddr,
}

impl Scene<'_> {
    /// Disturbs until `is_over`, and then puts everything in order. Returns how often each thing was done.
    pub fn disturb_until(mut self, seed: u64, is_over: impl Fn() -> bool) -> BTreeMap<&'static str, u64> {
        let mut numbers = Numbers::new(seed);
        let mut mortal = Some(provider(self.mortal));
        let (began, mut ahead, mut variant) = (Instant::now(), 0i64, 0);
        let mut done = BTreeMap::new();
        while !is_over() {
            let what = match numbers.below(10) {
                0..3 => {
                    variant = 1 - variant;
                    self.apply(variant);
                    "reloads"
                }
                3 => {
                    let broken = self.policies[0][variant].replace("primary: small", "primary: nothing");
                    self.local.replace_policy(&broken);
                    "invalid policies"
                }
                4..6 => {
                    mortal = match mortal.take() {
                        Some(process) => {
                            process.signal("KILL");
                            None
                        }
                        None => Some(provider(self.mortal)),
                    };
                    "providers killed or started"
                }
                6..8 => {
                    ahead = (ahead + numbers.below(51) as i64 - 25).clamp(-300, 300);
                    self.set_clock(began, ahead);
                    "clock steps"
                }
                8 => {
                    self.redis.freeze();
                    std::thread::sleep(Duration::from_millis(numbers.below(900) as u64));
                    self.redis.thaw();
                    "Redis hung"
                }
                _ => {
                    self.redis.kill();
                    std::thread::sleep(Duration::from_millis(numbers.below(400) as u64));
                    self.redis.restart();
                    "Redis killed"
                }
            };
            *done.entry(what).or_default() += 1;
            std::thread::sleep(Duration::from_millis(200 + numbers.below(1500) as u64));
        }
        self.apply(0);
        drop(mortal);
        done
    }

    fn apply(&mut self, variant: usize) {
        for (gateway, policies) in [self.local, self.shared].into_iter().zip(&self.policies) {
            gateway.replace_policy(&policies[variant]);
        }
    }

    fn set_clock(&self, began: Instant, ahead: i64) {
        let start = humantime::parse_rfc3339(START).expect("is a time") + began.elapsed();
        let seconds = Duration::from_secs(ahead.unsigned_abs());
        let now: SystemTime = if ahead < 0 { start - seconds } else { start + seconds };
        self.clock.set(&humantime::format_rfc3339_seconds(now).to_string());
    }
}
