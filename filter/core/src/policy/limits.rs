//! The limits of tiers and tenants, validated, with nothing left to check.

use crate::config::place::Place;
use crate::config::problem::{Problem, quoted};
use crate::config::{self, Abandoned, FailureMode, OnExhausted, OnTight, Quota, StoreKind};
use crate::identity::keys::UserHash;
use crate::ids::ModelId;
use crate::policy::calendar::Zone;
use crate::quota::window::{MINUTE_MS, Window, Windows};
use sha2::{Digest, Sha256};

/// How quotas are counted for all tenants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Counting {
    /// The time zone in which days and months begin.
    pub zone: Zone,
    /// How many users are counted separately in each tenant that has limits for users.
    pub users: u32,
    /// Where the counters are kept.
    pub store: StoreKind,
    /// What happens to requests while Redis is unavailable.
    pub failure_mode: FailureMode,
    /// What is charged for an attempt of which nothing was seen.
    pub abandoned: Abandoned,
}

/// All limits of one tenant, or of all tenants of a tier.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// The tenant as a whole.
    tenant: Bounds,
    /// Each of its users, except named ones.
    each_user: Bounds,
    /// Named users, sorted by key.
    named_users: Vec<(ScopeKey, Bounds)>,
    /// Its use of single models.
    models: Vec<(ModelId, ScopeKey, Bounds)>,
    /// What happens when a daily or monthly quota is used up.
    pub on_exhausted: Exhaustion,
    /// The lowest output limit that a request may get so that it fits a window; `None` if it gets none.
    pub clamp_to: Option<u64>,
    /// Thousandths of a daily or monthly quota from which the degraded model serves.
    pub degrade_at: Option<u64>,
    /// Thousandths of a daily or monthly quota that are reported, ascending, up to eight.
    pub alert_at: Vec<u64>,
    /// Shadow mode: nothing is refused.
    pub shadow: bool,
    /// Whether anything is counted, whether tokens are, and whether their cost is. Computed once, because every request
    /// asks and there may be many users.
    counts: bool,
    bounds_output: bool,
    has_budget: bool,
}

/// The limits of one scope: a tenant, a user, or a tenant's use of a model.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Bounds {
    windows: Windows,
    /// Maximum input tokens of a request.
    max_input: Option<u64>,
    /// Maximum output tokens of a request.
    max_output: Option<u64>,
}

/// What happens to a request when a daily or monthly quota is used up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Exhaustion {
    /// It is refused.
    Reject,
    /// This model serves it.
    Degrade(ModelId),
    /// It is answered with this text.
    Template(Box<str>),
}

/// Identifies a user or a model in a record: a whole SHA-256, so that no two share one.
pub type ScopeKey = [u8; 32];

/// The key of all requests that name no user.
pub const ANONYMOUS: ScopeKey = [0xff; 32];

/// The key of the tenant itself.
pub const TENANT: ScopeKey = [0; 32];

/// The largest limit in a policy. Lua's numbers hold it exactly after scaling by the milliseconds of a minute.
const MAX_COUNT: u64 = 100_000_000_000;
/// The lowest output limit that `on_tight: clamp` sets if the policy names none.
const MIN_OUTPUT: u64 = 256;
const MAX_USD: f64 = 1_000_000_000.0;

/// Returns the key of a model.
pub fn model_key(name: &str) -> ScopeKey {
    Sha256::new().chain_update(b"pointsman.quota.model.v1").chain_update(name).finalize().into()
}

/// Validates how quotas are counted.
pub(crate) fn counting(quota: &Quota, has_redis: bool, problems: &mut Vec<Problem>) -> Counting {
    let Quota { time_zone, time_zone_changes, store, failure_mode, abandoned, default_price: _, users } = quota;
    if *store == StoreKind::Redis && !has_redis {
        problems.push(Problem::new("quota.store", "redis requires the `redis` section, which names the bridge"));
    }
    let zone = Zone::new(time_zone, time_zone_changes).unwrap_or_else(|message| {
        problems.push(Problem::new("quota.time_zone", format!("{} {message}", quoted(time_zone))));
        Zone::fixed(0)
    });
    if !(16..=65_536).contains(users) {
        problems.push(Problem::new("quota.users", format!("{users} is out of range: expected 16 to 65536")));
    }
    Counting { zone, users: *users, store: *store, failure_mode: *failure_mode, abandoned: *abandoned }
}

