//! The places that attempts take at fallback models, by number. The gateway stage gives one back when the answer is
//! over, the model stage when the attempt has ended, whichever comes first.

use pointsman_core::routing::in_flight::Slot;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;

/// The places of one worker's attempts.
#[derive(Default)]
pub(crate) struct AttemptPlaces {
    last: Cell<u64>,
    taken: RefCell<HashMap<u64, Place>>,
}

/// A place: its record's name, and its slot in it.
pub(crate) type Place = (String, Slot);

/// The number of a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PlaceId(u64);

impl PlaceId {
    /// Returns the bytes by which the other stage finds the place.
    pub(crate) fn to_bytes(self) -> [u8; 8] {
        self.0.to_le_bytes()
    }

    /// Reads those bytes.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        Some(Self(u64::from_le_bytes(bytes.try_into().ok()?)))
    }
}

impl AttemptPlaces {
    /// Holds a place.
    pub(crate) fn hold(&self, place: Place) -> PlaceId {
        let id = self.last.get().wrapping_add(1);
        self.last.set(id);
        self.taken.borrow_mut().insert(id, place);
        PlaceId(id)
    }

    /// Takes a place back, unless that has happened already.
    pub(crate) fn take(&self, id: PlaceId) -> Option<Place> {
        self.taken.borrow_mut().remove(&id.0)
    }
}
