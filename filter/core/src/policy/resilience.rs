//! Timers and retries of a request, as the headers by which Envoy's router takes them.
//!
//! Rule: Envoy, "Router", HTTP headers consumed. The router removes each of them before the request goes upstream. What
//! it takes no header for (the gap between chunks, the backoff) `pointsman render` puts on the route.

use crate::config::problem::Problem;
use crate::config::{self, Time};
use crate::wire::header::HeaderLine;

/// What leads to the next attempt besides a status; and with all statuses from 500 to 599.
const RETRY_ON: &str = "reset,connect-failure,refused-stream,retriable-status-codes";
const RETRY_ON_5XX: &str = "5xx,reset,connect-failure,refused-stream,retriable-status-codes";
/// All of them, in a list of statuses.
const ALL_5XX: &str = "5xx";

/// Header by which a stream finds the route with its idle timeout. The routes remove it.
pub const IDLE_HEADER: &str = "x-pointsman-idle-ms";

/// Validated timers and retries; times in milliseconds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resilience {
    /// To the first event of a stream.
    first_token_ms: u64,
    /// Of an attempt at an answer that is not streamed.
    attempt_ms: u64,
    /// Of the whole request.
    request_ms: u64,
    /// Of a request without a model stage, by the route, which holds what the policy says for all tasks.
    route_ms: u64,
    /// Between two chunks of a stream.
    chunk_ms: u64,
    /// The longest between two attempts.
    wait_ms: u64,
    /// Statuses that lead to the next attempt, with commas between them: those that are named, as the header's value,
    /// and all.
    listed: String,
    retry_on_status: String,
    all_5xx: bool,
    /// Whether an attempt that timed out goes on beside the next one.
    hedge: bool,
}

/// When Envoy makes another attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retries<'a> {
    /// After which statuses: numbers, or `5xx` for all from 500 to 599, with commas between them.
    pub on_status: &'a str,
    /// Until when, in milliseconds since the Unix epoch.
    pub until_ms: u64,
}

impl Retries<'_> {
    /// Whether a status leads to another attempt, if one is left.
    pub fn follow(&self, status: u16) -> bool {
        self.on_status.split(',').any(|one| match one {
            ALL_5XX => (500..600).contains(&status),
            one => one.parse() == Ok(status),
        })
    }

    /// The status by which another attempt follows a failure that no status of its provider's tells, as of an answer
    /// that is none: its own, or the nearest to it that the policy has. One that no model would mend stays what it is.
    pub fn leading_to_next(&self, status: u16) -> u16 {
        if self.follow(status) || !may_retry(status) {
            return status;
        }
        let listed = self.on_status.split(',').filter_map(|one| one.parse::<u16>().ok());
        listed.min_by_key(|one| one.abs_diff(status)).unwrap_or(status)
    }

    /// Whether there is time to wait for what a provider wrote into `retry-after` (seconds; RFC 9110, 10.2.3), to which
    /// Envoy adds up to a half. A date is not waited for by Envoy.
    pub fn can_wait(&self, retry_after: &[u8], now_ms: u64) -> bool {
        let seconds = std::str::from_utf8(retry_after).ok().and_then(|text| text.trim().parse::<u64>().ok());
        seconds.is_some_and(|seconds| now_ms.saturating_add(seconds.saturating_mul(1500)) < self.until_ms)
    }
}

/// Waits between attempts, in milliseconds, for the whole route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// Before the second attempt.
    pub base_ms: u64,
    /// The longest.
    pub max_ms: u64,
    /// The longest `retry-after` that is waited for.
    pub max_retry_after_ms: u64,
}

impl From<&config::Resilience> for Backoff {
    fn from(general: &config::Resilience) -> Self {
        let config::Resilience { backoff_base, backoff_max, max_retry_after, .. } = general;
        Self { base_ms: backoff_base.0, max_ms: backoff_max.0, max_retry_after_ms: max_retry_after.0 }
    }
}

