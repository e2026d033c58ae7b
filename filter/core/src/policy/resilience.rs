//! Timers and retries of a request, as headers for Envoy's router.
//!
//! Rule: Envoy, "Router", HTTP headers consumed. The router removes each of them before the request goes upstream. For
//! settings without a header (the gap between chunks, the backoff), `pointsman render` configures the route.

use crate::config::place::Place;
use crate::config::problem::Problem;
use crate::config::{self, Time};
use crate::outcome::blame::Blame;
use crate::wire::header::{HeaderLine, RetryAfter};

/// Retry conditions in addition to listed statuses, without and with all statuses from 500 to 599. The retriable header
/// is [`NEXT_HEADER`]; `pointsman render` puts its name on the routes.
const RETRY_ON: &str = "reset,connect-failure,refused-stream,retriable-status-codes,retriable-headers";
const RETRY_ON_5XX: &str = "5xx,reset,connect-failure,refused-stream,retriable-status-codes,retriable-headers";
/// Stands for all statuses from 500 to 599 in a list of statuses.
const ALL_5XX: &str = "5xx";

/// The header that selects a stream's route by its idle timeout. The routes remove it.
pub const IDLE_HEADER: &str = "x-pointsman-idle-ms";

/// The header that tells Envoy's connection manager when to end the exchange, counted from the start of the request.
/// The routes have it read, and remove it.
///
/// Outlier detection counts every timeout of the router, a caller's deadline included. To the router, an exchange that
/// the connection manager ends is one whose caller left.
pub const DEADLINE_HEADER: &str = "grpc-timeout";

/// The response header with which the model stage makes Envoy's router retry, whatever the status. It never reaches a
/// caller.
pub const NEXT_HEADER: &str = "x-pointsman-next";

/// Validated timers and retries. Times are in milliseconds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resilience {
    /// Until the first event of a stream.
    first_token_ms: u64,
    /// For one attempt without streaming.
    attempt_ms: u64,
    /// For the whole request.
    request_ms: u64,
    /// Between two chunks of a stream.
    chunk_ms: u64,
    /// The longest wait between two attempts.
    wait_ms: u64,
    /// Statuses that lead to the next attempt, separated by commas. `listed` is the header's value. `retry_on_status`
    /// also has `5xx` if the policy does.
    listed: String,
    retry_on_status: String,
    all_5xx: bool,
    /// Whether an attempt that timed out continues beside the next one.
    hedge: bool,
    /// Whether a stream's headers are not held until its first event.
    early_headers: bool,
}

/// When Envoy makes another attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retries<'a> {
    /// After which statuses, separated by commas: numbers, or `5xx` for all from 500 to 599.
    pub on_status: &'a str,
    /// Until when, in milliseconds since the Unix epoch.
    pub until_ms: u64,
}

impl Retries<'_> {
    /// Returns whether a status leads to another attempt, if one is left.
    pub fn follow(&self, status: u16) -> bool {
        self.on_status.split(',').any(|one| match one {
            ALL_5XX => (500..600).contains(&status),
            one => one.parse() == Ok(status),
        })
    }

    /// Returns the `retry-after` for Envoy, which reads only whole seconds: the time that the provider asked for,
    /// rounded up. Returns `None` if there is no time to wait, with the half that Envoy may add, or if the provider
    /// sent a date, for which Envoy does not wait.
    pub fn wait(&self, asked: &RetryAfter, now_ms: u64) -> Option<String> {
        let seconds = asked.ms()?.div_ceil(1000);
        (now_ms.saturating_add(seconds.saturating_mul(1500)) < self.until_ms).then(|| seconds.to_string())
    }
}

/// A limit on one exchange that is no sign of a provider's health: its caller's deadline, or the policy's timeout where
/// a wait for an identical request has used part of it. In milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deadline {
    /// From the start of the exchange.
    pub total_ms: u64,
    /// From now.
    pub left_ms: u64,
}

