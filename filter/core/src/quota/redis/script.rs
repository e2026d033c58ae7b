//! The quota steps in Redis, for several Envoys and for budgets that survive a restart: one script over all scopes.
//!
//! Every reservation has an id. Under it, Redis keeps what is reserved until settlement, and then a marker that it is
//! settled. Running a step twice has the effect of running it once, so a call that got lost can be repeated.

use crate::ids::ModelId;
use crate::policy::calendar::{Period, Zone};
use crate::policy::limits::{Limits, ScopeKey};
use crate::quota::counters::{Counters, Lease, capacity};
use crate::quota::reservation::{Ask, Charge, Grant, Refused, RemoteReservation, Reservation, Scope, Settled, View};
use crate::quota::window::{Amount, Moment, Span, Window, WindowStatus, Windows};
use crate::wire::http_call::{HttpCall, HttpCallResult};
use crate::wire::redis::{self, Bridge, Failure};

/// The Lua script.
pub const SCRIPT: &str = include_str!("ledger.lua");
/// SHA-1 of `SCRIPT`, for `EVALSHA`. A test checks it.
const SCRIPT_SHA1: &str = "2873b3f504f108dd5b57032ad1997ba222ac9bcb";

/// How long a settled reservation is remembered, in seconds. Within this time a settlement can be repeated safely.
pub const REMEMBERED_S: u64 = 3600;

/// One run of the script.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    keys: Vec<String>,
    arguments: Vec<String>,
}

/// Returns the key of a reservation. The braces keep all keys of a tenant in one slot of a Redis cluster.
fn reservation_key(tenant: &str, id: &str) -> String {
    format!("pointsman:quota:{{{tenant}}}:r:{id}")
}

impl Run {
    fn new(operation: &str, tenant: &str, id: &str) -> Self {
        Self { keys: vec![reservation_key(tenant, id)], arguments: vec![operation.to_owned()] }
    }

    fn number(&mut self, number: u64) {
        self.arguments.push(number.to_string());
    }

    fn numbers(&mut self, numbers: &[u64]) {
        numbers.iter().for_each(|number| self.number(*number));
    }

    /// Adds a limit, or -1 for none.
    fn limit(&mut self, limit: Option<u64>) {
        self.arguments.push(limit.map_or_else(|| "-1".to_owned(), |limit| limit.to_string()));
    }

    /// Makes the script use this time, in milliseconds since the Unix epoch, instead of the Redis clock. For tests.
    pub fn at(mut self, now_ms: u64) -> Self {
        if let Some(time) = self.arguments.get_mut(1) {
            *time = now_ms.to_string();
        }
        self
    }

    /// Returns the script's keys.
    pub fn keys(&self) -> &[String] {
        &self.keys
    }

    /// Returns the script's arguments.
    pub fn arguments(&self) -> &[String] {
        &self.arguments
    }

    /// Returns the HTTP call that runs the script. `known`: whether Redis has seen the script, so that its SHA-1 is
    /// enough.
    pub fn call(&self, bridge: &Bridge, known: bool) -> HttpCall {
        let count = self.keys.len().to_string();
        let (command, script) = if known { ("EVALSHA", SCRIPT_SHA1) } else { ("EVAL", SCRIPT) };
        let mut all: Vec<&[u8]> = vec![command.as_bytes(), script.as_bytes(), count.as_bytes()];
        all.extend(self.keys.iter().chain(&self.arguments).map(|text| text.as_bytes()));
        bridge.command(&all)
    }
}

/// Returns whether Redis answered that it does not know the script.
pub fn is_unknown(answered: &HttpCallResult) -> bool {
    matches!(redis::answer(answered), Err(Failure::Refused(why)) if why.starts_with("NOSCRIPT"))
}

/// Returns the scopes of a request that have limits, in the order of the script's keys.
fn scopes<'a>(
    limits: &'a Limits,
    user: &ScopeKey,
    tenant: &str,
    models: impl Iterator<Item = ModelId>,
) -> Vec<(Scope, &'a Windows, String)> {
    let hex = |key: &ScopeKey| key.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let mut all = Vec::new();
    if let Some(windows) = limits.user(user) {
        all.push((Scope::User, windows, format!("pointsman:quota:{{{tenant}}}:u:{}", hex(user))));
    }
    if !limits.tenant().is_empty() {
        all.push((Scope::Tenant, limits.tenant(), format!("pointsman:quota:{{{tenant}}}:t")));
    }
    for id in models {
        if let Some((key, windows)) = limits.model(id)
            && !all.iter().any(|(scope, ..)| *scope == Scope::Model(id))
        {
            all.push((Scope::Model(id), windows, format!("pointsman:quota:{{{tenant}}}:m:{}", hex(key))));
        }
    }
    all
}