impl Backoff {
    /// The longest wait between two attempts: Envoy adds up to a half to a `retry-after`, so that not all come back at
    /// once (its `JitteredLowerBoundBackOffStrategy`), and takes away from its own backoff.
    fn longest_ms(self) -> u64 {
        self.max_ms.max(self.max_retry_after_ms.saturating_add(self.max_retry_after_ms / 2))
    }
}

impl Resilience {
    pub(crate) fn from_config(general: &config::Resilience, problems: &mut Vec<Problem>) -> Self {
        let config::Resilience { chunk_timeout, backoff_base, backoff_max, max_retry_after, .. } = general;
        let mut check =
            |name: &str, time: &Time, least| check_time(&format!("resilience.{name}"), *time, least, problems);
        check("chunk_timeout", chunk_timeout, 1);
        check("backoff_base", backoff_base, 1);
        check("backoff_max", backoff_max, 1);
        check("max_retry_after", max_retry_after, 0);
        if backoff_max < backoff_base {
            problems.push(Problem::new("resilience.backoff_max", "is shorter than resilience.backoff_base"));
        }
        Self::of_task(general, &config::TaskResilience::default(), "", problems)
    }

    /// Those of a task; `place` is the task's, or empty for the policy's own.
    pub(crate) fn of_task(
        general: &config::Resilience,
        task: &config::TaskResilience,
        place: &str,
        problems: &mut Vec<Problem>,
    ) -> Self {
        let config::TaskResilience { retry_on_status, first_token_timeout, attempt_timeout, request_timeout, hedge } =
            task;
        let section = if place.is_empty() { "resilience".to_owned() } else { format!("{place}.resilience") };
        let mut time = |name: &str, own: &Option<Time>, general: Time| {
            // A general value is checked once, in its own place.
            if place.is_empty() || own.is_some() {
                check_time(&format!("{section}.{name}"), own.unwrap_or(general), 1, problems);
            }
            own.unwrap_or(general).0
        };
        let first_token_ms = time("first_token_timeout", first_token_timeout, general.first_token_timeout);
        let attempt_ms = time("attempt_timeout", attempt_timeout, general.attempt_timeout);
        let request_ms = time("request_timeout", request_timeout, general.request_timeout);
        let statuses = retry_on_status.as_ref().unwrap_or(&general.retry_on_status);
        if place.is_empty() || retry_on_status.is_some() {
            for status in statuses.listed.iter().filter(|status| !may_retry(**status)) {
                let message = format!(
                    "{status} is not retried: another model would refuse the request too; possible are 408, 409, 425, \
                     429 and 500 to 599"
                );
                problems.push(Problem::new(format!("{section}.retry_on_status"), message));
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
            route_ms: general.attempt_timeout.0.min(general.request_timeout.0),
            chunk_ms: general.chunk_timeout.0,
            wait_ms: Backoff::from(general).longest_ms(),
            listed,
            retry_on_status,
            all_5xx,
            hedge: *hedge,
        }
    }

    /// The silence after which Envoy cuts a stream of `attempts` attempts, in milliseconds: there is a route for each
    /// value.
    ///
    /// Envoy's timer for it runs before the first event too, so it must not be shorter than all attempts may take to
    /// theirs, each with a second to connect, and the waits between them.
    pub fn idle_ms(&self, attempts: usize) -> u64 {
        let attempts = attempts.max(1) as u64;
        let first_tokens = self.first_token_ms.saturating_add(1000).saturating_mul(attempts);
        self.chunk_ms.max(first_tokens.saturating_add(self.wait_ms.saturating_mul(attempts - 1)))
    }

    /// The timer that the route has for requests which bring none, in milliseconds: that of a request without a model
    /// stage, where neither its task nor its caller says otherwise.
    pub fn route_ms(&self) -> u64 {
        self.route_ms
    }

    /// The longest that a request may take in all, in milliseconds.
    pub fn request_ms(&self) -> u64 {
        self.request_ms
    }

    /// The longest for which a request counts as running, in milliseconds: its timeout, and what Envoy may take to end
    /// it.
    pub fn lease_ms(&self) -> u64 {
        self.request_ms.saturating_add(60_000)
    }

    /// The headers for one request of `attempts` attempts. `deadline_ms`: the caller's own, which only shortens.
    pub fn headers(&self, attempts: usize, stream: bool, deadline_ms: Option<u64>) -> Vec<HeaderLine> {
        let request_ms = deadline_ms.map_or(self.request_ms, |ms| ms.min(self.request_ms));
        let attempt_ms = if stream { self.first_token_ms } else { self.attempt_ms };
        // Envoy's timer of an attempt runs to its headers, which nothing holds back where there is no model stage:
        // there the timer of the request is the attempt's, too.
        let skips_model_stage = self.skips_model_stage(attempts, stream, deadline_ms);
        let request_ms = if skips_model_stage { request_ms.min(attempt_ms) } else { request_ms };
        let mut headers: Vec<HeaderLine> = Vec::with_capacity(6);
        if !(skips_model_stage && request_ms == self.route_ms) {
            headers.push(("x-envoy-upstream-rq-timeout-ms", request_ms.to_string().into()));
        }
        // Envoy ignores one that is not shorter than the whole.
        if attempt_ms < request_ms {
            headers.push(("x-envoy-upstream-rq-per-try-timeout-ms", attempt_ms.to_string().into()));
        }
        if stream {
            headers.push((IDLE_HEADER, self.idle_ms(attempts).to_string().into()));
        }
        // Without these Envoy keeps no copy of the request for another attempt.
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

    /// What the model stage has to know of retries, of a request that goes out at `now_ms` (milliseconds since the Unix
    /// epoch).
    pub fn retries(&self, deadline_ms: Option<u64>, now_ms: u64) -> Retries<'_> {
        let request_ms = deadline_ms.map_or(self.request_ms, |ms| ms.min(self.request_ms));
        Retries { on_status: &self.retry_on_status, until_ms: now_ms.saturating_add(request_ms) }
    }

    /// Whether a request needs no model stage: it has one attempt, is no stream, and has one timer, the policy's. What
    /// is told of a timer that runs out while an answer is held is Envoy's to say there, which knows but one.
    pub fn skips_model_stage(&self, attempts: usize, stream: bool, deadline_ms: Option<u64>) -> bool {
        attempts == 1 && !stream && deadline_ms.is_none_or(|ms| self.attempt_ms.min(self.request_ms) <= ms)
    }

    /// Whether an attempt that timed out goes on beside the next one.
    pub fn is_hedged(&self) -> bool {
        self.hedge
    }
}

/// Whether another attempt can help after this status.
fn may_retry(status: u16) -> bool {
    matches!(status, 408 | 409 | 425 | 429 | 500..=599)
}

fn check_time(place: &str, time: Time, least: u64, problems: &mut Vec<Problem>) {
    const DAY: u64 = 86_400_000;
    if !(least..=DAY).contains(&time.0) {
        problems.push(Problem::new(place, format!("{}ms is not within {least}ms and 24h", time.0)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Statuses, TaskResilience};

    fn listed(statuses: &[u16]) -> Statuses {
        Statuses { listed: statuses.to_vec(), all_5xx: false }
    }

    fn headers(task: TaskResilience, attempts: usize, stream: bool, deadline: Option<u64>) -> Vec<HeaderLine> {
        let mut problems = Vec::new();
        let resilience = Resilience::of_task(&config::Resilience::default(), &task, "tasks.t", &mut problems);
        assert_eq!(problems, []);
        resilience.headers(attempts, stream, deadline)
    }

    #[test]
    fn a_deadline_shortens_and_never_lengthens() {
        let request_ms = |deadline| headers(TaskResilience::default(), 1, true, deadline).remove(0).1;
        assert_eq!(request_ms(None), "600000");
        assert_eq!(request_ms(Some(5)), "5");
        assert_eq!(request_ms(Some(u64::MAX)), "600000");
        // An attempt's timer that is longer than the whole is left out.
        assert_eq!(headers(TaskResilience::default(), 1, false, Some(5)).len(), 1);
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
            Resilience::of_task(&config::Resilience::default(), &task, "tasks.t", &mut Vec::new())
        };
        let timers = |attempt, deadline| {
            let resilience = resilience(attempt);
            let headers: Vec<_> = resilience.headers(1, false, deadline).into_iter().map(|(_, value)| value).collect();
            (headers.join(","), resilience.skips_model_stage(1, false, deadline))
        };
        assert_eq!(timers(5000, None), ("5000".to_owned(), true));
        assert_eq!(timers(5000, Some(900)), ("900".to_owned(), false));
        assert_eq!(timers(900_000, None), ("600000".to_owned(), true));
        // The route's, which needs no header; and the same with a caller who would wait as long.
        assert_eq!(resilience(5000).route_ms(), 120_000);
        assert_eq!(timers(120_000, None), (String::new(), true));
        assert_eq!(timers(120_000, Some(120_000)), (String::new(), true));
        // All others bring their own, because the route's would cut them.
        for (attempts, stream) in [(1, true), (2, false), (2, true)] {
            assert_eq!(resilience(120_000).headers(attempts, stream, None)[0].1, "600000");
        }
    }

    #[test]
    fn a_provider_is_waited_for_only_within_the_deadline() {
        let resilience =
            Resilience::of_task(&config::Resilience::default(), &TaskResilience::default(), "tasks.t", &mut Vec::new());
        let retries = resilience.retries(Some(5_000), 1_000_000);
        assert!(retries.can_wait(b"3", 1_000_499) && !retries.can_wait(b"3", 1_000_500));
        assert!(!retries.can_wait(b"18446744073709551615", 0) && !retries.can_wait(b"soon", 0));
        assert!([408, 409, 429, 500, 501, 520, 529, 599].iter().all(|status| retries.follow(*status)));
        assert!(![200, 400, 401, 403, 404, 413, 422, 600, 52].iter().any(|status| retries.follow(*status)));
        assert_eq!(resilience.retries(None, 0).until_ms, 600_000);
    }

    #[test]
    fn an_answer_that_is_none_leads_to_the_next_model_whatever_statuses_do() {
        let to = |on_status, status| Retries { on_status, until_ms: 0 }.leading_to_next(status);
        assert_eq!((to("408,409,429,5xx", 502), to("408,409,429,5xx", 520)), (502, 520));
        assert_eq!((to("429,503", 502), to("429", 502), to("500", 599)), (503, 429, 500));
        // No model would take it; and where no status leads on, none does.
        assert_eq!((to("429,503", 400), to("429,503", 422), to("", 502)), (400, 422, 502));
    }

    #[test]
    fn silence_is_cut_but_never_before_the_first_token_may_come() {
        let resilience = |first_token| {
            let task = TaskResilience { first_token_timeout: Some(Time(first_token)), ..TaskResilience::default() };
            Resilience::of_task(&config::Resilience::default(), &task, "tasks.t", &mut Vec::new())
        };
        assert_eq!(resilience(10_000).idle_ms(1), 60_000);
        assert_eq!(resilience(90_000).idle_ms(1), 91_000);
        // A retry-after of five seconds can become seven and a half.
        assert_eq!(resilience(50_000).idle_ms(3), 3 * 51_000 + 2 * 7_500);
        let general =
            config::Resilience { max_retry_after: Time(0), backoff_max: Time(400), ..config::Resilience::default() };
        let without = Resilience::of_task(&general, &TaskResilience::default(), "tasks.t", &mut Vec::new());
        assert_eq!(without.idle_ms(3), 3 * 31_000 + 2 * 400);
        assert!(!resilience(1).headers(1, false, None).iter().any(|(name, _)| *name == IDLE_HEADER));
    }

    #[test]
    fn a_status_that_no_retry_mends_is_refused_in_the_policy() {
        let mut problems = Vec::new();
        let task = TaskResilience {
            retry_on_status: Some(listed(&[429, 400])),
            first_token_timeout: Some(Time(0)),
            ..TaskResilience::default()
        };
        Resilience::of_task(&config::Resilience::default(), &task, "tasks.t", &mut problems);
        let places: Vec<_> = problems.iter().map(|p| p.place.as_str()).collect();
        assert_eq!(places, ["tasks.t.resilience.first_token_timeout", "tasks.t.resilience.retry_on_status"]);
    }
}
