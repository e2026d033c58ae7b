//! A request whose worst case does not fit what is left: the output limit with which it does.

use crate::exchange::quota::state::Verdict;
use crate::exchange::{Exchange, NotSent};
use crate::ids::{ModelId, TaskId};
use crate::policy::Policy;
use crate::policy::limits::Limits;
use crate::policy::output_limit::OutputLimit;
use crate::quota::reservation::{Ask, Scope};
use crate::quota::store::Store;
use crate::quota::window::{Amount, Moment, Unit, WindowStatus};
use crate::quota::{demand, local};
use crate::request::facts::Facts;
use crate::routing::plan::Plan;

/// A request, as far as its worst case depends on it.
#[derive(Clone, Copy)]
pub(super) struct Tight<'a, 'p> {
    pub(super) policy: &'p Policy,
    pub(super) request: &'a Facts<'a>,
    pub(super) task: Option<TaskId>,
    pub(super) output: OutputLimit<'p>,
    /// The corrected estimate is the same in every case.
    pub(super) input: u64,
    pub(super) ask: Ask<'a>,
}

/// How often room is looked for that other requests take at the same time.
const MAX_TRIES: u32 = 3;

impl Exchange {
    /// Reserves with the highest output limit that fits, which is at least `least`. Returns `None` if none fits.
    ///
    /// The limit is computed from the windows as they were, and reserving checks them again, so none is exceeded.
    #[allow(clippy::too_many_arguments)]
    pub(super) fn clamp<'p>(
        &mut self,
        tight: &Tight<'_, 'p>,
        limits: &Limits,
        least: u64,
        window: &'static str,
        moment: &Moment,
        plan: &mut Plan,
        store: &mut dyn Store,
    ) -> Result<Option<OutputLimit<'p>>, NotSent> {
        for _ in 0..MAX_TRIES {
            let statuses = self.standings(tight, limits, moment, store);
            let Some(most) = self.largest_output(tight, &statuses, least) else { return Ok(None) };
            let models = self.with_output(tight, most);
            let ask = Ask { models: &models, ..tight.ask };
            match self.ask(tight.policy, limits, &ask, moment, store)? {
                Ok(grant) => {
                    self.granted(grant, plan);
                    self.quota.worst = models;
                    self.quota.output_limit = Some(most);
                    self.quota.verdict = Some((Verdict::Clamped, window));
                    self.quota.headers.push(("x-pointsman-output-limit", most.to_string().into()));
                    return Ok(Some(tight.output.limited(most)));
                }
                Err(refused) if refused.is_of_tokens() => {}
                Err(_) => return Ok(None),
            }
        }
        Ok(None)
    }

    /// Whether a request would fit with the lowest output limit.
    pub(super) fn is_only_too_large(
        &self,
        tight: &Tight,
        limits: &Limits,
        moment: &Moment,
        store: &mut dyn Store,
    ) -> bool {
        let statuses = self.standings(tight, limits, moment, store);
        self.largest_output(tight, &statuses, 1).is_some()
    }

    /// The windows of a refused request.
    fn standings(
        &self,
        tight: &Tight,
        limits: &Limits,
        moment: &Moment,
        store: &mut dyn Store,
    ) -> Vec<(Scope, WindowStatus)> {
        match self.counts_locally(tight.policy) {
            true => local::look(store, limits, &tight.ask, moment),
            false => self.quota.view.statuses.clone(),
        }
    }

    /// The largest output limit of one choice, from `least` on, with which a request fits next to `statuses`, the
    /// windows as they are. `None` if not even `least` fits. The models that only their own windows leave out stay out.
    pub(super) fn largest_output(&self, tight: &Tight, statuses: &[(Scope, WindowStatus)], least: u64) -> Option<u64> {
        let left_out: Vec<ModelId> = self
            .with_output(tight, least)
            .into_iter()
            .filter(|(id, amount)| !fits(statuses, Scope::Model(*id), &amount.of_model()))
            .map(|(id, _)| id)
            .collect();
        let fits_with = |most: u64| {
            let models = self.with_output(tight, most);
            let ask = Ask { models: &models, ..tight.ask };
            let worst = ask.worst(&left_out);
            let stays = |id: &ModelId| !left_out.contains(id);
            models.iter().any(|(id, _)| stays(id))
                && models
                    .iter()
                    .filter(|(id, _)| stays(id))
                    .all(|(id, amount)| fits(statuses, Scope::Model(*id), &amount.of_model()))
                && [Scope::Tenant, Scope::User].iter().all(|scope| fits(statuses, *scope, &worst))
        };
        if !fits_with(least) {
            return None;
        }
        let models = || tight.ask.models.iter().map(|(id, _)| tight.policy.model(*id).max_output_tokens);
        let (mut low, mut high) = (least, models().max()?.max(least));
        while low < high {
            let middle = low + (high - low).div_ceil(2);
            match fits_with(middle) {
                true => low = middle,
                false => high = middle - 1,
            }
        }
        Some(low)
    }

    /// The worst case of each model with this output limit.
    pub(super) fn with_output(&self, tight: &Tight, most: u64) -> Vec<(ModelId, Amount)> {
        let Tight { policy, request, task, output, input, ask } = *tight;
        let models: Vec<ModelId> = ask.models.iter().map(|(id, _)| *id).collect();
        demand::worst_cases(policy, output.limited(most), request, task, &models, input, |id| {
            self.quota.known_correction(id)
        })
    }
}

/// Whether an amount fits the windows of a scope that count tokens or money.
fn fits(statuses: &[(Scope, WindowStatus)], scope: Scope, amount: &Amount) -> bool {
    let own = statuses.iter().filter(|(of, _)| *of == scope).map(|(_, status)| status);
    own.filter(|status| status.window.unit() != Unit::Requests)
        .all(|status| amount.of(status.window) == 0 || amount.of(status.window) <= status.remaining())
}
