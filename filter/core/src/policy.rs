//! The policy as the filter uses it: validated and indexed, with nothing left to check.

use crate::config::{self, DataClass, Dialect, Identity, OutputParam, RequestBounds, ResponseBounds};
use crate::identity::keys::KeyTable;
use crate::identity::keys::UserHash;
use crate::ids::{ModelId, ProviderId, QuotaId, TaskId, TenantId, TierId};
use crate::policy::cache::{Rules, TaskRules};
use crate::policy::capabilities::Capabilities;
use crate::policy::limits::{Counting, Limits as QuotaLimits};
use crate::policy::output_limit::OutputLimit;
use crate::policy::price::Price;
use crate::policy::resilience::{Backoff, Resilience};
use crate::wire::json::names::fold;
use crate::wire::redis::Bridge;

mod ability;
mod build;
pub mod cache;
pub mod calendar;
mod capabilities;
pub mod clusters;
pub mod limits;
pub mod output_limit;
pub mod parse;
pub mod price;
pub mod resilience;
mod share;
pub mod warnings;

/// A validated policy.
#[derive(Debug, Clone)]
pub struct Policy {
    /// How callers are identified.
    pub identity: Identity,
    /// Bounds on a request.
    pub request: RequestBounds,
    /// Bounds on responses.
    pub response: ResponseBounds,
    /// Timers and retries of a request without a task.
    pub resilience: Resilience,
    /// Backoff between attempts.
    pub backoff: Backoff,
    /// The cache.
    pub cache: Rules,
    /// Whether any task has a cache.
    pub has_cache: bool,
    /// Identifies the policy: a hash of its text.
    pub revision: u64,
    /// The bridge to Redis, if there is one.
    pub redis: Option<Bridge>,
    /// The task of a request that names none.
    pub default_task: Option<TaskId>,
    pub(crate) providers: Vec<Provider>,
    pub(crate) models: Vec<Model>,
    pub(crate) tasks: Vec<Task>,
    pub(crate) tiers: Vec<Tier>,
    pub(crate) tenants: Vec<Tenant>,
    /// How quotas are counted.
    pub counting: Counting,
    pub(crate) quotas: Vec<QuotaLimits>,
    pub(crate) keys: KeyTable,
}

/// A validated provider.
#[derive(Debug, Clone)]
pub struct Provider {
    /// The provider's name. Its Envoy cluster has the same name.
    pub name: Box<str>,
    /// Its wire protocols, at least one.
    pub dialects: Box<[Dialect]>,
    /// Whether it runs on the operator's own machines.
    pub local: bool,
    /// The most sensitive class of data it may receive.
    pub data: DataClass,
    /// Path before `/chat/completions` and its like, without a trailing slash.
    pub base_path: Box<str>,
    /// Where its key comes from.
    pub credential: Option<config::Credential>,
}

/// A validated model.
#[derive(Debug, Clone)]
pub struct Model {
    /// The name that callers use.
    pub name: Box<str>,
    /// The provider that serves it.
    pub provider: ProviderId,
    /// The provider's id for the model.
    pub upstream_id: Box<str>,
    /// Context window, in tokens.
    pub context: u64,
    /// Maximum output tokens of a request.
    pub max_output_tokens: u64,
    /// The price, if the model has one.
    pub price: Option<Price>,
    /// Maximum number of concurrent requests.
    pub max_concurrent: Option<u32>,
    /// Maximum number of concurrent requests of one tenant.
    pub tenant_places: u32,
    capabilities: Capabilities,
    /// The output limit parameter it accepts, if it accepts only one.
    pub output_param: Option<OutputParam>,
    /// Request fields it does not accept, sorted.
    pub unsupported_params: Vec<Box<str>>,
    /// Whether these fields are dropped. Otherwise the request is refused.
    pub drop_params: bool,
}

impl Provider {
    /// Returns whether it speaks a dialect.
    pub fn speaks(&self, dialect: Dialect) -> bool {
        self.dialects.contains(&dialect)
    }

    /// Returns the `:path` of a request. `after_base`: the path after the base path.
    pub fn path(&self, after_base: &str) -> String {
        [&*self.base_path, after_base].concat()
    }
}

impl Model {
    /// Returns whether the model accepts the request field `name`. Servers in Go ignore the case of names.
    pub fn takes(&self, name: &str) -> bool {
        !self.unsupported_params.iter().any(|param| fold(param).eq(fold(name)))
    }

    /// Returns whether a request with the field `name` cannot go to the model. `stream_options` only says how the usage
    /// is reported, so it can always be dropped.
    pub fn refuses(&self, name: &str) -> bool {
        !self.drop_params && name != "stream_options" && !self.takes(name)
    }
}

/// A validated task.
#[derive(Debug, Clone)]
pub struct Task {
    /// The task's name.
    pub name: Box<str>,
    /// Primary, then fallbacks; never empty.
    pub chain: Vec<ModelId>,
    /// Maximum output tokens of a request.
    pub max_output_tokens: Option<u64>,
    /// Whether whole answers are asked for as streams and put together.
    pub stream_upstream: bool,
    /// Timers and retries.
    pub resilience: Resilience,
    /// The cache rules for its answers, if they are cached.
    pub cache: Option<TaskRules>,
}