/// Reports all mistakes in the limits of a tier or a tenant, at their places.
pub(crate) fn check(limits: &config::Limits, is_tier: bool, place: &Place, problems: &mut Vec<Problem>) {
    let config::Limits { per_user, users, per_model, on_exhausted, degrade_at, alert_at, .. } = limits;
    check_bounds(limits, place, problems);
    let per_user = per_user.iter().map(|limits| (place.name("per_user"), &**limits));
    let named = users.iter().map(|(user, limits)| (place.name("users").name(user), limits));
    let per_model = per_model.iter().map(|(model, limits)| (place.name("per_model").name(model), limits));
    for (place, limits) in per_user.chain(named).chain(per_model) {
        check_scope(limits, &place, problems);
    }
    if users.keys().any(|user| user.is_empty() || user.len() > 256) {
        problems.push(Problem::new(place.name("users"), "a user id must be 1 to 256 bytes"));
    }
    if is_tier && !users.is_empty() {
        let message = "users belong to a tenant: put their limits under `tenants.NAME.limits.users`";
        problems.push(Problem::new(place.name("users"), message));
    }
    let share = |share: f64| (0.001..=1.0).contains(&share);
    if degrade_at.is_some_and(|at| !share(at)) {
        problems.push(Problem::new(place.name("degrade_at"), "must be a share from 0.001 to 1"));
    }
    if let Some(shares) = alert_at
        && (shares.len() > 8 || !shares.iter().all(|at| share(*at)))
    {
        problems.push(Problem::new(place.name("alert_at"), "must be up to 8 shares from 0.001 to 1"));
    }
    if let Some(OnExhausted::Template(text)) = on_exhausted
        && (text.trim().is_empty() || text.len() > 4096)
    {
        problems
            .push(Problem::new(place.name("on_exhausted").name("template"), "must be 1 to 4096 bytes and not blank"));
    }
}

/// Checks the limits of a user or a model: their bounds, and that they set no field that belongs to a tier or tenant.
fn check_scope(limits: &config::Limits, place: &Place, problems: &mut Vec<Problem>) {
    check_bounds(limits, place, problems);
    let config::Limits { per_user, users, per_model, on_exhausted, degrade_at, alert_at, shadow, .. } = limits;
    let config::Limits { on_tight, min_output_tokens, .. } = limits;
    for (field, is_set) in [
        ("per_user", per_user.is_some()),
        ("users", !users.is_empty()),
        ("per_model", !per_model.is_empty()),
        ("on_exhausted", on_exhausted.is_some()),
        ("degrade_at", degrade_at.is_some()),
        ("alert_at", alert_at.is_some()),
        ("on_tight", on_tight.is_some()),
        ("min_output_tokens", min_output_tokens.is_some()),
        ("shadow", shadow.is_some()),
    ] {
        if is_set {
            let message = "allowed only in the limits of a tier or a tenant, not in those of a user or a model";
            problems.push(Problem::new(place.name(field), message));
        }
    }
}

fn check_bounds(limits: &config::Limits, place: &Place, problems: &mut Vec<Problem>) {
    let windows = Window::ALL.into_iter().filter_map(|window| Some((window.name(), written(limits, window)?)));
    let sizes = [
        ("max_input_tokens", limits.max_input_tokens),
        ("max_output_tokens", limits.max_output_tokens),
        ("min_output_tokens", limits.min_output_tokens),
    ];
    let sizes = sizes.into_iter().filter_map(|(field, tokens)| Some((field, LimitValue::Count(tokens?))));
    for (field, limit) in windows.chain(sizes) {
        if limit.amount().is_none() {
            problems.push(Problem::new(place.name(field), limit.problem()));
        }
    }
    if let Some(burst) = limits.burst
        && !(1..=3_600_000).contains(&burst.0)
    {
        problems.push(Problem::new(place.name("burst"), format!("{}ms is out of range: expected 1ms to 1h", burst.0)));
    }
}

/// A limit as written in the policy.
#[derive(Clone, Copy)]
enum LimitValue {
    Count(u64),
    Usd(f64),
}

/// Returns the limit of a window as written in the policy.
fn written(limits: &config::Limits, window: Window) -> Option<LimitValue> {
    match window {
        Window::RequestsPerMinute => limits.requests_per_minute.map(LimitValue::Count),
        Window::TokensPerMinute => limits.tokens_per_minute.map(LimitValue::Count),
        Window::TokensPerDay => limits.tokens_per_day.map(LimitValue::Count),
        Window::BudgetPerDay => limits.budget_usd_per_day.map(LimitValue::Usd),
        Window::BudgetPerMonth => limits.budget_usd_per_month.map(LimitValue::Usd),
        Window::Concurrent => limits.concurrent.map(|count| LimitValue::Count(u64::from(count))),
    }
}