/// Adds the time and the scopes, in the order in which the script reads them. `users`: how many users of the tenant may
/// have a key.
fn write_scopes(
    run: &mut Run,
    (limits, tenant, users): (&Limits, &str, u32),
    scopes: Vec<(Scope, &Windows, String)>,
    moment: &Moment,
    lease_ms: Option<u64>,
    share: Option<u64>,
) {
    let lease_s = lease_ms.unwrap_or(0).div_ceil(1000);
    // 0 stands for the Redis clock.
    run.number(0);
    for Period { number, begins_ms, ends_ms } in [moment.day, moment.month] {
        run.numbers(&[u64::from(number), begins_ms, ends_ms]);
    }
    run.limit(lease_ms);
    run.numbers(&[lease_s + REMEMBERED_S, u64::from(limits.shadow), u64::from(users), scopes.len() as u64]);
    let has_user = scopes.iter().any(|(scope, ..)| *scope == Scope::User);
    for (scope, windows, key) in scopes {
        run.keys.push(key);
        run.number(match scope {
            Scope::Tenant => 0,
            Scope::User => 1,
            Scope::Model(_) => 2,
        });
        for window in Window::ALL {
            let limit = windows.limit(window);
            run.limit(limit);
            if window.span() == Span::Minute {
                run.limit(limit.map(|limit| capacity(limit, windows.burst_ms)));
            }
        }
        let calendar = Window::CALENDAR.map(|window| windows.limit(window));
        let threshold = |limit: Option<u64>, share: Option<u64>| Some(limit?.saturating_mul(share?).div_ceil(1000));
        let heeded = share.filter(|_| !matches!(scope, Scope::Model(_)));
        calendar.iter().for_each(|limit| run.limit(threshold(*limit, heeded)));
        let alerts: &[u64] = if scope == Scope::Tenant { &limits.alert_at } else { &[] };
        run.number(alerts.len() as u64);
        run.numbers(alerts);
        for limit in calendar {
            alerts.iter().for_each(|share| run.limit(threshold(limit, Some(*share))));
        }
    }
    if has_user {
        let index = |name| format!("pointsman:quota:{{{tenant}}}:users:{name}");
        run.keys.extend([index("use"), index("expiry")]);
    }
}

fn models_of(ask: &Ask) -> Vec<ModelId> {
    ask.models.iter().map(|(id, _)| *id).collect()
}

/// Returns the run that reserves. `users`: how many users of the tenant may have counters.
pub fn reserve(limits: &Limits, users: u32, id: &str, ask: &Ask, moment: &Moment) -> Run {
    let mut run = Run::new("reserve", ask.tenant, id);
    let scopes = scopes(limits, ask.user, ask.tenant, models_of(ask).into_iter());
    let places: Vec<_> = scopes.iter().map(|(scope, ..)| *scope).collect();
    write_scopes(
        &mut run,
        (limits, ask.tenant, users),
        scopes,
        moment,
        ask.lease_ms,
        limits.degrade_at.filter(|_| ask.stop_at_degrade_threshold),
    );
    run.numbers(&[u64::from(ask.adds_up), ask.models.len() as u64]);
    for (id, amount) in ask.models {
        let place = places.iter().position(|scope| *scope == Scope::Model(*id)).map_or(0, |at| at as u64 + 1);
        run.numbers(&[amount.tokens, amount.day_tokens, amount.cost, place]);
    }
    run
}

/// The verdict on a request. If it was refused, also the status of its windows.
pub type Answer = (Result<Grant, Refused>, View);

