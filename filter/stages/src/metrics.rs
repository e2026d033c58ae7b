//! Ids of the metrics used under one policy, so that each metric is defined only once.

use crate::host::Host;
use pointsman_core::policy::Policy;
use pointsman_core::store::quick_hash::QuickHash;
use pointsman_core::telemetry::metrics::{Metric, MetricKind};
use std::cell::RefCell;
use std::collections::HashMap;

/// Metric ids by metric.
#[derive(Default)]
pub struct Metrics {
    ids: RefCell<HashMap<Metric, u32, QuickHash>>,
}

impl Metrics {
    /// Adds `value` to a counter, or records it in a histogram or gauge. Defines the metric on first use.
    pub fn add(&self, host: &impl Host, policy: &Policy, metric: Metric, value: u64) {
        let mut ids = self.ids.borrow_mut();
        let known = ids.get(&metric).copied().or_else(|| {
            let id = host.define_metric(metric.kind(), &metric.name(policy))?;
            ids.insert(metric, id);
            Some(id)
        });
        match (known, metric.kind()) {
            // Defining a counter already exports it as 0.
            (Some(_), MetricKind::Counter) if value == 0 => {}
            (Some(id), MetricKind::Counter) => host.increment(id, value),
            (Some(id), MetricKind::Histogram | MetricKind::Gauge) => host.record(id, value),
            (None, _) => {}
        }
    }
}