/// Waits between attempts, in milliseconds. They apply to the whole route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// Before the second attempt.
    pub base_ms: u64,
    /// The longest wait.
    pub max_ms: u64,
    /// The longest `retry-after` that Envoy waits for.
    pub max_retry_after_ms: u64,
}

impl From<&config::Resilience> for Backoff {
    fn from(general: &config::Resilience) -> Self {
        let config::Resilience { backoff_base, backoff_max, max_retry_after, .. } = general;
        Self { base_ms: backoff_base.0, max_ms: backoff_max.0, max_retry_after_ms: max_retry_after.0 }
    }
}

impl Backoff {
    /// Returns the longest wait between two attempts. Envoy adds up to half to a `retry-after`, so that clients do not
    /// all return at the same time (its `JitteredLowerBoundBackOffStrategy`). It only shortens its own backoff.
    fn longest_ms(self) -> u64 {
        self.max_ms.max(self.max_retry_after_ms.saturating_add(self.max_retry_after_ms / 2))
    }
}

impl Resilience {
    pub(crate) fn from_config(general: &config::Resilience, problems: &mut Vec<Problem>) -> Self {
        let config::Resilience { chunk_timeout, backoff_base, backoff_max, max_retry_after, .. } = general;
        let mut check =
            |name: &str, time: &Time, least| check_time(&Place::of(&["resilience", name]), *time, least, problems);
        check("chunk_timeout", chunk_timeout, 1);
        check("backoff_base", backoff_base, 1);
        check("backoff_max", backoff_max, 1);
        check("max_retry_after", max_retry_after, 0);
        if backoff_max < backoff_base {
            problems.push(Problem::new("resilience.backoff_max", "is shorter than resilience.backoff_base"));
        }
        Self::of_task(general, &config::TaskResilience::default(), &Place::default(), problems)
    }

    /// Builds a task's timers and retries. `place` is the task's place in the policy, or the root for the general
    /// section.
    pub(crate) fn of_task(
        general: &config::Resilience,
        task: &config::TaskResilience,
        place: &Place,
        problems: &mut Vec<Problem>,
    ) -> Self {
        let config::TaskResilience {
            retry_on_status,
            first_token_timeout,
            attempt_timeout,
            request_timeout,
            hedge,
            early_headers,
        } = task;
        let section = place.name("resilience");
        let mut time = |name: &str, own: &Option<Time>, general: Time| {
            // A general value is checked once, at its own place.
            if place.is_root() || own.is_some() {
                check_time(&section.name(name), own.unwrap_or(general), 1, problems);
            }
            own.unwrap_or(general).0
        };
        let first_token_ms = time("first_token_timeout", first_token_timeout, general.first_token_timeout);
        let attempt_ms = time("attempt_timeout", attempt_timeout, general.attempt_timeout);
        let request_ms = time("request_timeout", request_timeout, general.request_timeout);
        let statuses = retry_on_status.as_ref().unwrap_or(&general.retry_on_status);
        if place.is_root() || retry_on_status.is_some() {
            for status in statuses.listed.iter().filter(|status| !may_retry(**status)) {
                let reason = match status {
                    100..400 => "it is no error",
                    400..600 => "another model would reject the request too",
                    _ => "it is no HTTP status",
                };
                let message =
                    format!("{status} cannot be retried: {reason}; allowed are 401 to 599 except 413 and 422");
                problems.push(Problem::new(section.name("retry_on_status"), message));
            }
        }
        let all_5xx = statuses.all_5xx;
        let listed: Vec<_> = statuses.listed.iter().map(u16::to_string).collect();
        let retry_on_status = listed.iter().map(String::as_str).chain(all_5xx.then_some(ALL_5XX));
        let (retry_on_status, listed) = (retry_on_status.collect::<Vec<_>>().join(","), listed.join(","));
        Self {
            first_token_ms,
            attempt_ms,
            request_ms,
            chunk_ms: general.chunk_timeout.0,
            wait_ms: Backoff::from(general).longest_ms(),
            listed,
            retry_on_status,
            all_5xx,
            hedge: *hedge,
            early_headers: *early_headers,
        }
    }