/// Reads the answer to `reserve`.
///
/// # Errors
/// [`Failure`] if Redis is unavailable, or if the answer does not match this request.
pub fn reserved(
    limits: &Limits,
    zone: &Zone,
    id: &str,
    ask: &Ask,
    answered: &HttpCallResult,
) -> Result<Answer, Failure> {
    let scopes = scopes(limits, ask.user, ask.tenant, models_of(ask).into_iter());
    let mut reader = Reader::of("reserve", ask.tenant, id, answered)?;
    let moment = &reader.moment(zone)?;
    let (verdict, place, share) = (reader.next()?, reader.next()?, reader.next()?);
    let (evicted, count) = (reader.next()?, reader.next()?);
    let mut full_models = Vec::new();
    for _ in 0..count {
        let at = reader.next()? as usize;
        let model = at.checked_sub(1).and_then(|at| ask.models.get(at)).ok_or(Failure::Malformed)?;
        full_models.push(model.0);
    }
    let mut counters = Vec::with_capacity(scopes.len());
    for _ in &scopes {
        counters.push(reader.counters(moment)?);
    }
    // The script does not name the window. It is found here, from the same numbers.
    let why = |place: u64| -> Option<Refused> {
        let at = (place as usize).checked_sub(1)?;
        let ((scope, windows, _), counters) = (scopes.get(at)?, counters.get(at)?);
        let want = match scope {
            Scope::Model(id) => ask.models.iter().find(|(known, _)| known == id)?.1.of_model(),
            Scope::User | Scope::Tenant => ask.worst(&full_models),
        };
        // If the request was admitted in shadow mode, the counters already include it.
        let mut counters = counters.clone();
        if verdict == 1 {
            counters.take_back(windows, &want, ask.lease_ms.is_some());
        }
        match (share, counters.full(windows, &ask.want(want), moment)) {
            (0, Some(full)) => Some(Refused::Full(*scope, full)),
            (0, None) => None,
            _ => Some(Refused::Share(*scope, counters.reached(windows, limits.degrade_at.unwrap_or(0))?)),
        }
    };
    if verdict != 1 {
        let mut refused = why(place).ok_or(Failure::Malformed)?;
        if matches!(refused, Refused::Full(Scope::Model(_), _)) {
            // No model has room. Report the window that has room first.
            let place_of = |id: &ModelId| scopes.iter().position(|(scope, ..)| *scope == Scope::Model(*id));
            let all = full_models.iter().filter_map(|id| why(place_of(id)? as u64 + 1));
            refused = all.min_by_key(Refused::wait_ms).unwrap_or(refused);
        } else if matches!(refused, Refused::Full(Scope::User, _)) {
            // The script checked only the user. The tenant may have to wait longer.
            let tenant = scopes.iter().zip(&counters).find(|((scope, ..), _)| *scope == Scope::Tenant);
            let full = tenant.and_then(|((_, windows, _), counters)| {
                counters.full(windows, &ask.want(ask.worst(&[])), moment).map(|full| Refused::Full(Scope::Tenant, full))
            });
            refused = refused.or_longer(full);
        }
        let mut view = View::default();
        for ((scope, windows, _), mut counters) in scopes.into_iter().zip(counters) {
            let statuses = counters.statuses(windows, moment);
            view.statuses.extend(statuses.into_iter().map(|status| (scope, status)));
            if scope == Scope::Tenant {
                let crossed = counters.tell(windows, &limits.alert_at);
                view.crossed.extend(crossed.into_iter().map(|crossed| (scope, crossed)));
            }
        }
        return Ok((Err(refused), view));
    }
    let shadowed = why(place);
    let mut grant = Grant { full_models, shadowed, evicted, ..Grant::unheld(Reservation::remote(ask, id)) };
    for ((scope, windows, _), mut counters) in scopes.into_iter().zip(counters) {
        if matches!(scope, Scope::Model(id) if grant.full_models.contains(&id)) {
            continue;
        }
        let statuses = counters.statuses(windows, moment);
        grant.statuses.extend(statuses.into_iter().map(|status| (scope, status)));
        if scope == Scope::Tenant {
            grant.crossed = counters.tell(windows, &limits.alert_at).into_iter().map(|c| (scope, c)).collect();
        }
    }
    Ok((Ok(grant), View::default()))
}

/// Returns the run that settles. Without charges, nothing was used. `users`: how many users of the tenant may have
/// counters.
pub fn settle(
    limits: &Limits,
    (tenant, users): (&str, u32),
    held: &RemoteReservation,
    charges: &[Charge],
    moment: &Moment,
) -> Run {
    let mut run = Run::new("settle", tenant, &held.id);
    let scopes = scopes(limits, &held.user, tenant, held.models.iter().copied());
    let charged = scopes.iter().enumerate().filter_map(|(at, (scope, ..))| match scope {
        Scope::Model(id) => charges.iter().any(|charge| charge.model == *id).then_some((at as u64 + 1, *id)),
        Scope::User | Scope::Tenant => None,
    });
    let charged: Vec<_> = charged.collect();
    write_scopes(&mut run, (limits, tenant, users), scopes, moment, Some(0), None);
    let used = Charge::sum(charges);
    run.numbers(&[used.tokens, used.day_tokens, used.cost, charged.len() as u64]);
    for (place, id) in charged {
        let own = Charge::of_model(charges, id);
        run.numbers(&[place, own.tokens, own.day_tokens, own.cost]);
    }
    run
}

