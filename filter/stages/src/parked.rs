//! Requests that wait for another one with the same question: each worker looks now and then whether they need not any
//! longer.
//!
//! Only a plugin is called without a cause, so it calls them. A call to a store that such a request makes then is the
//! plugin's to the host, which therefore tells the plugin of its end.

use crate::gateway_stage::GatewayStage;
use crate::host::{Action, CallId, ContextId, Host};
use crate::stage::Stage;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::{Rc, Weak};

/// How often is looked, in milliseconds. Only while a request waits.
pub(crate) const TICK_MS: u64 = 5;
/// How soon is looked again where more could go on than may at once.
pub(crate) const SOON_MS: u64 = 1;
/// How many go on in one call: Envoy sends the answers of one call inside one another, each some kilobytes further down
/// the stack, and some hundreds of them are more than V8's has room for.
pub(crate) const MAX_AT_ONCE: usize = 16;

/// Whether a plugin is called often, because requests of its own wait. A timer is a plugin's and ends with it, which is
/// not before its last request has; so each plugin looks after its own requests, also while a newer policy has another
/// one.
pub type Ticking = Rc<Cell<bool>>;

/// A request that can wait for another one.
pub struct ParkableRequest<H: Host> {
    id: ContextId,
    plugin: Ticking,
    queue: Rc<RefCell<ParkedRequests<H>>>,
    gateway: Rc<RefCell<GatewayStage<H>>>,
}

struct Parked<H: Host> {
    id: ContextId,
    plugin: Ticking,
    gateway: Weak<RefCell<GatewayStage<H>>>,
}

/// The requests of a worker that wait for another one, or, having waited, for a call.
pub struct ParkedRequests<H: Host> {
    waiting: Vec<Parked<H>>,
    calls: HashMap<CallId, Parked<H>>,
}

impl<H: Host> Default for ParkedRequests<H> {
    fn default() -> Self {
        Self { waiting: Vec::new(), calls: HashMap::new() }
    }
}

impl<H: Host> ParkableRequest<H> {
    /// The request of the stream `id`, which belongs to `plugin`.
    pub fn new(
        id: ContextId,
        plugin: Ticking,
        queue: Rc<RefCell<ParkedRequests<H>>>,
        gateway: GatewayStage<H>,
    ) -> Self {
        Self { id, plugin, queue, gateway: Rc::new(RefCell::new(gateway)) }
    }

    /// After anything that may have made it wait.
    fn park_if_waiting(&self, action: Action) -> Action {
        let gateway = self.gateway.borrow();
        if gateway.is_coalesced() {
            let parked = Parked { id: self.id, plugin: Rc::clone(&self.plugin), gateway: Rc::downgrade(&self.gateway) };
            self.queue.borrow_mut().park(gateway.host(), parked);
        }
        action
    }
}

impl<H: Host> ParkedRequests<H> {
    /// A request waits; to be called in the context of that request or of its plugin.
    fn park(&mut self, host: &H, parked: Parked<H>) {
        if !parked.plugin.replace(true) {
            host.set_tick(TICK_MS);
        }
        self.waiting.push(parked);
    }
}

impl<H: Host> Parked<H> {
    /// Lets the request do something in its own context, and then whatever that made it wait for. Whether it went on.
    fn act(self, host: &H, queue: &RefCell<ParkedRequests<H>>, act: impl FnOnce(&mut GatewayStage<H>)) -> bool {
        let Some(gateway) = self.gateway.upgrade() else { return false };
        if !host.enter(self.id) {
            return false;
        }
        let mut gateway = gateway.borrow_mut();
        act(&mut gateway);
        let call = gateway.take_call();
        let goes_on = call.is_none() && !gateway.is_coalesced();
        let mut queue = queue.borrow_mut();
        if let Some(call) = call {
            queue.calls.insert(call, self);
        } else if !goes_on {
            queue.park(host, self);
        }
        goes_on
    }
}

/// Looks at the requests of a plugin that wait, in their order. `plugin`: its context, which is called; `tick_ms`: how
/// often it is called when none waits, 0 for never.
pub(crate) fn look<H: Host>(
    host: &H,
    queue: &RefCell<ParkedRequests<H>>,
    plugin: ContextId,
    ticking: &Ticking,
    tick_ms: u64,
) {
    if !ticking.get() {
        return;
    }
    let is_own = |parked: &mut Parked<H>| Rc::ptr_eq(&parked.plugin, ticking);
    let own: Vec<_> = queue.borrow_mut().waiting.extract_if(.., is_own).collect();
    let (mut gone, mut later) = (0, Vec::new());
    for parked in own {
        if gone < MAX_AT_ONCE {
            gone += usize::from(parked.act(host, queue, GatewayStage::look));
        } else {
            later.push(parked);
        }
    }
    host.enter(plugin);
    let is_more = !later.is_empty();
    let mut queue = queue.borrow_mut();
    drop(queue.waiting.splice(0..0, later));
    ticking.set(queue.waiting.iter().any(|parked| Rc::ptr_eq(&parked.plugin, ticking)));
    host.set_tick(match ticking.get() {
        _ if is_more => SOON_MS,
        true => TICK_MS,
        false => tick_ms,
    });
}

/// A call of the plugin has ended: whether it was one of a request that had waited.
pub(crate) fn on_call_end<H: Host>(
    host: &H,
    queue: &RefCell<ParkedRequests<H>>,
    plugin: ContextId,
    call: CallId,
    size: usize,
) -> bool {
    let Some(parked) = queue.borrow_mut().calls.remove(&call) else { return false };
    parked.act(host, queue, |gateway| gateway.on_call_end(call, size));
    host.enter(plugin);
    queue.borrow_mut().calls.retain(|_, parked| parked.gateway.strong_count() > 0);
    true
}

impl<H: Host> Stage for ParkableRequest<H> {
    fn on_call_end(&mut self, call: CallId, size: usize) {
        self.gateway.borrow_mut().on_call_end(call, size);
        self.park_if_waiting(Action::Pause);
    }

    fn on_request_headers(&mut self, end_of_stream: bool) -> Action {
        let action = self.gateway.borrow_mut().on_request_headers(end_of_stream);
        self.park_if_waiting(action)
    }

    fn on_request_body(&mut self, size: usize, end_of_stream: bool) -> Action {
        let action = self.gateway.borrow_mut().on_request_body(size, end_of_stream);
        self.park_if_waiting(action)
    }

    fn on_request_trailers(&mut self) -> Action {
        let action = self.gateway.borrow_mut().on_request_trailers();
        self.park_if_waiting(action)
    }

    fn on_response_headers(&mut self, end_of_stream: bool) -> Action {
        self.gateway.borrow_mut().on_response_headers(end_of_stream)
    }

    fn on_response_body(&mut self, size: usize, end_of_stream: bool) -> Action {
        self.gateway.borrow_mut().on_response_body(size, end_of_stream)
    }

    fn on_response_trailers(&mut self) -> Action {
        self.gateway.borrow_mut().on_response_trailers()
    }

    fn on_log(&mut self) {
        self.gateway.borrow_mut().on_log();
    }
}
