//! A plugin's timer: one period serves everything that needs it.

use crate::host::Host;
use std::cell::Cell;

/// What needs the timer.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Need {
    /// The plugin itself: its gauges and its settlements.
    Plugin,
    /// Requests that wait for an identical one.
    Parked,
    /// Streams that linger after their end.
    Lingering,
}

/// The periods that are needed, in milliseconds; 0 for none. A timer belongs to a plugin and ends with it, which is
/// after its last request. So each plugin looks after its own requests, even when a newer policy has another plugin.
#[derive(Debug, Default)]
pub struct Timer {
    needed_ms: [Cell<u64>; 3],
    set_ms: Cell<u64>,
}

impl Timer {
    /// Returns the period that is needed for this; 0 if none is.
    pub(crate) fn needed_ms(&self, what: Need) -> u64 {
        self.cell(what).get()
    }

    /// Sets the period that is needed for this. Call it in the context of the plugin or of one of its streams.
    pub(crate) fn need<H: Host>(&self, host: &H, what: Need, ms: u64) {
        self.cell(what).set(ms);
        let shortest = self.needed_ms.iter().map(Cell::get).filter(|ms| *ms > 0).min().unwrap_or(0);
        if self.set_ms.replace(shortest) != shortest {
            host.set_tick(shortest);
        }
    }

    fn cell(&self, what: Need) -> &Cell<u64> {
        let [plugin, parked, lingering] = &self.needed_ms;
        match what {
            Need::Plugin => plugin,
            Need::Parked => parked,
            Need::Lingering => lingering,
        }
    }
}
