//! One request and its attempts, driven through the stages' callbacks as Envoy does.

use crate::envoy::{Envoy, put_call};
use crate::fake_host::{Call, Context, FakeHost, FilterState, Headers};
use pointsman_core::routing::dispatch::STATE_AUDIT;
use pointsman_stages::host::{Action, Buffer, ContextId, Map, Property};
use pointsman_stages::plugin::Stream;
use pointsman_stages::stage::Stage;
use serde_json::Value;
use std::collections::VecDeque;
use std::rc::Rc;

/// One event of a response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    Headers(Headers, bool),
    Body(Vec<u8>, bool),
    Trailers,
}

impl Event {
    pub fn head(status: u16, content_type: &str) -> Self {
        Self::Headers(Headers::of(&[(":status", &status.to_string()), ("content-type", content_type)]), false)
    }

    /// Returns a whole answer: headers, then the body in one piece.
    pub fn answer(status: u16, body: &Value) -> Vec<Self> {
        vec![Self::head(status, "application/json"), Self::Body(body.to_string().into_bytes(), true)]
    }
}

fn boxed(stream: Stream<FakeHost>) -> Box<dyn Stage> {
    match stream {
        Stream::Gateway(stage) => Box::new(stage),
        Stream::Parkable(stage) => Box::new(stage),
        Stream::Model(stage) => Box::new(stage),
    }
}

/// What the client has received.
#[derive(Debug, Default)]
pub struct Client {
    pub headers: Option<Headers>,
    pub body: Vec<u8>,
    pub is_whole: bool,
    pub is_reset: bool,
}

impl Client {
    pub fn status(&self) -> u16 {
        self.headers.as_ref().and_then(|headers| headers.one(":status")).map_or(0, |status| status.parse().unwrap())
    }

    #[track_caller]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.as_ref().unwrap().one(name)
    }

    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// How far a response has passed through one filter.
#[derive(Default)]
struct Side {
    held: Option<bool>,
    has_headers: bool,
}

/// One request at the gateway stage.
pub struct Request {
    host: FakeHost,
    pub id: ContextId,
    stage: Box<dyn Stage>,
    state: FilterState,
    /// The request as sent upstream.
    pub sent: Option<Sent>,
    side: Side,
    attempts: u32,
    pub client: Client,
}

/// A request as it leaves a filter.
#[derive(Debug, Clone, Default)]
pub struct Sent {
    pub headers: Headers,
    pub body: Vec<u8>,
}

impl Sent {
    #[track_caller]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.one(name)
    }

    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    /// Asserts that the body has the length of the content-length header.
    #[track_caller]
    pub fn check_length(&self) {
        assert_eq!(self.header("content-length"), Some(&*self.body.len().to_string()));
    }
}

impl Request {
    /// Starts a request with the headers in its context.
    pub fn new(
        host: &FakeHost,
        id: ContextId,
        stream: Stream<FakeHost>,
        state: FilterState,
        end_of_stream: bool,
    ) -> Self {
        let mut request = Self {
            host: host.clone(),
            id,
            stage: boxed(stream),
            state,
            sent: None,
            side: Side::default(),
            attempts: 0,
            client: Client::default(),
        };
        let action = request.call_back(|stage| stage.on_request_headers(end_of_stream));
        request.after_request_callback(action);
        request
    }

    fn call_back<T>(&mut self, act: impl FnOnce(&mut dyn Stage) -> T) -> T {
        let stage = &mut *self.stage;
        self.host.call_back(self.id, || act(stage))
    }

    /// Sends more of the body.
    pub fn body(&mut self, bytes: &[u8], end_of_stream: bool) {
        let size = {
            let mut context = self.host.context(self.id);
            let buffer = context.buffers.entry(Buffer::RequestBody).or_default();
            buffer.extend_from_slice(bytes);
            buffer.len()
        };
        let action = self.call_back(|stage| stage.on_request_body(size, end_of_stream));
        self.after_request_callback(action);
    }

    fn after_request_callback(&mut self, action: Action) {
        if action == Action::Continue {
            self.host.context(self.id).is_resumed = true;
        }
        self.look();
    }

