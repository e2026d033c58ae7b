//! Requests that wait for another one with the same question: each worker looks now and then whether they need not any longer.
//!
//! Only the root context is called without a cause, so it calls them. A call to a store that such a request makes then is the
//! root context's to the SDK, which therefore hands its answer over.

use crate::gateway_stage::Gateway;
use crate::host;
use proxy_wasm::traits::{Context, HttpContext};
use proxy_wasm::types::Action;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::{Rc, Weak};

/// How often is looked, in milliseconds. Only while anybody waits.
const TICK_MS: u64 = 5;
/// How soon is looked again where more could go on than may at once.
const SOON_MS: u64 = 1;
/// How many go on in one call: Envoy sends the answers of one call inside one another, each some kilobytes further down the
/// stack, and some hundreds of them are more than V8's has room for.
const MOST_AT_ONCE: usize = 16;

/// Whether a root context is called often, because requests of its own wait. A timer is a root context's and ends with it, which
/// is not before its last request has; so each root looks after its own requests, also while a newer policy has another one.
pub type Ticking = Rc<Cell<bool>>;

/// A request that can wait.
pub struct Waitable {
    id: u32,
    root: Ticking,
    gateway: Rc<RefCell<Gateway>>,
}

struct Waiter {
    id: u32,
    root: Ticking,
    gateway: Weak<RefCell<Gateway>>,
}

#[derive(Default)]
struct Queue {
    waiting: Vec<Waiter>,
    calls: HashMap<u32, Waiter>,
}

thread_local! {
    // One for all contexts of a worker.
    static QUEUE: RefCell<Queue> = RefCell::default();
}

impl Waitable {
    /// The request of the context `id`, which belongs to `root`.
    pub fn new(id: u32, root: Ticking, gateway: Gateway) -> Self {
        Self { id, root, gateway: Rc::new(RefCell::new(gateway)) }
    }

    /// After anything that may have made it wait.
    fn noted(&self, action: Action) -> Action {
        if self.gateway.borrow().is_in_line() {
            let gateway = Rc::downgrade(&self.gateway);
            QUEUE.with_borrow_mut(|queue| queue.wait(Waiter { id: self.id, root: Rc::clone(&self.root), gateway }));
        }
        action
    }
}

impl Queue {
    /// Somebody waits; to be called in the context of that request or of its root.
    fn wait(&mut self, waiter: Waiter) {
        if !waiter.root.replace(true) {
            host::set_tick(TICK_MS);
        }
        self.waiting.push(waiter);
    }
}

impl Waiter {
    /// Lets the request do something in its own context, and then whatever that made it wait for. Whether it went on.
    fn act(self, act: impl FnOnce(&mut Gateway)) -> bool {
        let Some(gateway) = self.gateway.upgrade() else { return false };
        if !host::set_context(self.id) {
            return false;
        }
        let mut gateway = gateway.borrow_mut();
        act(&mut gateway);
        let call = gateway.take_call();
        let goes_on = call.is_none() && !gateway.is_in_line();
        QUEUE.with_borrow_mut(|queue| {
            if let Some(call) = call {
                queue.calls.insert(call, self);
            } else if !goes_on {
                queue.wait(self);
            }
        });
        goes_on
    }
}

/// Looks at the requests of a root context that wait, in their order. `root`: that context, which is called; `tick_ms`: how often it is called
/// when none waits, 0 for never.
pub fn look(root: u32, ticking: &Ticking, tick_ms: u64) {
    if !ticking.get() {
        return;
    }
    let is_own = |waiter: &mut Waiter| Rc::ptr_eq(&waiter.root, ticking);
    let own: Vec<_> = QUEUE.with_borrow_mut(|queue| queue.waiting.extract_if(.., is_own).collect());
    let (mut gone, mut later) = (0, Vec::new());
    for waiter in own {
        if gone < MOST_AT_ONCE {
            gone += usize::from(waiter.act(Gateway::look));
        } else {
            later.push(waiter);
        }
    }
    host::set_context(root);
    let is_more = !later.is_empty();
    QUEUE.with_borrow_mut(|queue| drop(queue.waiting.splice(0..0, later)));
    let is_own = |waiter: &Waiter| Rc::ptr_eq(&waiter.root, ticking);
    ticking.set(QUEUE.with_borrow(|queue| queue.waiting.iter().any(is_own)));
    host::set_tick(match ticking.get() {
        _ if is_more => SOON_MS,
        true => TICK_MS,
        false => tick_ms,
    });
}

/// A call of the root context has been answered: whether it was one of a request that had waited.
pub fn answered(root: u32, call: u32, size: usize) -> bool {
    let Some(waiter) = QUEUE.with_borrow_mut(|queue| queue.calls.remove(&call)) else { return false };
    waiter.act(|gateway| gateway.on_http_call_response(call, 0, size, 0));
    host::set_context(root);
    QUEUE.with_borrow_mut(|queue| queue.calls.retain(|_, waiter| waiter.gateway.strong_count() > 0));
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
