//! The limits of a tenant, validated: nothing left to check.

use crate::config::problem::{Problem, quoted};
use crate::config::{FailureMode, LimitSet, Limited, OnExhausted, Quota, StoreKind};
use crate::identity::keys::UserHash;
use crate::ids::ModelId;
use crate::policy::calendar::Zone;
use crate::quota::window::Windows;
use sha2::{Digest, Sha256};

/// How quotas are counted, for all tenants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Counting {
    /// Where days and months begin.
    pub zone: Zone,
    /// Users that are counted apart in each tenant whose users have limits.
    pub users: u32,
    /// Where counters are kept.
    pub store: StoreKind,
    /// What happens to requests while Redis is away.
    pub failure_mode: FailureMode,
}

/// Everything that limits one tenant, or all tenants of a tier.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Of the tenant as a whole.
    pub tenant: Windows,
    /// Of each of its users, but for those that are named.
    each_user: Bounds,
    /// Of users that are named, by their key, in order.
    named_users: Vec<(ScopeKey, Bounds)>,
    /// Of its use of single models.
    pub models: Vec<(ModelId, ScopeKey, Windows)>,
    /// Most input tokens of a request to single models.
    model_input: Vec<(ModelId, u64)>,
    /// Most output tokens of a request to single models.
    pub model_output: Vec<(ModelId, u64)>,
    /// Most input tokens of a request.
    max_input: Option<u64>,
    /// Most output tokens of a request.
    max_output: Option<u64>,
    /// What happens when a day's or month's quota is used up.
    pub on_exhausted: Exhaustion,
    /// Thousandths of a day's or month's quota from which the degraded model serves.
    pub degrade_at: Option<u64>,
    /// Thousandths of a day's or month's quota at which it is reported, rising; at most eight.
    pub alert_at: Vec<u64>,
    /// Whether nothing is refused.
    pub shadow: bool,
    /// What is asked of every request, worked out once: there may be many users.
    counts: bool,
    bounds_output: bool,
}

/// What limits one user.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Bounds {
    windows: Windows,
    max_input: Option<u64>,
    max_output: Option<u64>,
}

/// What happens to a request when a day's or month's quota is used up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Exhaustion {
    /// It is refused.
    Reject,
    /// This model serves it.
    Degrade(ModelId),
    /// It is answered with this text.
    Template(Box<str>),
}

/// Stands for a user or a model in a record: a whole SHA-256, so that two never meet.
pub type ScopeKey = [u8; 32];

/// The key of all users who are not named.
pub const ANONYMOUS: ScopeKey = [0xff; 32];

/// The key of the tenant itself.
pub const TENANT: ScopeKey = [0; 32];

/// The most of any amount in a policy: what Lua's numbers hold exactly, scaled by the milliseconds of a minute.
const MOST_COUNT: u64 = 100_000_000_000;
const MOST_USD: f64 = 1_000_000_000.0;

/// The key of a model.
pub fn model_key(name: &str) -> ScopeKey {
    Sha256::new().chain_update(b"pointsman.quota.model.v1").chain_update(name).finalize().into()
}

/// Validates how quotas are counted.
pub(crate) fn counting(quota: &Quota, has_redis: bool, problems: &mut Vec<Problem>) -> Counting {
    let Quota { time_zone, time_zone_changes, store, failure_mode, default_price: _, users } = quota;
    if *store == StoreKind::Redis && !has_redis {
        problems.push(Problem::new("quota.store", "redis needs the section `redis`, which names its bridge"));
    }
    let zone = Zone::new(time_zone, time_zone_changes).unwrap_or_else(|message| {
        problems.push(Problem::new("quota.time_zone", format!("{} {message}", quoted(time_zone))));
        Zone::fixed(0)
    });
    if !(16..=65_536).contains(users) {
        problems.push(Problem::new("quota.users", format!("{users} is not within 16 and 65536")));
    }
    Counting { zone, users: *users, store: *store, failure_mode: *failure_mode }
}

/// Reports everything that is wrong in what a tier or a tenant says, at its place.
pub(crate) fn check(said: &Limited, place: &str, problems: &mut Vec<Problem>) {
    let Limited { own, per_user, users, per_model, on_exhausted, degrade_at, alert_at, shadow: _ } = said;
    check_set(own, place, problems);
    check_set(per_user, &format!("{place}.per_user"), problems);
    for (user, set) in users {
        let place = format!("{place}.users.{user}");
        if user.is_empty() || user.len() > 256 {
            problems.push(Problem::new(&*place, "a user's id has 1 to 256 bytes"));
        }
        check_set(set, &place, problems);
    }
    for (model, set) in per_model {
        check_set(set, &format!("{place}.per_model.{model}"), problems);
    }
    let share = |share: f64| (0.001..=1.0).contains(&share);
    if degrade_at.is_some_and(|at| !share(at)) {
        problems.push(Problem::new(format!("{place}.degrade_at"), "is a share from 0.001 to 1"));
    }
    if let Some(shares) = alert_at
        && (shares.len() > 8 || !shares.iter().all(|at| share(*at)))
    {
        problems.push(Problem::new(format!("{place}.alert_at"), "holds at most 8 shares from 0.001 to 1"));
    }
    if let Some(OnExhausted::Template(text)) = on_exhausted
        && (text.trim().is_empty() || text.len() > 4096)
    {
        problems.push(Problem::new(format!("{place}.on_exhausted.template"), "is a text of 1 to 4096 bytes"));
    }
}

