//! Requests that wait for another one with the same question: each worker looks now and then whether they need not any longer.
//!
//! Only the root context is called without a cause, so it calls them. A call to a store that such a request makes then is the
//! root context's to the SDK, which therefore hands its answer over.

use crate::gateway::Gateway;
use crate::host;
use proxy_wasm::traits::{Context, HttpContext};
use proxy_wasm::types::Action;
use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::{Rc, Weak};

/// How often is looked, in milliseconds. Only while anybody waits.
const TICK_MS: u64 = 5;

/// A request that can wait.
pub struct Waitable {
    id: u32,
    gateway: Rc<RefCell<Gateway>>,
}

struct Waiter {
    id: u32,
    gateway: Weak<RefCell<Gateway>>,
}

#[derive(Default)]
struct Queue {
    waiting: Vec<Waiter>,
    calls: HashMap<u32, Waiter>,
}

thread_local! {
    // One for all contexts of a worker: a request may wait longer than its policy is the newest.
    static QUEUE: RefCell<Queue> = RefCell::default();
}

impl Waitable {
    /// The request of the context `id`.
    pub fn new(id: u32, gateway: Gateway) -> Self {
        Self { id, gateway: Rc::new(RefCell::new(gateway)) }
    }

    /// After anything that may have made it wait.
    fn noted(&self, action: Action) -> Action {
        if self.gateway.borrow().is_in_line() {
            QUEUE.with_borrow_mut(|queue| {
                queue.waiting.push(Waiter { id: self.id, gateway: Rc::downgrade(&self.gateway) });
                if queue.waiting.len() == 1 {
                    host::set_tick(TICK_MS);
                }
            });
        }
        action
    }
}

impl Waiter {
    /// Lets the request do something in its own context, and then whatever that made it wait for.
    fn act(self, act: impl FnOnce(&mut Gateway)) {
        let Some(gateway) = self.gateway.upgrade() else { return };
        if !host::set_context(self.id) {
            return;
        }
        let mut gateway = gateway.borrow_mut();
        act(&mut gateway);
        let call = gateway.take_call();
        QUEUE.with_borrow_mut(|queue| {
            if let Some(call) = call {
                queue.calls.insert(call, self);
            } else if gateway.is_in_line() {
                queue.waiting.push(self);
            }
        });
    }
}

/// Looks at all who wait. `root`: the context that is called; `tick_ms`: how often it is called when nobody waits, 0 for never.
pub fn look(root: u32, tick_ms: u64) {
    let waiting = QUEUE.with_borrow_mut(|queue| std::mem::take(&mut queue.waiting));
    if waiting.is_empty() {
        return;
    }
    waiting.into_iter().for_each(|waiter| waiter.act(Gateway::look));
    host::set_context(root);
    if QUEUE.with_borrow(|queue| queue.waiting.is_empty()) {
        host::set_tick(tick_ms);
    }
}

/// A call of the root context has been answered: whether it was one of a request that had waited.
pub fn answered(root: u32, call: u32, size: usize) -> bool {
    let Some(waiter) = QUEUE.with_borrow_mut(|queue| queue.calls.remove(&call)) else { return false };
    waiter.act(|gateway| gateway.on_http_call_response(call, 0, size, 0));
    host::set_context(root);
    QUEUE.with_borrow_mut(|queue| {
        queue.calls.retain(|_, waiter| waiter.gateway.strong_count() > 0);
        if !queue.waiting.is_empty() {
            host::set_tick(TICK_MS);
        }
    });
    true
}

impl Context for Waitable {
    fn on_http_call_response(&mut self, call: u32, headers: usize, size: usize, trailers: usize) {
        self.gateway.borrow_mut().on_http_call_response(call, headers, size, trailers);
        self.noted(Action::Pause);
    }
}

impl HttpContext for Waitable {
    fn on_http_request_headers(&mut self, count: usize, end_of_stream: bool) -> Action {
        let action = self.gateway.borrow_mut().on_http_request_headers(count, end_of_stream);
        self.noted(action)
    }

    fn on_http_request_body(&mut self, size: usize, end_of_stream: bool) -> Action {
        let action = self.gateway.borrow_mut().on_http_request_body(size, end_of_stream);
        self.noted(action)
    }

    fn on_http_request_trailers(&mut self, count: usize) -> Action {
        let action = self.gateway.borrow_mut().on_http_request_trailers(count);
        self.noted(action)
    }

    fn on_http_response_headers(&mut self, count: usize, end_of_stream: bool) -> Action {
        self.gateway.borrow_mut().on_http_response_headers(count, end_of_stream)
    }

    fn on_http_response_body(&mut self, size: usize, end_of_stream: bool) -> Action {
        self.gateway.borrow_mut().on_http_response_body(size, end_of_stream)
    }

    fn on_http_response_trailers(&mut self, count: usize) -> Action {
        self.gateway.borrow_mut().on_http_response_trailers(count)
    }

    fn on_log(&mut self) {
        self.gateway.borrow_mut().on_log();
    }
}
