//! A gateway stage that decides nothing. It copies all of a request and its response into the module, sends the request
//! on unchanged except for as many headers as Pointsman changes, and leaves a record of the usual length for the access
//! log.

use proxy_wasm::hostcalls;
use proxy_wasm::traits::{Context, HttpContext};
use proxy_wasm::types::{Action, BufferType, MapType};
use std::hint::black_box;

/// The cluster of the bench's first provider.
const CLUSTER: &str = "vllm";
/// The cluster of the bench's task of two models.
const PLAN: &str = "plan.vllm+openai";
/// What a request to that task has in its last bytes.
const TASK: &[u8] = br#""model":"chat""#;
/// The request header by which the routes select the cluster.
const CLUSTER_HEADER: &str = "x-pointsman-cluster";
/// The property from which the access log reads the record.
const RECORD: &str = "pointsman_audit";
/// The usual length of a record.
const RECORD_BYTES: usize = 700;
/// The response headers that Pointsman adds.
const TOLD: [(&str, &str); 6] = [
    ("x-pointsman-cache", "bypass"),
    ("x-pointsman-provider", CLUSTER),
    ("x-pointsman-fallback", "false"),
    ("x-pointsman-model", "small"),
    ("x-pointsman-attempts", "1"),
    ("x-pointsman-cost-usd", "0.000000"),
];

/// One request.
#[derive(Default)]
pub struct Carrier {
    is_stream: bool,
}

/// Copies a buffer into the module.
fn bring(kind: BufferType, size: usize) -> Vec<u8> {
    black_box(hostcalls::get_buffer(kind, 0, size).ok().flatten().unwrap_or_default())
}

fn tell() {
    for (name, value) in TOLD {
        let _ = hostcalls::add_map_value(MapType::HttpResponseHeaders, name, value);
    }
}

impl Context for Carrier {}

impl HttpContext for Carrier {
    fn on_http_request_headers(&mut self, _: usize, _: bool) -> Action {
        let _ = black_box(hostcalls::get_map_bytes(MapType::HttpRequestHeaders));
        Action::Pause
    }

    fn on_http_request_body(&mut self, size: usize, end_of_stream: bool) -> Action {
        if !end_of_stream {
            return Action::Pause;
        }
        let body = bring(BufferType::HttpRequestBody, size);
        let _ = hostcalls::set_buffer(BufferType::HttpRequestBody, 0, size, &body);
        let map = MapType::HttpRequestHeaders;
        for name in ["authorization", "x-envoy-external-address"] {
            let _ = hostcalls::remove_map_value(map, name);
        }
        let _ = hostcalls::set_map_value(map, "content-length", Some(&size.to_string()));
        let end = body.get(size.saturating_sub(100)..).unwrap_or_default();
        let names_task = end.windows(TASK.len()).any(|part| part == TASK);
        let _ = hostcalls::add_map_value(map, CLUSTER_HEADER, if names_task { PLAN } else { CLUSTER });
        Action::Continue
    }

    fn on_http_response_headers(&mut self, _: usize, _: bool) -> Action {
        let headers = black_box(hostcalls::get_map_bytes(MapType::HttpResponseHeaders)).unwrap_or_default();
        self.is_stream = headers.iter().any(|(_, value)| value.starts_with(b"text/event-stream"));
        if !self.is_stream {
            return Action::Pause;
        }
        tell();
        Action::Continue
    }

    fn on_http_response_body(&mut self, size: usize, end_of_stream: bool) -> Action {
        if self.is_stream {
            bring(BufferType::HttpResponseBody, size);
        } else if end_of_stream {
            bring(BufferType::HttpResponseBody, size);
            tell();
        } else {
            return Action::Pause;
        }
        Action::Continue
    }

    fn on_log(&mut self) {
        let _ = hostcalls::set_property(vec![RECORD], Some(&[b'x'; RECORD_BYTES]));
    }
}
