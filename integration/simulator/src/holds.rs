//! Responses that wait until a test releases them.

use std::collections::HashSet;

use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::watch;

/// The names that have been released. A released name stays released.
#[derive(Debug, Default)]
pub struct Holds {
    released: watch::Sender<HashSet<String>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    hold: String,
}

impl Holds {
    /// Releases the responses that wait for this name, and later ones. An error says what is wrong with the request.
    pub fn release(&self, body: &[u8]) -> Result<Value, String> {
        let Written { hold } = serde_json::from_slice(body).map_err(|error| error.to_string())?;
        self.released.send_modify(|released| {
            released.insert(hold);
        });
        Ok(json!({}))
    }

    /// Waits until this name has been released.
    pub async fn released(&self, name: &str) {
        let mut released = self.released.subscribe();
        // The sender lives as long as the simulator.
        let _ = released.wait_for(|released| released.contains(name)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_name_that_was_released_holds_nothing_any_more() {
        let holds = Holds::default();
        let first = async {
            tokio::task::yield_now().await;
            holds.release(br#"{"hold":"a"}"#).unwrap();
        };
        tokio::join!(holds.released("a"), holds.released("a"), first);
        holds.released("a").await;
        let other = tokio::time::timeout(std::time::Duration::ZERO, holds.released("b"));
        assert!(other.await.is_err());
    }

    #[test]
    fn nonsense_is_refused() {
        assert!(Holds::default().release(br#"{"name":"a"}"#).unwrap_err().contains("unknown field `name`"));
    }
}
