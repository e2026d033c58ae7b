//! The store of many Envoys: entries in Redis, each under its whole key, for as long as it is good.

use super::entry::Entry;
use super::key::Key;
use crate::call::{Answered, Call};
use crate::redis::{self, Bridge, Value};

/// Why there is no entry where Redis could not be asked: a miss like any other, but nobody waits for anybody then.
pub const UNREACHABLE: &str = "store_unreachable";

fn name(key: &Key) -> Vec<u8> {
    [b"pointsman:cache:", key.hex().as_bytes()].concat()
}

/// Asks for an entry.
pub fn get(bridge: &Bridge, key: &Key) -> Call {
    bridge.command(&[b"GET", &name(key)])
}

/// Keeps an entry, given with its bytes.
pub fn set(bridge: &Bridge, entry: &Entry, bytes: &[u8]) -> Call {
    let seconds = entry.expires_ms.saturating_sub(entry.created_ms).div_ceil(1000).max(1).to_string();
    bridge.command(&[b"SETEX", &name(&entry.key), seconds.as_bytes(), bytes])
}

/// Reads the answer to [`get`].
///
/// # Errors
/// Why there is no entry, in a word. What Redis holds under the key and is not this key's entry is none.
pub fn entry(answered: &Answered, key: &Key) -> Result<Entry, &'static str> {
    match redis::answer(answered) {
        Ok(Value::Bytes(bytes)) => Entry::decode(bytes, key).ok_or("absent"),
        Ok(_) => Err("absent"),
        Err(_) => Err(UNREACHABLE),
    }
}