/// A validated tier.
#[derive(Debug, Clone)]
pub struct Tier {
    /// The tier's name.
    pub name: Box<str>,
    /// Whether the tier's tenants may use a model, indexed by model.
    allowed: Vec<bool>,
    /// The limits that its tenants share, if there are any.
    limits: Option<QuotaId>,
}

impl Tier {
    /// Returns whether the tier's tenants may use `model`.
    pub fn allows(&self, model: ModelId) -> bool {
        self.allowed.get(usize::from(model.0)).copied().unwrap_or(false)
    }
}

/// A validated tenant.
#[derive(Debug, Clone)]
pub struct Tenant {
    /// The tenant's name.
    pub name: Box<str>,
    /// Its service level.
    pub tier: TierId,
    /// The default class of the data it sends.
    pub data: DataClass,
    /// The tenant's limits, if there are any.
    limits: Option<QuotaId>,
    /// Raised to discard the tenant's cached answers.
    pub cache_revision: u64,
}

macro_rules! lookup {
    ($($(#[$doc:meta])* $get:ident, $find:ident, $list:ident, $id:ident, $int:ty => $item:ty;)*) => {
        impl Policy {$(
            $(#[$doc])*
            #[allow(clippy::indexing_slicing)] // An id is only ever made by this policy, which never shrinks.
            pub fn $get(&self, id: $id) -> &$item {
                &self.$list[id.0 as usize]
            }
            /// Looks up an id by exact name.
            pub fn $find(&self, name: &str) -> Option<$id> {
                self.$list.binary_search_by(|item| (*item.name).cmp(name)).ok().map(|i| $id(i as $int))
            }
        )*}
    };
}

lookup! {
    /// Returns the provider with this id.
    provider, find_provider, providers, ProviderId, u16 => Provider;
    /// Returns the model with this id.
    model, find_model, models, ModelId, u16 => Model;
    /// Returns the task with this id.
    task, find_task, tasks, TaskId, u16 => Task;
    /// Returns the tier with this id.
    tier, find_tier, tiers, TierId, u16 => Tier;
    /// Returns the tenant with this id.
    tenant, find_tenant, tenants, TenantId, u32 => Tenant;
}

impl Policy {
    /// Returns all models, sorted by name.
    pub fn models(&self) -> impl Iterator<Item = (ModelId, &Model)> {
        self.models.iter().enumerate().map(|(i, m)| (ModelId(i as u16), m))
    }

    /// Returns all tasks, sorted by name.
    pub fn tasks(&self) -> impl Iterator<Item = (TaskId, &Task)> {
        self.tasks.iter().enumerate().map(|(i, t)| (TaskId(i as u16), t))
    }

    /// Returns all providers, sorted by name.
    pub fn providers(&self) -> impl Iterator<Item = &Provider> {
        self.providers.iter()
    }

    /// Returns every stream idle timeout that a request can need, in milliseconds. Each gets its own route.
    pub fn idle_timeouts_ms(&self) -> std::collections::BTreeSet<u64> {
        let tasks = self.tasks.iter().flat_map(|t| (1..=t.chain.len()).map(|attempts| t.resilience.idle_ms(attempts)));
        tasks.chain([self.resilience.idle_ms(1)]).collect()
    }

    /// Returns whether any tier or tenant has limits.
    pub fn has_quotas(&self) -> bool {
        !self.quotas.is_empty()
    }

    /// Returns the longest time that a request can last after it has been read, in milliseconds: the wait for another
    /// request's answer, then its own lease.
    pub fn longest_request_ms(&self) -> u64 {
        let tasks = self.tasks.iter().map(|task| task.resilience.lease_ms());
        let own = tasks.chain([self.resilience.lease_ms()]).max().unwrap_or(0);
        own.saturating_add(if self.has_cache { self.cache.coalescer.wait_ms } else { 0 })
    }

    /// Returns how much of `whole`, the bytes of a worker's memory for long answers, one tenant may hold.
    pub fn copy_share(&self, whole: usize) -> usize {
        match self.tenants.len() {
            0 | 1 => whole,
            _ => share::of(whole as u64, share::or_default(self.response.max_share)) as usize,
        }
    }

    /// Returns the limits of a tenant, if it has any.
    pub fn quota_of(&self, tenant: TenantId) -> Option<&QuotaLimits> {
        self.quotas.get(self.tenant(tenant).limits?.0 as usize)
    }

    /// Returns the output limit that quotas set for the requests of a tenant's user.
    pub fn output_limit_of(&self, tenant: TenantId, user: Option<&UserHash>) -> OutputLimit<'_> {
        self.quota_of(tenant).filter(|limits| !limits.shadow).map_or(OutputLimit::default(), |limits| OutputLimit {
            max: limits.max_output(user.map(|user| &user.0)),
            limits: Some(limits),
            always: limits.bounds_output(),
        })
    }

    /// Returns whether a budget of the tenant may refuse a request, so that all that is sent must have a price.
    pub fn has_budget(&self, tenant: TenantId) -> bool {
        self.quota_of(tenant).is_some_and(|limits| limits.has_budget() && !limits.shadow)
    }

    /// Returns the provider that serves `model`.
    pub fn provider_of(&self, model: ModelId) -> &Provider {
        self.provider(self.model(model).provider)
    }
}