    /// Returns the idle timeout of a stream with up to `attempts` attempts, in milliseconds. Each value has its own
    /// route.
    ///
    /// Envoy's idle timer also runs before the first event. So the timeout must cover the time until the first event in
    /// all attempts, a second per attempt to connect, and the waits between attempts.
    pub fn idle_ms(&self, attempts: usize) -> u64 {
        let attempts = attempts.max(1) as u64;
        let first_tokens = self.first_token_ms.saturating_add(1000).saturating_mul(attempts);
        self.chunk_ms.max(first_tokens.saturating_add(self.wait_ms.saturating_mul(attempts - 1)))
    }

    /// Returns the longest time that a request may take in all, in milliseconds.
    pub fn request_ms(&self) -> u64 {
        self.request_ms
    }

    /// Returns the longest time that an attempt may take to answer, or to begin its stream, in milliseconds.
    pub fn attempt_ms(&self, stream: bool) -> u64 {
        if stream { self.first_token_ms } else { self.attempt_ms }
    }

    /// Returns how long a request counts as running, in milliseconds: its timeout, and the time that Envoy may need to
    /// end it.
    pub fn lease_ms(&self) -> u64 {
        self.request_ms.saturating_add(60_000)
    }

    /// Returns the headers for a request with up to `attempts` attempts. A deadline can only shorten the timeout.
    pub fn headers(&self, attempts: usize, stream: bool, deadline: Option<Deadline>) -> Vec<HeaderLine> {
        let request_ms = self.request_ms;
        let attempt_ms = self.attempt_ms(stream);
        // Envoy's timer for an attempt ends at the response headers. Without a model stage nothing holds them back, so
        // the request's timer must enforce the attempt's timeout too.
        let skips_model_stage = skips_model_stage(attempts, stream);
        let request_ms = if skips_model_stage { request_ms.min(attempt_ms) } else { request_ms };
        let mut headers: Vec<HeaderLine> = Vec::with_capacity(6);
        // Always: Envoy ignores the timeout of a route that has `max_stream_duration`.
        headers.push(("x-envoy-upstream-rq-timeout-ms", request_ms.to_string().into()));
        if let Some(deadline) = deadline.filter(|deadline| deadline.left_ms < self.request_ms) {
            headers.push((DEADLINE_HEADER, format!("{}m", deadline.total_ms).into()));
        }
        // Envoy ignores an attempt timeout that is not shorter than the request timeout.
        if attempt_ms < request_ms {
            headers.push(("x-envoy-upstream-rq-per-try-timeout-ms", attempt_ms.to_string().into()));
        }
        if stream {
            headers.push((IDLE_HEADER, self.idle_ms(attempts).to_string().into()));
        }
        // Without these headers, Envoy keeps no copy of the request for another attempt.
        if attempts > 1 {
            headers.push(("x-envoy-max-retries", (attempts - 1).to_string().into()));
            headers.push(("x-envoy-retry-on", if self.all_5xx { RETRY_ON_5XX } else { RETRY_ON }.into()));
            if !self.listed.is_empty() {
                headers.push(("x-envoy-retriable-status-codes", self.listed.clone().into()));
            }
            if self.hedge {
                headers.push(("x-envoy-hedge-on-per-try-timeout", "true".into()));
            }
        }
        headers
    }

    /// Returns what the model stage must know about retries of a request that is sent at `now_ms` (milliseconds since
    /// the Unix epoch).
    pub fn retries(&self, deadline: Option<Deadline>, now_ms: u64) -> Retries<'_> {
        let request_ms = deadline.map_or(self.request_ms, |deadline| deadline.left_ms.min(self.request_ms));
        Retries { on_status: &self.retry_on_status, until_ms: now_ms.saturating_add(request_ms) }
    }

    /// Returns whether the headers of a stream go to the caller before its first event, which may then fail no attempt.
    pub fn has_early_headers(&self) -> bool {
        self.early_headers
    }

    /// Returns whether an attempt that timed out continues beside the next one.
    pub fn is_hedged(&self) -> bool {
        self.hedge
    }
}

