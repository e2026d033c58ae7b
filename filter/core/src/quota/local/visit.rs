//! Finds the counters of one user, wherever they are, and changes them in one atomic step.
//!
//! A user is counted in its home record, or in its other one if the home record says so. Because the home record
//! decides, two workers that see a new user at the same time put it into the same record. Most users are found by the
//! first update, the others by the second. Only a new user costs more.
//!
//! One case remains: a home record forgets where a user is (it remembers 32) just when a worker is about to insert it
//! there. Then the user is counted in both records until the use in the other one is no longer of its windows.

use crate::policy::limits::{Limits, ScopeKey};
use crate::quota::counters::Counters;
use crate::quota::local::user_record::{PLACES, UserRecord};
use crate::quota::store::Store;
use crate::quota::users::{Places, UserTable, name};
use crate::quota::window::{Moment, Windows};

/// From how many users on a home record sends new ones to their other record, if there are fewer. Below that, one
/// update finds a user.
const PREFER_HOME: usize = PLACES / 2;

/// Tries to decide where a new user is counted. A try fails if the home record forgot a user in the meantime.
const TRIES: u32 = 4;

/// A user of a tenant.
#[derive(Clone, Copy)]
pub(super) struct User<'a> {
    pub tenant_record: &'a str,
    pub key: &'a ScopeKey,
    pub limits: &'a Limits,
    pub windows: &'a Windows,
    pub moment: &'a Moment,
}

/// What came of a visit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Visit {
    /// The counters were changed, in the record `place`. `evicted` users made room for them.
    Changed { place: u32, evicted: u64 },
    /// The counters were left as they were.
    Unchanged,
    /// The user is new and another one would have to make room.
    NoRoom,
}

/// What a record says of a user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Seen {
    Here(Visit),
    Away,
    /// Nothing, beside this many users.
    Nothing {
        forgotten: u32,
        users: usize,
    },
}

/// Where a new user is to be counted, if its home record has evicted no user since it was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Choice {
    Home { forgotten: u32 },
    Other { forgotten: u32 },
}

/// Changes the counters of a user, which are empty if it is new. `change` returns whether to store what it changed, and
/// may run again if another worker was faster. `may_evict`: whether another user may have to make room.
pub(super) fn visit(
    store: &mut dyn Store,
    user: &User,
    may_evict: bool,
    change: &mut dyn FnMut(&mut Counters) -> bool,
) -> Visit {
    let table = store.users();
    let places = table.places(user.key);
    let home = name(user.tenant_record, places.home);
    let mut step = Step { user, may_evict, table: &table, has_moved: !table.has_former(), moved: None, change };
    let mut choice = None;
    for tries in 1..=TRIES {
        match step.at_home(store, &home, &places, choice, tries == TRIES) {
            Seen::Here(visit) => return visit,
            Seen::Away => return step.away(store, places.other),
            Seen::Nothing { forgotten, users } => {
                step.take_former(store);
                let mut record = UserRecord::decode(&store.read(&name(user.tenant_record, places.other)));
                let is_there = record.user(user.key).is_some();
                choice = Some(match is_there || users >= PREFER_HOME && record.len() < users {
                    true => Choice::Other { forgotten },
                    false => Choice::Home { forgotten },
                });
            }
        }
    }
    Visit::Unchanged
}

struct Step<'a, 'b> {
    user: &'a User<'a>,
    may_evict: bool,
    table: &'a UserTable,
    /// Whether the user was looked for in the records of a former `quota.users`, or there are none; and its counters
    /// from there, which must not get lost.
    has_moved: bool,
    moved: Option<Counters>,
    change: &'b mut dyn FnMut(&mut Counters) -> bool,
}

impl Step<'_, '_> {
    /// Changes the user in its home record, if it is there or `choice` says that it is to be.
    fn at_home(
        &mut self,
        store: &mut dyn Store,
        record_name: &str,
        places: &Places,
        choice: Option<Choice>,
        is_last: bool,
    ) -> Seen {
        let mut seen = Seen::Here(Visit::Unchanged);
        let is_stored = store.update(record_name, &mut |bytes| {
            let mut record = UserRecord::decode(bytes);
            if record.user(self.user.key).is_some() {
                seen = Seen::Here(self.change_in(&mut record, places.home));
                return self.keep(&seen).then(|| record.encode());
            }
            if record.is_away(places.tag) {
                seen = Seen::Away;
                return None;
            }
            let now = record.forgotten();
            match choice {
                Some(Choice::Home { forgotten }) if forgotten == now || is_last => {
                    seen = Seen::Here(self.change_in(&mut record, places.home));
                    self.keep(&seen).then(|| record.encode())
                }
                Some(Choice::Other { forgotten }) if forgotten == now || is_last => {
                    record.send_away(places.tag);
                    seen = Seen::Away;
                    Some(record.encode())
                }
                _ => {
                    seen = Seen::Nothing { forgotten: now, users: record.len() };
                    None
                }
            }
        });
        confirmed(seen, is_stored)
    }

