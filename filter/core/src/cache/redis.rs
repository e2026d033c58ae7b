//! The store that several Envoys share: entries in Redis, each under its full key and until it expires.

use crate::cache::entry::Entry;
use crate::cache::key::Key;
use crate::wire::http_call::{HttpCall, HttpCallResult};
use crate::wire::redis::{self, Bridge, Value};

/// The code of a miss because Redis cannot be reached. After such a miss, identical requests do not wait.
pub const UNREACHABLE: &str = "store_unreachable";

fn name(prefix: &str, key: &Key) -> Vec<u8> {
    [prefix.as_bytes(), key.hex().as_bytes()].concat()
}

/// Builds the call that reads an entry. Every key of this gateway starts with `prefix`.
pub fn get(bridge: &Bridge, prefix: &str, key: &Key) -> HttpCall {
    bridge.command(&[b"GET", &name(prefix, key)])
}

/// Builds the call that stores an entry. `bytes` is the encoded entry.
pub fn set(bridge: &Bridge, prefix: &str, entry: &Entry, bytes: &[u8]) -> HttpCall {
    let seconds = entry.expires_ms.saturating_sub(entry.created_ms).div_ceil(1000).max(1).to_string();
    bridge.command(&[b"SETEX", &name(prefix, &entry.key), seconds.as_bytes(), bytes])
}

/// Reads the response to [`get`].
///
/// # Errors
/// The code of the miss. Anything in Redis under the key other than this tenant's entry of this key is a miss.
pub fn entry(answered: &HttpCallResult, key: &Key, tenant: &str) -> Result<Entry, &'static str> {
    match redis::answer(answered) {
        Ok(Value::Bytes(bytes)) => Entry::decode(bytes, key, tenant).ok_or("absent"),
        Ok(_) => Err("absent"),
        Err(_) => Err(UNREACHABLE),
    }
}
