//! Requests that wait for an identical request in flight. Each worker checks periodically whether they can go on.
//!
//! Only a plugin has a timer, so the plugin wakes its requests. A store call that a request makes when woken belongs to
//! the plugin, so the host reports its end to the plugin.

use crate::gateway_stage::GatewayStage;
use crate::host::{Action, CallId, ContextId, Host};
use crate::stage::Stage;
use crate::timer::{Need, Timer};
use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::{Rc, Weak};

/// How often waiting requests are checked, in milliseconds. Only while a request waits.
pub(crate) const TICK_MS: u64 = 5;
/// The delay, in milliseconds, until the next check if more requests could go on than one check lets through.
pub(crate) const SOON_MS: u64 = 1;
/// The number of requests that go on in one callback. Envoy nests their responses on the stack, a few kilobytes each; a
/// few hundred overflow the stack of V8.
pub(crate) const MAX_AT_ONCE: usize = 16;

/// A request that can wait for another one.
pub struct ParkableRequest<H: Host> {
    id: ContextId,
    plugin: Rc<Timer>,
    queue: Rc<RefCell<ParkedRequests<H>>>,
    gateway: Rc<RefCell<GatewayStage<H>>>,
}

struct Parked<H: Host> {
    id: ContextId,
    plugin: Rc<Timer>,
    gateway: Weak<RefCell<GatewayStage<H>>>,
}

/// The requests of a worker that wait for another one, or that waited and now wait for a call.
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
    /// Creates the request of the stream `id`, which belongs to `plugin`.
    pub fn new(
        id: ContextId,
        plugin: Rc<Timer>,
        queue: Rc<RefCell<ParkedRequests<H>>>,
        gateway: GatewayStage<H>,
    ) -> Self {
        Self { id, plugin, queue, gateway: Rc::new(RefCell::new(gateway)) }
    }

    /// Parks the request if it waits now. Called after every callback that may have made it wait.
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
    /// Parks a request. Call it in the context of that request or of its plugin.
    fn park(&mut self, host: &H, parked: Parked<H>) {
        if parked.plugin.needed_ms(Need::Parked) == 0 {
            parked.plugin.need(host, Need::Parked, TICK_MS);
        }
        self.waiting.push(parked);
    }
}

impl<H: Host> Parked<H> {
    /// Runs `act` in the context of the request, then parks the request again if it still waits. Returns whether it
    /// went on.
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

/// Checks the waiting requests of a plugin, in order. `plugin`: the context of the plugin, in which this runs.
pub(crate) fn look<H: Host>(host: &H, queue: &RefCell<ParkedRequests<H>>, plugin: ContextId, timer: &Rc<Timer>) {
    if timer.needed_ms(Need::Parked) == 0 {
        return;
    }
    let is_own = |parked: &mut Parked<H>| Rc::ptr_eq(&parked.plugin, timer);
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
    let is_any = queue.waiting.iter().any(|parked| Rc::ptr_eq(&parked.plugin, timer));
    let period_ms = if is_more { SOON_MS } else { TICK_MS };
    timer.need(host, Need::Parked, if is_any { period_ms } else { 0 });
}

/// Handles the end of a call made in the plugin's context. Returns whether the call belonged to a parked request.
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