    /// Changes the user in its other record.
    fn away(&mut self, store: &mut dyn Store, place: u32) -> Visit {
        let name = name(self.user.tenant_record, place);
        loop {
            let mut seen = Seen::Here(Visit::Unchanged);
            let is_stored = store.update(&name, &mut |bytes| {
                let mut record = UserRecord::decode(bytes);
                if !self.has_moved && record.user(self.user.key).is_none() {
                    seen = Seen::Away;
                    return None;
                }
                seen = Seen::Here(self.change_in(&mut record, place));
                self.keep(&seen).then(|| record.encode())
            });
            match confirmed(seen, is_stored) {
                Seen::Here(visit) => return visit,
                // It is not there either. The second time, it is inserted.
                Seen::Away | Seen::Nothing { .. } => self.take_former(store),
            }
        }
    }

    /// Takes the user out of the records in which it was counted before `quota.users` changed.
    fn take_former(&mut self, store: &mut dyn Store) {
        if !self.has_moved {
            self.moved = take_former(store, self.user, self.table);
        }
        self.has_moved = true;
    }

    /// Changes the user in this record, and inserts it if it is new.
    fn change_in(&mut self, record: &mut UserRecord, place: u32) -> Visit {
        let mut evicted = 0;
        if record.user(self.user.key).is_none() {
            let User { key, limits, moment, .. } = *self.user;
            // What was taken out of a former record is put back, even if another user must make room.
            let may_evict = self.may_evict || self.moved.is_some();
            let Some(made_room) = record.insert(key, Counters::default(), limits, moment, may_evict) else {
                return Visit::NoRoom;
            };
            evicted = made_room;
        }
        let Some(counters) = record.user(self.user.key) else { return Visit::Unchanged };
        if let Some(moved) = &self.moved {
            counters.catch_up(self.user.windows, self.user.moment);
            counters.merge(moved);
        }
        match (self.change)(counters) {
            true => Visit::Changed { place, evicted },
            false => Visit::Unchanged,
        }
    }

    fn keep(&self, seen: &Seen) -> bool {
        matches!(seen, Seen::Here(Visit::Changed { .. })) || self.moved.is_some()
    }
}

/// A change counts only if it was stored.
fn confirmed(seen: Seen, is_stored: bool) -> Seen {
    match seen {
        Seen::Here(Visit::Changed { .. }) if !is_stored => Seen::Here(Visit::Unchanged),
        seen => seen,
    }
}

/// Takes a user out of the records in which it was counted before `quota.users` changed.
fn take_former(store: &mut dyn Store, user: &User, table: &UserTable) -> Option<Counters> {
    for places in table.former(user.key) {
        for place in [places.home, places.other] {
            let name = name(user.tenant_record, place);
            if UserRecord::decode(&store.read(&name)).user(user.key).is_none() {
                continue;
            }
            let mut taken = None;
            let is_stored = store.update(&name, &mut |bytes| {
                let mut record = UserRecord::decode(bytes);
                taken = record.remove(user.key);
                taken.as_ref().map(|_| record.encode())
            });
            if let Some(mut counters) = taken.filter(|_| is_stored) {
                counters.catch_up(user.windows, user.moment);
                return Some(counters);
            }
        }
    }
    None
}

/// Changes the counters of a user in the record in which it was counted before. If it is no longer there, finds it.
/// `may_evict`: whether to count it again, at the cost of another, if it is nowhere.
pub(super) fn revisit(
    store: &mut dyn Store,
    user: &User,
    place: u32,
    may_evict: bool,
    change: &mut dyn FnMut(&mut Counters),
) {
    let is_changed = store.update(&name(user.tenant_record, place), &mut |bytes| {
        let mut record = UserRecord::decode(bytes);
        let counters = record.user(user.key)?;
        counters.catch_up(user.windows, user.moment);
        change(counters);
        Some(record.encode())
    });
    if !is_changed {
        visit(store, user, may_evict, &mut |counters| {
            counters.catch_up(user.windows, user.moment);
            change(counters);
            true
        });
    }
}

/// Returns the counters of a user, if there are any.
pub(super) fn find(store: &mut dyn Store, tenant_record: &str, key: &ScopeKey) -> Option<Counters> {
    let table = store.users();
    let all = std::iter::once(table.places(key)).chain(table.former(key));
    for place in all.flat_map(|places| [places.home, places.other]) {
        let mut record = UserRecord::decode(&store.read(&name(tenant_record, place)));
        if let Some(counters) = record.user(key) {
            return Some(counters.clone());
        }
    }
    None
}
