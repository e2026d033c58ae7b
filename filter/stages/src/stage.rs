//! A stage as its host calls it: one stream's callbacks.

use crate::host::{Action, CallId};

/// One stream. What a stage does not look at goes on.
pub trait Stage {
    /// The request's headers have come.
    fn on_request_headers(&mut self, _end_of_stream: bool) -> Action {
        Action::Continue
    }
    /// More of the request's body has come: `size` bytes are held, or pass.
    fn on_request_body(&mut self, _size: usize, _end_of_stream: bool) -> Action {
        Action::Continue
    }
    /// The request's trailers have come, and end it.
    fn on_request_trailers(&mut self) -> Action {
        Action::Continue
    }
    /// The response's headers have come.
    fn on_response_headers(&mut self, _end_of_stream: bool) -> Action {
        Action::Continue
    }
    /// More of the response's body has come: `size` bytes are held, or pass.
    fn on_response_body(&mut self, _size: usize, _end_of_stream: bool) -> Action {
        Action::Continue
    }
    /// The response's trailers have come, and end it.
    fn on_response_trailers(&mut self) -> Action {
        Action::Continue
    }
    /// A call of this stream has ended, with `size` bytes of body.
    fn on_call_end(&mut self, _call: CallId, _size: usize) {}
    /// The stream has ended.
    fn on_done(&mut self) {}
    /// The access log is about to be written: the last callback.
    fn on_log(&mut self) {}
}