impl LimitValue {
    /// Converts to the unit that is counted: requests, tokens or micro-USD. `None` if out of range.
    fn amount(self) -> Option<u64> {
        match self {
            Self::Count(count) => (1..=MAX_COUNT).contains(&count).then_some(count),
            Self::Usd(usd) => micro_usd(usd),
        }
    }

    fn problem(self) -> String {
        match self {
            Self::Count(count) => format!("{count} is out of range: expected 1 to {MAX_COUNT}"),
            Self::Usd(usd) => {
                format!("{usd} is not an amount of US dollars from 0 to {MAX_USD} with at most six decimals")
            }
        }
    }
}

fn micro_usd(usd: f64) -> Option<u64> {
    if !(0.0..=MAX_USD).contains(&usd) {
        return None;
    }
    let exact = (usd * 1e6).round();
    ((exact / 1e6 - usd).abs() <= f64::EPSILON * usd.max(1.0)).then_some(exact as u64)
}

impl Bounds {
    fn is_empty(&self) -> bool {
        self.windows.is_empty() && self.max_input.is_none() && self.max_output.is_none()
    }
}

impl From<&config::Limits> for Bounds {
    fn from(limits: &config::Limits) -> Self {
        let burst_ms = limits.burst.map_or(MINUTE_MS, |burst| burst.0);
        Self {
            windows: Windows::new(burst_ms, |window| written(limits, window)?.amount()),
            max_input: limits.max_input_tokens,
            max_output: limits.max_output_tokens,
        }
    }
}

/// Looks up a model by name, and reports an unknown name at its place.
type FindModel<'a> = dyn FnMut(&str, Place, &mut Vec<Problem>) -> Option<ModelId> + 'a;

/// Builds a tenant's limits. `limits` already includes its tier's. Returns `None` if nothing is limited. [`check`] has
/// reported the mistakes in each part; this function reports those in the whole.
///
/// `tenant`: the tenant's name, or `None` for the limits of a tier.
pub(crate) fn build(
    limits: &config::Limits,
    tenant: Option<&str>,
    place: &Place,
    allowed: &dyn Fn(ModelId) -> bool,
    find: &mut FindModel,
    unpriced: &[(ModelId, &str)],
    problems: &mut Vec<Problem>,
) -> Option<Limits> {
    let config::Limits { per_user, users, per_model, on_exhausted, degrade_at, alert_at, shadow, .. } = limits;
    let mut models = Vec::with_capacity(per_model.len());
    for (name, limits) in per_model {
        let id = find(name, place.name("per_model").name(name), problems);
        models.extend(id.map(|id| (id, model_key(name), Bounds::from(limits))));
    }
    let on_exhausted = match on_exhausted {
        None | Some(OnExhausted::Reject) => Exhaustion::Reject,
        Some(OnExhausted::Template(text)) => Exhaustion::Template(text.as_str().into()),
        Some(OnExhausted::Degrade(name)) => match find(name, place.name("on_exhausted").name("degrade"), problems) {
            Some(id) => {
                if !allowed(id) {
                    let message = format!("the tier does not allow the model {}", quoted(name));
                    problems.push(Problem::new(place.name("on_exhausted").name("degrade"), message));
                }
                Exhaustion::Degrade(id)
            }
            None => Exhaustion::Reject,
        },
    };
    if degrade_at.is_some() && !matches!(on_exhausted, Exhaustion::Degrade(_)) {
        let message = "requires `on_exhausted: {degrade: MODEL}`, which names the model that serves from that share on";
        problems.push(Problem::new(place.name("degrade_at"), message));
    }
    let clamps = limits.on_tight == Some(OnTight::Clamp);
    if limits.min_output_tokens.is_some() && !clamps {
        let message = "requires `on_tight: clamp`, which lowers output limits down to this one";
        problems.push(Problem::new(place.name("min_output_tokens"), message));
    }
    let clamp_to = clamps.then(|| limits.min_output_tokens.unwrap_or(MIN_OUTPUT).max(1));
    let per_user = per_user.as_deref();
    let has_budget = |model: &str| {
        let all = [Some(limits), per_user, per_model.get(model)];
        all.into_iter().flatten().chain(users.values()).any(config::Limits::has_budget)
    };
    for (_, name) in unpriced.iter().filter(|(model, name)| allowed(*model) && has_budget(name)) {
        let message = format!(
            "a budget applies to the model {}, which has no price; set its price or `quota.default_price`",
            quoted(name)
        );
        problems.push(Problem::new(place, message));
    }
    let mut named_users = Vec::with_capacity(users.len());
    for (user, limits) in users {
        let key = UserHash::new(tenant.unwrap_or_default(), user.as_bytes()).0;
        let bounds = per_user.map_or_else(|| Bounds::from(limits), |general| Bounds::from(&limits.or(general)));
        named_users.push((key, bounds));
    }
    named_users.sort_unstable_by_key(|(key, _)| *key);
    let mut limits = Limits {
        tenant: Bounds::from(limits),
        each_user: per_user.map(Bounds::from).unwrap_or_default(),
        named_users,
        models,
        on_exhausted,
        clamp_to,
        degrade_at: degrade_at.map(thousandths),
        alert_at: {
            let mut shares: Vec<u64> = alert_at.iter().flatten().copied().map(thousandths).collect();
            shares.sort_unstable();
            shares.dedup();
            shares
        },
        shadow: shadow.unwrap_or(false),
        counts: false,
        bounds_output: false,
        has_budget: false,
    };
    let counts = limits.all_bounds().any(|bounds| !bounds.windows.is_empty());
    let bounds_output = limits.all_bounds().any(|bounds| bounds.windows.counts_tokens());
    let has_budget = limits.all_bounds().any(|bounds| bounds.windows.has_budget());
    (limits.counts, limits.bounds_output, limits.has_budget) = (counts, bounds_output, has_budget);
    limits.binds().then_some(limits)
}

