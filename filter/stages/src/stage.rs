//! A stage as the host sees it: the callbacks of one stream.

use crate::host::{Action, CallId};

/// The callbacks of one stream. By default, everything passes.
pub trait Stage {
    /// The request headers have arrived.
    fn on_request_headers(&mut self, _end_of_stream: bool) -> Action {
        Action::Continue
    }
    /// More of the request body has arrived: `size` bytes, held or passing.
    fn on_request_body(&mut self, _size: usize, _end_of_stream: bool) -> Action {
        Action::Continue
    }
    /// The request trailers have arrived, and end the request.
    fn on_request_trailers(&mut self) -> Action {
        Action::Continue
    }
    /// The response headers have arrived.
    fn on_response_headers(&mut self, _end_of_stream: bool) -> Action {
        Action::Continue
    }
    /// More of the response body has arrived: `size` bytes, held or passing.
    fn on_response_body(&mut self, _size: usize, _end_of_stream: bool) -> Action {
        Action::Continue
    }
    /// The response trailers have arrived, and end the response.
    fn on_response_trailers(&mut self) -> Action {
        Action::Continue
    }
    /// A call of this stream has ended, with a response body of `size` bytes.
    fn on_call_end(&mut self, _call: CallId, _size: usize) {}
    /// The stream has ended.
    fn on_done(&mut self) {}
    /// The access log is about to be written: the last callback.
    fn on_log(&mut self) {}
}
