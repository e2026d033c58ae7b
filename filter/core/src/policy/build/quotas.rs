//! Builds the limits of tiers and tenants. Each set is built once. Tenants without their own limits share their tier's.

use crate::config;
use crate::config::place::Place;
use crate::config::problem::Problem;
use crate::ids::{ModelId, QuotaId};
use crate::policy::build::names::Names;
use crate::policy::limits::{self, Limits};
use crate::policy::{Model, Tier};
use std::collections::BTreeSet;

/// Builds and collects sets of limits.
pub(super) struct Quotas<'a> {
    models: &'a Names<'a>,
    /// Models without a price.
    unpriced: Vec<(ModelId, &'a str)>,
    /// Tiers whose mistakes have been reported. They are not reported again for each tenant.
    broken: BTreeSet<String>,
    /// The sets, indexed by [`QuotaId`].
    pub(super) built: Vec<Limits>,
}

impl<'a> Quotas<'a> {
    pub(super) fn new(models: &'a Names<'a>, built: &[Model]) -> Self {
        let named = models.sorted.iter().zip(built).enumerate();
        let unpriced =
            named.filter(|(_, (_, m))| m.price.is_none()).map(|(i, (name, _))| (ModelId(i as u16), *name)).collect();
        Self { models, unpriced, broken: BTreeSet::new(), built: Vec::new() }
    }

    pub(super) fn of_tier(
        &mut self,
        name: &str,
        tier: &config::Tier,
        built: &Tier,
        problems: &mut Vec<Problem>,
    ) -> Option<QuotaId> {
        if tier.limits.is_empty() {
            return None;
        }
        let place = Place::of(&["tiers", name, "limits"]);
        let before = problems.len();
        limits::check(&tier.limits, true, &place, problems);
        let id = self.build(&tier.limits, None, &place, built, problems);
        if problems.len() > before {
            self.broken.insert(name.to_owned());
        }
        id
    }

    pub(super) fn of_tenant(
        &mut self,
        name: &str,
        tenant: &config::Tenant,
        tier: Option<&config::Tier>,
        built: Option<&Tier>,
        problems: &mut Vec<Problem>,
    ) -> Option<QuotaId> {
        let (Some(tier), Some(built)) = (tier, built) else { return None };
        if tenant.limits.is_empty() {
            return built.limits;
        }
        let place = Place::of(&["tenants", name, "limits"]);
        limits::check(&tenant.limits, false, &place, problems);
        if self.broken.contains(&*built.name) {
            return None;
        }
        self.build(&tenant.limits.or(&tier.limits), Some(name), &place, built, problems)
    }

    fn build(
        &mut self,
        limits: &config::Limits,
        tenant: Option<&str>,
        place: &Place,
        tier: &Tier,
        problems: &mut Vec<Problem>,
    ) -> Option<QuotaId> {
        let models = self.models;
        let mut find = |name: &str, place: Place, problems: &mut Vec<Problem>| {
            models.find(name, || place, problems).map(|i| ModelId(i as u16))
        };
        let limits = limits::build(limits, tenant, place, &|id| tier.allows(id), &mut find, &self.unpriced, problems)?;
        self.built.push(limits);
        Some(QuotaId(self.built.len() as u32 - 1))
    }
}
