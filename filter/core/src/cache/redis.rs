//! The store of many Envoys: entries in Redis, each under its whole key, for as long as it is good.

use crate::cache::entry::Entry;
use crate::cache::key::Key;
use crate::wire::http_call::{HttpCall, HttpCallResult};
use crate::wire::redis::{self, Bridge, Value};

/// Why there is no entry where Redis could not be asked: a miss like any other, but nobody waits for anybody then.
pub const UNREACHABLE: &str = "store_unreachable";

fn name(prefix: &str, key: &Key) -> Vec<u8> {
    [prefix.as_bytes(), key.hex().as_bytes()].concat()
}

/// Asks for an entry. `prefix`: what every key of this gateway's begins with.
pub fn get(bridge: &Bridge, prefix: &str, key: &Key) -> HttpCall {
    bridge.command(&[b"GET", &name(prefix, key)])
}

/// Keeps an entry, given with its bytes.
pub fn set(bridge: &Bridge, prefix: &str, entry: &Entry, bytes: &[u8]) -> HttpCall {
    let seconds = entry.expires_ms.saturating_sub(entry.created_ms).div_ceil(1000).max(1).to_string();
    bridge.command(&[b"SETEX", &name(prefix, &entry.key), seconds.as_bytes(), bytes])
}

/// Reads the answer to [`get`].
///
/// # Errors
/// Why there is no entry, in a word. What Redis holds under the key and is not this tenant's entry of this key is none.
pub fn entry(answered: &HttpCallResult, key: &Key, tenant: &str) -> Result<Entry, &'static str> {
    match redis::answer(answered) {
        Ok(Value::Bytes(bytes)) => Entry::decode(bytes, key, tenant).ok_or("absent"),
        Ok(_) => Err("absent"),
        Err(_) => Err(UNREACHABLE),
    }
}
