//! Support for the real-Envoy tests: a gateway with scripted providers, and clients that see every byte.
//!
//! ```no_run
//! use pointsman_integration::gateway::Gateway;
//! use serde_json::json;
//!
//! let gateway = Gateway::start("providers: …");
//! let answer = gateway.chat("sk-acme", &json!({"model": "small", "messages": [{"role": "user", "content": "hi"}]}));
//! assert_eq!(answer.status, 200);
//! assert_eq!(gateway.audit(answer.trace_id())["model"], "small");
//! ```
//!
//! Nothing here depends on the gateway's code: tests see what operators and callers see. Every wait polls against a
//! deadline, and everything a test starts ends with the test process, even if that crashes.

pub mod access_log;
pub mod call;
pub mod clock;
pub mod deadline;
pub mod environment;
pub mod gateway;
pub mod mesh;
pub mod mounted;
pub mod plain_envoy;
pub mod port;
pub mod process;
pub mod raw;
pub mod redis;
pub mod response;
pub mod simulator;
pub mod turn;