    /// Applies what the stage did, perhaps in another context's callback: it resumed or answered the request.
    pub fn look(&mut self) {
        let mut context = self.host.context(self.id);
        let (reply, is_resumed) = (context.reply.take(), std::mem::take(&mut context.is_resumed));
        if is_resumed && self.sent.is_none() {
            let headers = context.maps[&Map::RequestHeaders].clone();
            let body = context.buffers.remove(&Buffer::RequestBody).unwrap_or_default();
            self.sent = Some(Sent { headers, body });
        }
        drop(context);
        let Some(reply) = reply else { return };
        // The reply passes the stage's own response callbacks, which must not change it.
        let mut headers = vec![(b":status".to_vec(), reply.status.to_string().into_bytes())];
        headers.extend(reply.headers.iter().map(|(name, value)| (name.as_bytes().into(), value.as_bytes().into())));
        self.host.context(self.id).texts.insert(Property::CodeDetails, b"pointsman".to_vec());
        self.host.context(self.id).maps.insert(Map::ResponseHeaders, Headers(headers.clone()));
        assert_eq!(self.call_back(|stage| stage.on_response_headers(reply.body.is_empty())), Action::Continue);
        assert_eq!(self.host.context(self.id).maps[&Map::ResponseHeaders], Headers(headers.clone()));
        self.host.context(self.id).buffers.insert(Buffer::ResponseBody, reply.body.clone());
        assert_eq!(self.call_back(|stage| stage.on_response_body(reply.body.len(), true)), Action::Continue);
        assert_eq!(self.host.context(self.id).buffers[&Buffer::ResponseBody], reply.body);
        assert!(self.client.headers.is_none(), "a reply after headers: {reply:?}");
        self.client = Client { headers: Some(Headers(headers)), body: reply.body, is_whole: true, is_reset: false };
    }

    /// Ends a call that the request waits for.
    pub fn end_call(&mut self, call: &Call, status: u16, body: &[u8]) {
        assert_eq!(call.context, self.id, "not this request's");
        put_call(&self.host, self.id, status, body);
        self.call_back(|stage| stage.on_call_end(call.id, body.len()));
        self.look();
    }

    /// Makes the next attempt, at a host of this provider.
    pub fn attempt(&mut self, envoy: &mut Envoy, provider: &str) -> Attempt {
        let Sent { headers, body } = self.sent.clone().expect("the request has gone upstream");
        self.attempts += 1;
        let mut context = Context { state: Rc::clone(&self.state), ..Context::default() };
        context.maps.insert(Map::RequestHeaders, headers);
        context.texts.insert(Property::Provider, provider.into());
        context.numbers.insert(Property::AttemptCount, u64::from(self.attempts));
        context.texts.insert(Property::LocalAddress, "127.0.0.1:40000".into());
        self.has_connection(true);
        let (id, stream) = envoy.attempt(context);
        let mut stage = boxed(stream);
        let held = self.host.call_back(id, || stage.on_request_headers(false));
        assert_eq!(held, Action::Continue, "{:?}", self.host.state().logs);
        // In two pieces, as from a network.
        for (part, end) in [(&body[..1], false), (&body[1..], true)] {
            let size = {
                let mut context = self.host.context(id);
                let buffer = context.buffers.entry(Buffer::RequestBody).or_default();
                buffer.extend_from_slice(part);
                buffer.len()
            };
            let action = self.host.call_back(id, || stage.on_request_body(size, end));
            assert!(!end || action == Action::Continue);
        }
        let mut context = self.host.context(id);
        let headers = context.maps[&Map::RequestHeaders].clone();
        // Envoy keeps the header edits of one attempt for the next.
        self.sent.as_mut().unwrap().headers = headers.clone();
        let sent = Sent { headers, body: context.buffers.remove(&Buffer::RequestBody).unwrap_or_default() };
        drop(context);
        Attempt { host: self.host.clone(), id, stage, side: Side::default(), sent, out: VecDeque::new() }
    }

    /// Makes an attempt that the model stage refuses. Returns the status and the log line.
    pub fn refused_attempt(&mut self, envoy: &mut Envoy, provider: &str) -> (u16, String) {
        let mut context = Context { state: Rc::clone(&self.state), ..Context::default() };
        context.texts.insert(Property::Provider, provider.into());
        let (id, stream) = envoy.attempt(context);
        let mut stage = boxed(stream);
        assert_eq!(self.host.call_back(id, || stage.on_request_headers(false)), Action::Pause);
        let status = self.host.context(id).reply.take().unwrap().status;
        self.host.call_back(id, || stage.on_done());
        (status, self.host.state().logs.pop().unwrap_or_default())
    }

    /// Passes events through the gateway stage to the client.
    pub fn respond(&mut self, events: impl IntoIterator<Item = Event>) {
        for event in events {
            if self.client.is_reset || self.client.is_whole {
                return;
            }
            let out = self.side.filter(&self.host, self.id, &mut *self.stage, event);
            for event in out {
                match event {
                    Event::Headers(headers, end) => {
                        self.client.headers = Some(headers);
                        self.client.is_whole |= end;
                    }
                    Event::Body(bytes, end) => {
                        self.client.body.extend(bytes);
                        self.client.is_whole |= end;
                    }
                    Event::Trailers => self.client.is_whole = true,
                }
            }
            self.client.is_reset |= self.host.context(self.id).is_reset;
            self.look();
        }
    }

    /// Passes what the attempt let through to the gateway stage.
    pub fn relay(&mut self, attempt: &mut Attempt) {
        let out: Vec<Event> = attempt.out.drain(..).collect();
        self.respond(out);
    }