/// Reads the answer to `settle`.
///
/// # Errors
/// [`Failure`] if Redis is unavailable. The settlement can then be repeated.
pub fn settled(
    limits: &Limits,
    zone: &Zone,
    tenant: &str,
    held: &RemoteReservation,
    answered: &HttpCallResult,
) -> Result<Settled, Failure> {
    let mut reader = Reader::of("settle", tenant, &held.id, answered)?;
    let moment = &reader.moment(zone)?;
    let is_first = reader.next()? == 1;
    let mut settled = Settled::default();
    for (scope, windows, _) in scopes(limits, &held.user, tenant, held.models.iter().copied()) {
        let mut counters = reader.counters(moment)?;
        if scope == Scope::Tenant && is_first {
            settled.crossed = counters.report(windows, &limits.alert_at);
            settled.statuses = counters.statuses(windows, moment);
        }
    }
    Ok(settled)
}

/// Returns the run that only reads. `id` identifies the answer.
pub fn look(limits: &Limits, id: &str, ask: &Ask, moment: &Moment) -> Run {
    let mut run = Run::new("look", ask.tenant, id);
    let all = limits.models().map(|(id, ..)| id);
    let scopes = scopes(limits, ask.user, ask.tenant, all);
    write_scopes(&mut run, (limits, ask.tenant, 0), scopes, moment, None, None);
    run
}

/// Reads the answer to `look`: the status of all windows, and its time in milliseconds since the Unix epoch.
///
/// # Errors
/// [`Failure`] if Redis is unavailable, or if the answer does not match this request.
pub fn looked(
    limits: &Limits,
    zone: &Zone,
    id: &str,
    ask: &Ask,
    answered: &HttpCallResult,
) -> Result<(Vec<(Scope, WindowStatus)>, u64), Failure> {
    let mut reader = Reader::of("look", ask.tenant, id, answered)?;
    let moment = &reader.moment(zone)?;
    let mut all = Vec::new();
    for (scope, windows, _) in scopes(limits, ask.user, ask.tenant, limits.models().map(|(id, ..)| id)) {
        let statuses = reader.counters(moment)?.statuses(windows, moment);
        all.extend(statuses.into_iter().map(|status| (scope, status)));
    }
    Ok((all, moment.now_ms))
}

/// The numbers in the script's answer.
struct Reader(std::vec::IntoIter<u64>);

impl Reader {
    /// Reads the answer to one question and rejects any other. Before version 0.1.20, webdis may send the answer for a
    /// client that has disconnected to the next one that connects.
    fn of(operation: &str, tenant: &str, id: &str, answered: &HttpCallResult) -> Result<Self, Failure> {
        let redis::Value::Array(all) = redis::answer(answered)? else { return Err(Failure::Malformed) };
        let mut all = all.into_iter();
        let question = format!("{operation} {}", reservation_key(tenant, id));
        if all.next() != Some(redis::Value::Bytes(question.as_bytes())) {
            return Err(Failure::Malformed);
        }
        let number = |value: redis::Value| value.integer().and_then(|n| u64::try_from(n).ok());
        let numbers: Vec<_> = all.map(|value| number(value).ok_or(Failure::Malformed)).collect::<Result<_, _>>()?;
        Ok(Self(numbers.into_iter()))
    }

    fn next(&mut self) -> Result<u64, Failure> {
        self.0.next().ok_or(Failure::Malformed)
    }

    /// Reads a share, in thousandths.
    fn share(&mut self) -> Result<u16, Failure> {
        u16::try_from(self.next()?).map_err(|_| Failure::Malformed)
    }

    fn int(&mut self) -> Result<u32, Failure> {
        u32::try_from(self.next()?).map_err(|_| Failure::Malformed)
    }

    /// Reads the time at which the script ran, by the Redis clock.
    fn moment(&mut self, zone: &Zone) -> Result<Moment, Failure> {
        Ok(Moment::new(zone, self.next()?))
    }

    /// Reads the counters of one scope. All its reservations arrive as one sum.
    fn counters(&mut self, moment: &Moment) -> Result<Counters, Failure> {
        let at_ms = self.next()?.max(moment.now_ms);
        let (requests, tokens, day, day_tokens) = (self.next()?, self.next()?, self.int()?, self.next()?);
        let (day_cost, month, month_cost) = (self.next()?, self.int()?, self.next()?);
        let reported = [self.share()?, self.share()?, self.share()?];
        let told = [self.share()?, self.share()?, self.share()?];
        let count = self.int()?;
        let held = Amount { tokens: self.next()?, day_tokens: self.next()?, cost: self.next()? };
        let leases = if count > 0 { vec![Lease { expires: u32::MAX, count, held }] } else { Vec::new() };
        // The script has already drained the buckets.
        let rates = [None; 2];
        Ok(Counters {
            at_ms,
            requests,
            tokens,
            rates,
            day,
            day_tokens,
            day_cost,
            month,
            month_cost,
            reported,
            told,
            leases,
        })
    }
}

#[cfg(test)]
mod tests;
