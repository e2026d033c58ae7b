//! Settlements on their way to Redis: kept by each worker until Redis has said that it has them.
//!
//! They are not the business of the requests that they come from, which are over by then, but of the plugin's root
//! context: it sends them a few times a second's tenth, and again while Redis is away. Asking twice charges once.

use crate::generation::Shared;
use crate::host::{self, Headers};
use pointsman_core::quota::redis::script;
use pointsman_core::quota::redis::settlement::Unsettled;
use pointsman_core::wire::http_call::HttpCallResult;
use proxy_wasm::types::{BufferType, LogLevel, MapType};
use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::rc::Rc;

/// How often settlements are sent, in milliseconds.
pub const TICK_MS: u64 = 20;
/// Settlements that are sent at a time, and that are kept while Redis is away.
const MOST_AT_ONCE: usize = 256;
const MOST_KEPT: usize = 200_000;
/// How long nothing is sent after Redis has not answered.
const PAUSE_MS: u64 = 200;
/// When an answer that has not come never will: its root context has ended.
const LOST_MS: u64 = 15_000;

struct Pending {
    shared: Rc<Shared>,
    unsettled: Unsettled,
    /// Whether Redis did not know the script.
    with_script: bool,
    sent_ms: u64,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Pending>,
    sent: HashMap<u32, Pending>,
    paused_until_ms: u64,
    is_away: bool,
}

thread_local! {
    // One for all contexts of a worker: a settlement outlives the policy under which its request was made.
    static QUEUE: RefCell<Queue> = RefCell::default();
}

/// Keeps a settlement until Redis has it.
pub fn keep(shared: Rc<Shared>, unsettled: Unsettled) {
    QUEUE.with_borrow_mut(|queue| {
        // What charges nothing only gives back sooner what expires by itself, and gives way to what charges.
        let most = if unsettled.charges() { MOST_KEPT } else { MOST_KEPT / 2 };
        if queue.waiting.len() >= most {
            if unsettled.charges() {
                host::log(LogLevel::Error, "pointsman: too many settlements wait for Redis: one is lost");
            }
            return;
        }
        queue.waiting.push_back(Pending { shared, unsettled, with_script: false, sent_ms: 0 });
    });
}

/// Sends what waits.
pub fn send() {
    QUEUE.with_borrow_mut(|queue| {
        if queue.waiting.is_empty() && queue.sent.is_empty() {
            return;
        }
        let now = host::now_ms();
        // A clock that was set back since does not make the pause longer.
        if now < queue.paused_until_ms && queue.paused_until_ms - now <= PAUSE_MS {
            return;
        }
        let lost: Vec<u32> =
            queue.sent.iter().filter(|(_, p)| now.saturating_sub(p.sent_ms) > LOST_MS).map(|(id, _)| *id).collect();
        for id in lost {
            queue.waiting.extend(queue.sent.remove(&id));
        }
        // While Redis is away one question is enough to see whether it is back.
        let most = if queue.is_away { 1 } else { MOST_AT_ONCE };
        for _ in 0..queue.waiting.len().min(MOST_AT_ONCE) {
            if queue.sent.len() >= most {
                return;
            }
            let Some(mut pending) = queue.waiting.pop_front() else { return };
            if pending.unsettled.is_too_old(now) {
                host::log(LogLevel::Error, "pointsman: Redis has been away for too long: a settlement is lost");
                continue;
            }
            let Some(call) = pending.unsettled.call(pending.shared.policy(), !pending.with_script) else {
                // There is nothing to ask for under its policy, now or later.
                continue;
            };
            pending.sent_ms = now;
            match host::call_with_id(&call) {
                Some(id) => drop(queue.sent.insert(id, pending)),
                // Its bridge may be gone with its policy: others need not wait for it.
                None => queue.waiting.push_back(pending),
            }
        }
        if queue.sent.is_empty() && !queue.waiting.is_empty() {
            queue.paused_until_ms = now + PAUSE_MS;
        }
    });
}

/// A call has been answered.
pub fn answered(id: u32, body_size: usize) {
    let Some(mut pending) = QUEUE.with_borrow_mut(|queue| queue.sent.remove(&id)) else { return };
    let status = Headers::of(MapType::HttpCallResponseHeaders).status();
    let body = host::buffer(BufferType::HttpCallResponseBody, 0, body_size);
    let answered = HttpCallResult { status, body: &body };
    if !pending.with_script && script::is_unknown(&answered) {
        pending.with_script = true;
        QUEUE.with_borrow_mut(|queue| queue.waiting.push_front(pending));
        return;
    }
    match pending.unsettled.answered(pending.shared.policy(), &answered) {
        Ok(report) => {
            QUEUE.with_borrow_mut(|queue| queue.is_away = false);
            pending.shared.count_report(report.metrics, host::now_ms());
            report.lines.iter().for_each(|line| host::log(LogLevel::Warn, line));
        }
        Err(_) => QUEUE.with_borrow_mut(|queue| {
            queue.is_away = true;
            queue.paused_until_ms = host::now_ms() + PAUSE_MS;
            queue.waiting.push_back(pending);
        }),
    }
}
