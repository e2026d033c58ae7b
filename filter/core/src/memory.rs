//! What an exchange works with: the policy, and what its worker remembers between requests under that policy.
//!
//! Only the bound on unfinished uploads depends on what is remembered. All else only saves computing again what the
//! policy and the stores would say. A new policy begins with an empty memory, so whatever it revokes or purges takes
//! effect immediately.

use crate::cache::worker::CacheMemory;
use crate::identity::keys::ApiKeyMemo;
use crate::ids::{ModelId, TenantId};
use crate::policy::Policy;
use crate::policy::calendar::CalendarMemo;
use crate::quota::window::Moment;
use crate::request::uploads::Uploads;
use crate::telemetry::refusal_log::RefusalLog;
use std::collections::BTreeSet;

mod copies;
pub use copies::Copies;

/// What one worker remembers under one policy.
#[derive(Debug)]
pub struct WorkerMemory {
    /// API keys that were recently looked up.
    pub api_keys: ApiKeyMemo,
    /// The day and the month of the last request.
    pub calendar: CalendarMemo,
    /// Questions, answers and recorded streams.
    pub cache: CacheMemory,
    /// The budget for the copies of long answers, whose usage is read at their end, and for assembled answers.
    pub copies: Copies,
    /// The refusals of the gateway that were logged.
    pub refusals: RefusalLog,
    /// The models whose streams left a doubt what the whole answer to a tenant is: for that tenant they are asked for
    /// whole answers. A tenant may have shaped the request, so the others are asked as before.
    pub doubtful: BTreeSet<(TenantId, ModelId)>,
    /// The request bodies that are still arriving.
    pub uploads: Uploads,
}

/// The policy and the memory that an exchange works with.
#[derive(Debug)]
pub struct Context<'a> {
    /// The policy that applies to its request.
    pub policy: &'a Policy,
    /// What its worker remembers under this policy only.
    pub memory: &'a mut WorkerMemory,
}

impl Context<'_> {
    /// Returns the moment `now_ms` (milliseconds since the Unix epoch) in the time zone of the policy's quotas.
    pub fn moment(&mut self, now_ms: u64) -> Moment {
        Moment::remembered(&self.policy.counting.zone, now_ms, &mut self.memory.calendar)
    }
}

impl WorkerMemory {
    /// Creates an empty memory for this policy.
    pub fn new(policy: &Policy) -> Self {
        Self {
            api_keys: ApiKeyMemo::default(),
            calendar: CalendarMemo::default(),
            cache: CacheMemory::new(policy.cache.memory_bytes),
            copies: Copies::new(policy),
            refusals: RefusalLog::default(),
            doubtful: BTreeSet::new(),
            uploads: Uploads::default(),
        }
    }

    /// Pairs the memory with the policy that it belongs to.
    pub fn under<'a>(&'a mut self, policy: &'a Policy) -> Context<'a> {
        Context { policy, memory: self }
    }
}
