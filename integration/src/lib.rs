//! What the real-Envoy tests are written with: a gateway with scripted providers, and clients that see every byte.
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
//! Nothing here knows the gateway's code: it sees what an operator and a caller see. Everything waits by polling
//! against a deadline, and everything that was started ends with the test process, however that ends.

pub mod access_log;
pub mod call;
pub mod clock;
pub mod deadline;
pub mod environment;
pub mod gateway;
pub mod port;
pub mod process;
pub mod raw;
pub mod redis;
pub mod response;
pub mod simulator;
