//! One plugin configuration: its role, its policy, and the streams that it creates.

use crate::gateway_stage::GatewayStage;
use crate::generation::PolicyGeneration;
use crate::host::{CallId, ContextId, Host, LogLevel};
use crate::model_stage::ModelStage;
use crate::parked::{self, ParkableRequest};
use crate::settlements;
use crate::timer::{Need, Timer};
use crate::worker::Worker;
use pointsman_core::config::StoreKind;
use pointsman_core::policy::parse::{PluginConfig, plugin_config};
use pointsman_core::quota::report::gauges::THROTTLE_MS;
use std::rc::Rc;

/// The number of problems of a configuration that are logged.
const MAX_PROBLEMS: usize = 20;

/// One plugin configuration.
pub struct Plugin<H: Host> {
    id: ContextId,
    worker: Worker<H>,
    timer: Rc<Timer>,
    role: Role<H>,
}

enum Role<H: Host> {
    Unconfigured,
    Gateway(Rc<PolicyGeneration<H>>),
    Model { fails_at_end: bool },
}

/// A stream that a plugin has created.
#[allow(clippy::large_enum_variant)] // The host destructures it immediately.
pub enum Stream<H: Host> {
    /// A request at the gateway stage.
    Gateway(GatewayStage<H>),
    /// A request at the gateway stage that may wait for another one.
    Parkable(ParkableRequest<H>),
    /// An attempt at the model stage.
    Model(ModelStage<H>),
}

impl<H: Host> Plugin<H> {
    /// Creates the plugin of the context `id`, not yet configured.
    pub fn new(id: ContextId, worker: Worker<H>) -> Self {
        Self { id, worker, timer: Rc::default(), role: Role::Unconfigured }
    }

    /// Applies a configuration. Returns whether it is valid, and logs its problems if it is not.
    pub fn on_configure(&mut self, text: &[u8]) -> bool {
        let host = self.worker.host.host();
        match plugin_config(text) {
            Ok(PluginConfig::Gateway(policy)) => {
                let tick_ms = match policy.counting.store {
                    StoreKind::Redis => settlements::TICK_MS,
                    StoreKind::Local if policy.has_quotas() => THROTTLE_MS,
                    StoreKind::Local => 0,
                };
                self.timer.need(host, Need::Plugin, tick_ms);
                let generation = PolicyGeneration::new(&self.worker.host, *policy, &self.timer);
                self.role = Role::Gateway(Rc::new(generation));
            }
            Ok(PluginConfig::Model { fails_at_end }) => self.role = Role::Model { fails_at_end },
            Err(problems) => {
                for problem in problems.iter().take(MAX_PROBLEMS) {
                    host.log(LogLevel::Error, &format!("pointsman: invalid policy: {problem}"));
                }
                return false;
            }
        }
        true
    }

    /// Handles the tick that [`Host::set_tick`] requested.
    pub fn on_tick(&mut self) {
        let host = self.worker.host.host();
        parked::look(host, &self.worker.parked, self.id, &self.timer);
        if let Role::Gateway(generation) = &self.role {
            generation.lingering().reset_due(host, self.id);
            for look in generation.refresh_gauges() {
                self.worker.settlements.push(generation, look);
            }
        }
        self.worker.settlements.send(host);
    }

    /// Handles the end of a call made in the plugin's context, with a response body of `size` bytes.
    pub fn on_call_end(&mut self, call: CallId, size: usize) {
        let Worker { host, settlements, parked } = &self.worker;
        if !parked::on_call_end(host.host(), parked, self.id, call, size) {
            settlements.on_call_end(host.host(), call, size);
            settlements.send(host.host());
        }
    }

    /// Creates the stage for a new stream whose context is `id`.
    pub fn create_stream(&self, id: ContextId) -> Stream<H> {
        match &self.role {
            Role::Gateway(generation) => {
                let gateway = GatewayStage::new(id, Rc::clone(generation), Rc::clone(&self.worker.settlements));
                match generation.policy().has_cache {
                    true => Stream::Parkable(ParkableRequest::new(
                        id,
                        Rc::clone(&self.timer),
                        Rc::clone(&self.worker.parked),
                        gateway,
                    )),
                    false => Stream::Gateway(gateway),
                }
            }
            Role::Model { fails_at_end } => Stream::Model(ModelStage::new(Rc::clone(&self.worker.host), *fails_at_end)),
            // The host never creates streams of an unconfigured plugin. The model stage would refuse such a request.
            Role::Unconfigured => Stream::Model(ModelStage::new(Rc::clone(&self.worker.host), true)),
        }
    }
}
