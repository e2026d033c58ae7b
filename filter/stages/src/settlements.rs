//! Settlements on their way to Redis: each worker keeps them until Redis has confirmed them.
//!
//! Their requests are over by then, so the plugin sends them, every [`TICK_MS`], and retries while Redis is away. A
//! settlement that is sent twice is charged once.

use crate::generation::PolicyGeneration;
use crate::host::{Buffer, CallId, HeaderMap as _, Host, LogLevel, Map};
use pointsman_core::quota::redis::script;
use pointsman_core::quota::redis::settlement::Unsettled;
use pointsman_core::wire::http_call::HttpCallResult;
use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::rc::Rc;

/// How often settlements are sent, in milliseconds.
pub const TICK_MS: u64 = 20;
/// Settlements in flight at a time, and settlements kept while Redis is away.
const MAX_AT_ONCE: usize = 256;
const MAX_KEPT: usize = 200_000;
/// How long sending pauses after Redis failed to answer, in milliseconds.
const PAUSE_MS: u64 = 200;
/// The age, in milliseconds, at which a call without an answer counts as lost: its plugin has ended.
const LOST_MS: u64 = 15_000;

struct Pending<H: Host> {
    generation: Rc<PolicyGeneration<H>>,
    unsettled: Unsettled,
    /// Whether to send the script itself: Redis did not know it by its hash.
    with_script: bool,
    sent_ms: u64,
}

/// The settlements of a worker that Redis has not confirmed.
pub struct SettlementQueue<H: Host>(RefCell<Queue<H>>);

struct Queue<H: Host> {
    waiting: VecDeque<Pending<H>>,
    sent: HashMap<CallId, Pending<H>>,
    paused_until_ms: u64,
    is_away: bool,
}

impl<H: Host> Default for SettlementQueue<H> {
    fn default() -> Self {
        let (waiting, sent) = (VecDeque::new(), HashMap::new());
        Self(RefCell::new(Queue { waiting, sent, paused_until_ms: 0, is_away: false }))
    }
}

impl<H: Host> SettlementQueue<H> {
    /// Keeps a settlement, or a gauge lookup, until Redis has answered it.
    pub fn push(&self, generation: &Rc<PolicyGeneration<H>>, unsettled: Unsettled) {
        let waiting = &mut self.0.borrow_mut().waiting;
        // Entries that charge nothing only release early what expires anyway, or refresh gauges. They get half the
        // room.
        let max = if unsettled.charges() { MAX_KEPT } else { MAX_KEPT / 2 };
        if waiting.len() >= max {
            if unsettled.charges() {
                let line = "pointsman: too many settlements are waiting for Redis; one was dropped";
                generation.host().log(LogLevel::Error, line);
            }
            return;
        }
        let generation = Rc::clone(generation);
        waiting.push_back(Pending { generation, unsettled, with_script: false, sent_ms: 0 });
    }

    /// Sends waiting settlements.
    pub fn send(&self, host: &H) {
        self.0.borrow_mut().send(host);
    }

    /// Handles the end of a call, with a response body of `size` bytes.
    pub fn on_call_end(&self, host: &H, call: CallId, size: usize) {
        let mut queue = self.0.borrow_mut();
        let Some(mut pending) = queue.sent.remove(&call) else { return };
        let status = host.headers(Map::CallHeaders).status();
        let body = host.buffer(Buffer::CallBody, size);
        let result = HttpCallResult { status, body: &body };
        if !pending.with_script && script::is_unknown(&result) {
            pending.with_script = true;
            queue.waiting.push_front(pending);
            return;
        }
        match pending.unsettled.answered(pending.generation.policy(), &result) {
            Ok(report) => {
                queue.is_away = false;
                pending.generation.count_report(report.metrics, host.now_ms());
                report.lines.iter().for_each(|line| host.log(LogLevel::Warn, line));
            }
            Err(_) => {
                queue.is_away = true;
                queue.paused_until_ms = host.now_ms() + PAUSE_MS;
                queue.waiting.push_back(pending);
            }
        }
    }
}

impl<H: Host> Queue<H> {
    fn send(&mut self, host: &H) {
        if self.waiting.is_empty() && self.sent.is_empty() {
            return;
        }
        let now = host.now_ms();
        // A clock that was set back meanwhile must not prolong the pause.
        if now < self.paused_until_ms && self.paused_until_ms - now <= PAUSE_MS {
            return;
        }
        let lost: Vec<CallId> =
            self.sent.iter().filter(|(_, p)| now.saturating_sub(p.sent_ms) > LOST_MS).map(|(id, _)| *id).collect();
        for id in lost {
            self.waiting.extend(self.sent.remove(&id));
        }
        // While Redis is away, one call is enough to see whether it is back.
        let max = if self.is_away { 1 } else { MAX_AT_ONCE };
        for _ in 0..self.waiting.len().min(MAX_AT_ONCE) {
            if self.sent.len() >= max {
                return;
            }
            let Some(mut pending) = self.waiting.pop_front() else { return };
            if pending.unsettled.is_too_old(now) {
                host.log(
                    LogLevel::Error,
                    "pointsman: Redis has been unavailable for too long; a settlement was dropped",
                );
                continue;
            }
            let Some(call) = pending.unsettled.call(pending.generation.policy(), !pending.with_script) else {
                // Its policy has nothing to ask Redis for, now or later.
                continue;
            };
            pending.sent_ms = now;
            match host.call(&call) {
                Some(id) => drop(self.sent.insert(id, pending)),
                // The Redis bridge of its policy may be gone. The others need not wait for it.
                None => self.waiting.push_back(pending),
            }
        }
        if self.sent.is_empty() && !self.waiting.is_empty() {
            self.paused_until_ms = now + PAUSE_MS;
        }
    }
}
