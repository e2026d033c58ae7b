//! Byte-level formats and protocols, independent of the gateway.

pub mod bytes;
pub mod duration;
pub mod header;
pub mod http_call;
pub mod json;
pub mod redis;
pub mod sse;
pub mod text;