fn check_set(set: &LimitSet, place: &str, problems: &mut Vec<Problem>) {
    let LimitSet {
        requests_per_minute,
        tokens_per_minute,
        burst,
        tokens_per_day,
        budget_usd_per_day,
        budget_usd_per_month,
        concurrent,
        max_input_tokens,
        max_output_tokens,
    } = set;
    let counts = [
        ("requests_per_minute", *requests_per_minute),
        ("tokens_per_minute", *tokens_per_minute),
        ("tokens_per_day", *tokens_per_day),
        ("concurrent", concurrent.map(u64::from)),
        ("max_input_tokens", *max_input_tokens),
        ("max_output_tokens", *max_output_tokens),
    ];
    for (field, count) in counts {
        if count.is_some_and(|count| !(1..=MOST_COUNT).contains(&count)) {
            problems.push(Problem::new(
                format!("{place}.{field}"),
                format!("{} is not within 1 and {MOST_COUNT}", count.unwrap_or(0)),
            ));
        }
    }
    for (field, usd) in [("budget_usd_per_day", budget_usd_per_day), ("budget_usd_per_month", budget_usd_per_month)] {
        if let Some(usd) = usd
            && micro_usd(*usd).is_none()
        {
            problems.push(Problem::new(
                format!("{place}.{field}"),
                format!("{usd} is not an amount of US dollars from 0 to {MOST_USD} with at most six decimals"),
            ));
        }
    }
    if let Some(burst) = burst
        && !(1..=3_600_000).contains(&burst.0)
    {
        problems.push(Problem::new(format!("{place}.burst"), format!("{}ms is not within 1ms and 1h", burst.0)));
    }
}

fn micro_usd(usd: f64) -> Option<u64> {
    if !(0.0..=MOST_USD).contains(&usd) {
        return None;
    }
    let exact = (usd * 1e6).round();
    ((exact / 1e6 - usd).abs() <= f64::EPSILON * usd.max(1.0)).then_some(exact as u64)
}

fn windows(set: &LimitSet) -> Windows {
    Windows {
        requests_per_minute: set.requests_per_minute,
        tokens_per_minute: set.tokens_per_minute,
        burst_ms: set.burst.map_or(60_000, |burst| burst.0),
        tokens_per_day: set.tokens_per_day,
        budget_per_day: set.budget_usd_per_day.and_then(micro_usd),
        budget_per_month: set.budget_usd_per_month.and_then(micro_usd),
        concurrent: set.concurrent.map(u64::from),
    }
}

fn bounds(set: &LimitSet) -> Bounds {
    Bounds { windows: windows(set), max_input: set.max_input_tokens, max_output: set.max_output_tokens }
}

/// Looks a model up by its name, and reports a name that is none's at its place.
type FindModel<'a> = dyn FnMut(&str, String, &mut Vec<Problem>) -> Option<ModelId> + 'a;