/// Returns whether a request can bypass the model stage: it has one attempt and does not stream.
pub fn skips_model_stage(attempts: usize, stream: bool) -> bool {
    attempts == 1 && !stream
}

/// Returns whether another attempt can help after this status.
fn may_retry(status: u16) -> bool {
    (400..600).contains(&status) && Blame::of_status(status) != Blame::Request
}

fn check_time(place: &Place, time: Time, least: u64, problems: &mut Vec<Problem>) {
    const DAY: u64 = 86_400_000;
    if !(least..=DAY).contains(&time.0) {
        problems.push(Problem::new(place, format!("{}ms is out of range: expected {least}ms to 24h", time.0)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Statuses, TaskResilience};

    fn listed(statuses: &[u16]) -> Statuses {
        Statuses { listed: statuses.to_vec(), all_5xx: false }
    }

    fn headers(task: TaskResilience, attempts: usize, stream: bool, deadline: Option<Deadline>) -> Vec<HeaderLine> {
        let mut problems = Vec::new();
        let resilience = Resilience::of_task(&config::Resilience::default(), &task, &"tasks.t".into(), &mut problems);
        assert_eq!(problems, []);
        resilience.headers(attempts, stream, deadline)
    }

    #[test]
    fn a_deadline_shortens_and_never_lengthens() {
        let timers = |stream, left_ms: Option<u64>| {
            let deadline = left_ms.map(|left_ms| Deadline { total_ms: left_ms.saturating_add(20), left_ms });
            let headers = headers(TaskResilience::default(), 1, stream, deadline).into_iter();
            headers.filter(|(name, _)| *name != IDLE_HEADER).map(|(name, value)| format!("{name}: {value}")).collect()
        };
        // The router's timers are always the policy's.
        let router = ["x-envoy-upstream-rq-timeout-ms: 600000", "x-envoy-upstream-rq-per-try-timeout-ms: 30000"];
        let all: Vec<String> = timers(true, None);
        assert_eq!(all, router);
        assert_eq!(timers(true, Some(u64::MAX)), router);
        assert_eq!(timers(true, Some(600_000)), router);
        assert_eq!(timers(true, Some(5)), [router[0], "grpc-timeout: 25m", router[1]]);
        // Without a model stage, one timer is for both.
        let only = "x-envoy-upstream-rq-timeout-ms: 120000";
        assert_eq!(timers(false, None), [only]);
        assert_eq!(timers(false, Some(5)), [only, "grpc-timeout: 25m"]);
    }

    #[test]
    fn a_stream_has_a_first_token_timer_and_a_plan_of_one_no_retries() {
        let find = |headers: Vec<HeaderLine>, name| headers.into_iter().find(|(n, _)| *n == name).map(|h| h.1);
        let per_try = "x-envoy-upstream-rq-per-try-timeout-ms";
        assert_eq!(find(headers(TaskResilience::default(), 1, true, None), per_try).unwrap(), "30000");
        assert_eq!(find(headers(TaskResilience::default(), 2, false, None), per_try).unwrap(), "120000");
        let codes = "x-envoy-retriable-status-codes";
        assert_eq!(find(headers(TaskResilience::default(), 1, true, None), codes), None);
        let own = TaskResilience { retry_on_status: Some(listed(&[503])), hedge: true, ..TaskResilience::default() };
        assert_eq!(find(headers(own.clone(), 2, true, None), codes).unwrap(), "503");
        assert_eq!(find(headers(own, 2, true, None), "x-envoy-hedge-on-per-try-timeout").unwrap(), "true");
    }

    #[test]
    fn the_only_attempt_has_one_timer_whichever_is_shorter() {
        let resilience = |attempt| {
            let task = TaskResilience { attempt_timeout: Some(Time(attempt)), ..TaskResilience::default() };
            Resilience::of_task(&config::Resilience::default(), &task, &"tasks.t".into(), &mut Vec::new())
        };
        let timers = |attempt| {
            let headers: Vec<_> = resilience(attempt).headers(1, false, None);
            headers.into_iter().map(|(_, value)| value.into_owned()).collect::<Vec<_>>()
        };
        assert_eq!(timers(5000), ["5000"]);
        assert_eq!(timers(900_000), ["600000"]);
        assert_eq!(timers(120_000), ["120000"]);
        for (attempts, stream) in [(1, true), (2, false), (2, true)] {
            assert_eq!(resilience(120_000).headers(attempts, stream, None)[0].1, "600000");
        }
    }

    #[test]
    fn a_provider_is_waited_for_only_within_the_deadline() {
        let resilience = Resilience::of_task(
            &config::Resilience::default(),
            &TaskResilience::default(),
            &"tasks.t".into(),
            &mut Vec::new(),
        );
        let retries = resilience.retries(Some(Deadline { total_ms: 9_000, left_ms: 5_000 }), 1_000_000);
        let wait = |retry_after: &[u8], ms: &[u8], now| retries.wait(&RetryAfter::read(retry_after, ms)?, now);
        assert_eq!((wait(b"3", b"", 1_000_499), wait(b"3", b"", 1_000_500)), (Some("3".to_owned()), None));
        // Envoy reads whole seconds. Waiting too long is safer than asking too soon.
        for (retry_after, ms, seconds) in [("0.5", "", "1"), ("", "1500", "2"), ("2.0", "", "2"), ("9", "100", "1")] {
            assert_eq!(wait(retry_after.as_bytes(), ms.as_bytes(), 1_000_000).as_deref(), Some(seconds));
        }
        for never in ["18446744073709551615", "soon", "Sun, 06 Nov 1994 08:49:37 GMT", ""] {
            assert_eq!(wait(never.as_bytes(), b"", 0), None, "{never}");
        }
        assert!([408, 409, 429, 500, 501, 520, 529, 599].iter().all(|status| retries.follow(*status)));
        assert!(![200, 400, 401, 403, 404, 413, 422, 600, 52].iter().any(|status| retries.follow(*status)));
        assert_eq!(resilience.retries(None, 0).until_ms, 600_000);
    }

    #[test]
    fn silence_is_cut_but_never_before_the_first_token_may_come() {
        let resilience = |first_token| {
            let task = TaskResilience { first_token_timeout: Some(Time(first_token)), ..TaskResilience::default() };
            Resilience::of_task(&config::Resilience::default(), &task, &"tasks.t".into(), &mut Vec::new())
        };
        assert_eq!(resilience(10_000).idle_ms(1), 60_000);
        assert_eq!(resilience(90_000).idle_ms(1), 91_000);
        // A `retry-after` of five seconds can become seven and a half.
        assert_eq!(resilience(50_000).idle_ms(3), 3 * 51_000 + 2 * 7_500);
        let general =
            config::Resilience { max_retry_after: Time(0), backoff_max: Time(400), ..config::Resilience::default() };
        let without = Resilience::of_task(&general, &TaskResilience::default(), &"tasks.t".into(), &mut Vec::new());
        assert_eq!(without.idle_ms(3), 3 * 31_000 + 2 * 400);
        assert!(!resilience(1).headers(1, false, None).iter().any(|(name, _)| *name == IDLE_HEADER));
    }

    #[test]
    fn a_status_that_no_retry_mends_is_refused_in_the_policy() {
        let mut problems = Vec::new();
        let task = TaskResilience {
            retry_on_status: Some(listed(&[402, 404, 429, 499, 400])),
            first_token_timeout: Some(Time(0)),
            ..TaskResilience::default()
        };
        Resilience::of_task(&config::Resilience::default(), &task, &"tasks.t".into(), &mut problems);
        let places: Vec<_> = problems.iter().map(|p| p.place.to_string()).collect();
        assert_eq!(places, ["tasks.t.resilience.first_token_timeout", "tasks.t.resilience.retry_on_status"]);
    }
}