fn thousandths(share: f64) -> u64 {
    (share * 1000.0).round().clamp(0.0, 1000.0) as u64
}

impl Limits {
    /// Returns the limits of a user.
    fn bounds_of(&self, user: &ScopeKey) -> &Bounds {
        let named = self.named_users.binary_search_by_key(user, |(key, _)| *key).ok();
        named.and_then(|at| self.named_users.get(at)).map_or(&self.each_user, |(_, bounds)| bounds)
    }

    /// Returns the windows of the tenant as a whole.
    pub fn tenant(&self) -> &Windows {
        &self.tenant.windows
    }

    /// Returns the windows of a user, or `None` if it has none.
    pub fn user(&self, user: &ScopeKey) -> Option<&Windows> {
        Some(&self.bounds_of(user).windows).filter(|windows| !windows.is_empty())
    }

    /// Returns the windows of the tenant's use of single models, for the models that have any.
    pub fn models(&self) -> impl Iterator<Item = (ModelId, &ScopeKey, &Windows)> {
        let all = self.models.iter().map(|(id, key, bounds)| (*id, key, &bounds.windows));
        all.filter(|(.., windows)| !windows.is_empty())
    }

    /// Returns the windows of the tenant's use of this model, or `None` if it has none.
    pub fn model(&self, model: ModelId) -> Option<(&ScopeKey, &Windows)> {
        self.models().find(|(id, ..)| *id == model).map(|(_, key, windows)| (key, windows))
    }

    /// Returns the maximum input tokens of a request: the lower of the tenant's and its user's.
    pub fn max_input(&self, user: Option<&ScopeKey>) -> Option<u64> {
        let of_user = user.map_or(&self.each_user, |user| self.bounds_of(user)).max_input;
        self.tenant.max_input.into_iter().chain(of_user).min()
    }

    /// Returns the maximum output tokens of a request: the lower of the tenant's and its user's.
    pub fn max_output(&self, user: Option<&ScopeKey>) -> Option<u64> {
        let of_user = user.map_or(&self.each_user, |user| self.bounds_of(user)).max_output;
        self.tenant.max_output.into_iter().chain(of_user).min()
    }

    /// Returns the maximum input tokens of a request to this model.
    pub fn max_input_of(&self, model: ModelId) -> Option<u64> {
        self.models.iter().find(|(id, ..)| *id == model)?.2.max_input
    }

    /// Returns the maximum output tokens of a request to this model.
    pub fn max_output_of(&self, model: ModelId) -> Option<u64> {
        self.models.iter().find(|(id, ..)| *id == model)?.2.max_output
    }

    fn all_bounds(&self) -> impl Iterator<Item = &Bounds> {
        let users = self.named_users.iter().map(|(_, bounds)| bounds);
        [&self.tenant, &self.each_user].into_iter().chain(users).chain(self.models.iter().map(|(.., bounds)| bounds))
    }

    /// Returns whether anything is limited. Named users count, because they may be exempt from the limits of other
    /// users.
    fn binds(&self) -> bool {
        !self.named_users.is_empty() || !self.all_bounds().all(Bounds::is_empty)
    }

    /// Returns whether anything is counted, in addition to bounds on single requests.
    pub fn counts(&self) -> bool {
        self.counts
    }

    /// Returns whether the cost is limited.
    pub fn has_budget(&self) -> bool {
        self.has_budget
    }

    /// Returns whether tokens or their cost are limited, so that the output needs a limit.
    pub fn bounds_output(&self) -> bool {
        self.bounds_output
    }
}