/// What a tenant's limits are, its tier's included; `None` where nothing is limited. What is wrong with the parts has
/// been reported by [`check`]; what is wrong with the whole is reported here.
///
/// `tenant`: its name; `None` for what all tenants of a tier have.
pub(crate) fn build(
    said: &Limited,
    tenant: Option<&str>,
    place: &str,
    allowed: &dyn Fn(ModelId) -> bool,
    find: &mut FindModel,
    unpriced: &[(ModelId, &str)],
    problems: &mut Vec<Problem>,
) -> Option<Limits> {
    let Limited { own, per_user, users, per_model, on_exhausted, degrade_at, alert_at, shadow } = said;
    let (mut models, mut model_input, mut model_output) = (Vec::new(), Vec::new(), Vec::new());
    for (name, set) in per_model {
        if let Some(id) = find(name, format!("{place}.per_model.{name}"), problems) {
            let Bounds { windows, max_input, max_output } = bounds(set);
            if !windows.is_empty() {
                models.push((id, model_key(name), windows));
            }
            model_input.extend(max_input.map(|most| (id, most)));
            model_output.extend(max_output.map(|most| (id, most)));
        }
    }
    let on_exhausted = match on_exhausted {
        None | Some(OnExhausted::Reject) => Exhaustion::Reject,
        Some(OnExhausted::Template(text)) => Exhaustion::Template(text.as_str().into()),
        Some(OnExhausted::Degrade(name)) => match find(name, format!("{place}.on_exhausted.degrade"), problems) {
            Some(id) => {
                if !allowed(id) {
                    let message = format!("the tier does not allow the model {}", quoted(name));
                    problems.push(Problem::new(format!("{place}.on_exhausted.degrade"), message));
                }
                Exhaustion::Degrade(id)
            }
            None => Exhaustion::Reject,
        },
    };
    if degrade_at.is_some() && !matches!(on_exhausted, Exhaustion::Degrade(_)) {
        let message = "needs `on_exhausted: {degrade: MODEL}`, which names the model that serves from there on";
        problems.push(Problem::new(format!("{place}.degrade_at"), message));
    }
    let has_budget = |set: &LimitSet| set.budget_usd_per_day.is_some() || set.budget_usd_per_month.is_some();
    for (_, name) in unpriced.iter().filter(|(model, _)| allowed(*model)) {
        let own_budget = per_model.get(*name).is_some_and(has_budget);
        if has_budget(own) || has_budget(per_user) || users.values().any(has_budget) || own_budget {
            let message = format!(
                "a budget applies to the model {}, which has no price; give it one, or set `quota.default_price`",
                quoted(name)
            );
            problems.push(Problem::new(place, message));
        }
    }
    let mut named_users = Vec::with_capacity(users.len());
    for (user, set) in users {
        let key = UserHash::new(tenant.unwrap_or_default(), user.as_bytes()).0;
        named_users.push((key, bounds(&set.or(per_user))));
    }
    named_users.sort_unstable_by_key(|(key, _)| *key);
    let mut limits = Limits {
        tenant: windows(own),
        each_user: bounds(per_user),
        named_users,
        models,
        model_input,
        model_output,
        max_input: own.max_input_tokens,
        max_output: own.max_output_tokens,
        on_exhausted,
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
    };
    let all = || limits.all_windows();
    (limits.counts, limits.bounds_output) = (!all().all(Windows::is_empty), all().any(Windows::counts_tokens));
    limits.binds().then_some(limits)
}

fn thousandths(share: f64) -> u64 {
    (share * 1000.0).round().clamp(0.0, 1000.0) as u64
}

impl Limits {
    /// What limits a user.
    fn bounds_of(&self, user: &ScopeKey) -> &Bounds {
        let named = self.named_users.binary_search_by_key(user, |(key, _)| *key).ok();
        named.and_then(|at| self.named_users.get(at)).map_or(&self.each_user, |(_, bounds)| bounds)
    }

    /// The windows of a user; `None` where it has none.
    pub fn user(&self, user: &ScopeKey) -> Option<&Windows> {
        Some(&self.bounds_of(user).windows).filter(|windows| !windows.is_empty())
    }

    /// Most input tokens of a request: the tenant's, or its user's where those are fewer.
    pub fn max_input(&self, user: Option<&ScopeKey>) -> Option<u64> {
        let of_user = user.map_or(&self.each_user, |user| self.bounds_of(user)).max_input;
        self.max_input.into_iter().chain(of_user).min()
    }

    /// Most output tokens of a request: the tenant's, or its user's where those are fewer.
    pub fn max_output(&self, user: Option<&ScopeKey>) -> Option<u64> {
        let of_user = user.map_or(&self.each_user, |user| self.bounds_of(user)).max_output;
        self.max_output.into_iter().chain(of_user).min()
    }

    /// Most input tokens of a request to this model.
    pub fn max_input_of(&self, model: ModelId) -> Option<u64> {
        self.model_input.iter().find(|(id, _)| *id == model).map(|(_, most)| *most)
    }

    fn all_windows(&self) -> impl Iterator<Item = &Windows> {
        let users = self.named_users.iter().map(|(_, bounds)| &bounds.windows).chain([&self.each_user.windows]);
        std::iter::once(&self.tenant).chain(users).chain(self.models.iter().map(|(_, _, windows)| windows))
    }

    /// Whether anything is limited.
    fn binds(&self) -> bool {
        self.counts()
            || !self.named_users.is_empty()
            || !self.model_input.is_empty()
            || !self.model_output.is_empty()
            || [self.max_input, self.max_output, self.each_user.max_input, self.each_user.max_output]
                .iter()
                .any(Option::is_some)
    }

    /// Whether anything is counted, beyond bounds of single requests.
    pub fn counts(&self) -> bool {
        self.counts
    }

    /// Whether tokens or their cost are limited, so that an answer needs a bound.
    pub fn bounds_output(&self) -> bool {
        self.bounds_output
    }
}
