//! Streams whose last event has passed while their provider holds the response open. Each is reset after a grace
//! period, which cancels the provider's request.
//!
//! A callback can pass bytes or reset the stream, but not both, and the host sends the bytes only after the callback.
//! So the plugin's timer resets it.

use crate::host::{ContextId, Host};
use crate::timer::{Need, Timer};
use std::cell::RefCell;
use std::rc::{Rc, Weak};

/// How often the streams are checked, in milliseconds, and while one is due within a second.
const TICK_MS: u64 = 1000;
const SOON_MS: u64 = 50;
/// The number of streams that are reset in one callback, because Envoy nests their last callbacks on the stack.
const MAX_AT_ONCE: usize = 16;

/// The lingering streams of one plugin.
#[derive(Default)]
pub(crate) struct LingeringStreams {
    timer: Rc<Timer>,
    streams: RefCell<Vec<Lingering>>,
}

struct Lingering {
    id: ContextId,
    due_ms: u64,
    /// Gone once the stream has ended.
    stream: Weak<()>,
}

impl LingeringStreams {
    /// Creates an empty list for the plugin with this timer.
    pub(crate) fn new(timer: &Rc<Timer>) -> Self {
        Self { timer: Rc::clone(timer), streams: RefCell::default() }
    }

    /// Adds the stream `id`, to be reset in `grace_ms`. Call it in the stream's context. The stream drops the result
    /// when it ends.
    pub(crate) fn add<H: Host>(&self, host: &H, id: ContextId, now_ms: u64, grace_ms: u64) -> Rc<()> {
        let alive = Rc::new(());
        let due_ms = now_ms.saturating_add(grace_ms);
        self.streams.borrow_mut().push(Lingering { id, due_ms, stream: Rc::downgrade(&alive) });
        let period_ms = period_ms(grace_ms);
        if !(1..=period_ms).contains(&self.timer.needed_ms(Need::Lingering)) {
            self.timer.need(host, Need::Lingering, period_ms);
        }
        alive
    }

    /// Resets the streams that are due. `plugin`: the context of the plugin, in which this runs.
    pub(crate) fn reset_due<H: Host>(&self, host: &H, plugin: ContextId) {
        if self.streams.borrow().is_empty() {
            return;
        }
        let now_ms = host.now_ms();
        let mut due = Vec::new();
        let mut left_ms = u64::MAX;
        self.streams.borrow_mut().retain(|lingering| {
            if lingering.stream.strong_count() == 0 {
                return false;
            }
            let is_due = lingering.due_ms <= now_ms && due.len() < MAX_AT_ONCE;
            if is_due {
                due.push((lingering.id, lingering.stream.clone()));
            } else {
                left_ms = left_ms.min(lingering.due_ms.saturating_sub(now_ms));
            }
            !is_due
        });
        // A reset may run other streams' last callbacks, so nothing is borrowed here.
        for (id, stream) in due {
            if stream.strong_count() > 0 && host.enter(id) {
                host.reset_response();
            }
        }
        host.enter(plugin);
        self.timer.need(host, Need::Lingering, if left_ms == u64::MAX { 0 } else { period_ms(left_ms) });
    }
}

fn period_ms(left_ms: u64) -> u64 {
    if left_ms <= TICK_MS { SOON_MS } else { TICK_MS }
}