    /// Passes only the response's headers.
    pub fn relay_head(&mut self, attempt: &mut Attempt) {
        let head = attempt.out.pop_front();
        self.respond(head);
    }

    /// Returns whether the stage has reset the response, in any callback.
    pub fn is_reset(&self) -> bool {
        self.host.context(self.id).is_reset
    }

    /// Says whether Envoy has a connection to the provider.
    pub fn has_connection(&self, has: bool) {
        let mut context = self.host.context(self.id);
        match has {
            true => drop(context.texts.insert(Property::LocalAddress, "127.0.0.1:40000".into())),
            false => drop(context.texts.remove(&Property::LocalAddress)),
        }
    }

    /// Breaks off the stream. Envoy reports these details and this status.
    pub fn cut(&mut self, details: &str, status: u64) {
        let mut context = self.host.context(self.id);
        context.texts.insert(Property::CodeDetails, details.into());
        context.numbers.insert(Property::ResponseCode, status);
    }

    /// Returns a value of the filter state, which Envoy can read for its own replies.
    pub fn state(&self, name: &str) -> Option<Vec<u8>> {
        self.state.borrow().get(name).cloned()
    }

    /// The client disconnects before any part of an answer. Returns the audit record.
    pub fn end_without_answer(mut self) -> Value {
        self.cut("downstream_remote_disconnect", 0);
        self.end()
    }

    /// Ends the stream. Returns the audit record.
    pub fn end(mut self) -> Value {
        self.call_back(|stage| stage.on_done());
        self.call_back(|stage| stage.on_log());
        self.host.state().contexts.remove(&self.id);
        let state = self.state.borrow();
        serde_json::from_slice(&state[STATE_AUDIT]).unwrap()
    }
}

/// One attempt at the model stage.
pub struct Attempt {
    host: FakeHost,
    pub id: ContextId,
    stage: Box<dyn Stage>,
    side: Side,
    pub sent: Sent,
    /// The events that it let through.
    pub out: VecDeque<Event>,
}

impl Attempt {
    /// Passes the provider's events through the model stage.
    pub fn respond(&mut self, events: impl IntoIterator<Item = Event>) {
        for event in events {
            self.out.extend(self.side.filter(&self.host, self.id, &mut *self.stage, event));
        }
    }

    /// Returns the status that the router sees, if any yet.
    pub fn status(&self) -> Option<u16> {
        match self.out.front() {
            Some(Event::Headers(headers, _)) => headers.one(":status").map(|status| status.parse().unwrap()),
            _ => None,
        }
    }

    /// Returns a header that the router sees, if it has any yet.
    pub fn header(&self, name: &str) -> Option<&str> {
        match self.out.front() {
            Some(Event::Headers(headers, _)) => headers.one(name),
            _ => None,
        }
    }

    /// Ends the attempt, which never had a connection to the provider.
    pub fn end_unconnected(self) {
        self.host.context(self.id).texts.remove(&Property::LocalAddress);
        self.end();
    }

    /// Ends the attempt, whatever its outcome.
    pub fn end(mut self) {
        let stage = &mut *self.stage;
        self.host.call_back(self.id, || stage.on_done());
        self.host.call_back(self.id, || stage.on_log());
        self.host.state().contexts.remove(&self.id);
    }
}

impl Side {
    /// Passes an event through a stage. Returns the events that go on.
    fn filter(&mut self, host: &FakeHost, id: ContextId, stage: &mut dyn Stage, event: Event) -> Vec<Event> {
        let (action, end) = match &event {
            Event::Headers(headers, end) => {
                self.held = Some(*end);
                host.context(id).maps.insert(Map::ResponseHeaders, headers.clone());
                (host.call_back(id, || stage.on_response_headers(*end)), *end)
            }
            Event::Body(bytes, end) => {
                let size = {
                    let mut context = host.context(id);
                    let buffer = context.buffers.entry(Buffer::ResponseBody).or_default();
                    buffer.extend_from_slice(bytes);
                    buffer.len()
                };
                (host.call_back(id, || stage.on_response_body(size, *end)), *end)
            }
            Event::Trailers => (host.call_back(id, || stage.on_response_trailers()), false),
        };
        if action == Action::Pause {
            return Vec::new();
        }
        let mut out = Vec::new();
        let mut context = host.context(id);
        if let Some(end) = self.held.take() {
            out.push(Event::Headers(context.maps[&Map::ResponseHeaders].clone(), end));
            self.has_headers = true;
        }
        let body = context.buffers.remove(&Buffer::ResponseBody).unwrap_or_default();
        if matches!(event, Event::Body(..)) || !body.is_empty() {
            out.push(Event::Body(body, end));
        }
        if event == Event::Trailers {
            out.push(Event::Trailers);
        }
        out
    }
}
