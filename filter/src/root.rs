//! One plugin configuration: which role it has, and its policy.

use crate::gateway_stage::Gateway;
use crate::generation::Shared;
use crate::host;
use crate::model_stage::ModelStage;
use crate::parked::{self, Ticking, Waitable};
use crate::settlements;
use crate::shared_data::SharedLoad;
use pointsman_core::config::StoreKind;
use pointsman_core::policy::parse::{PluginConfig, plugin_config};
use pointsman_core::quota::report::gauges::PACE_MS;
use proxy_wasm::traits::{Context, HttpContext, RootContext};
use proxy_wasm::types::{BufferType, ContextType, LogLevel};
use std::rc::Rc;

/// The context of one plugin configuration.
pub struct Root {
    id: u32,
    /// How often it is called when no request waits, in milliseconds.
    tick_ms: u64,
    /// Whether requests wait.
    ticking: Ticking,
    role: Role,
}

#[derive(Default)]
enum Role {
    #[default]
    Unconfigured,
    Gateway(Rc<Shared>),
    Model {
        fails_at_end: bool,
    },
}

impl Root {
    /// The context of this id.
    pub fn new(id: u32) -> Self {
        Self { id, tick_ms: 0, ticking: Ticking::default(), role: Role::default() }
    }
}

impl Context for Root {
    fn on_http_call_response(&mut self, id: u32, _: usize, size: usize, _: usize) {
        if !parked::answered(self.id, id, size) {
            settlements::answered(id, size);
            settlements::send();
        }
    }
}

impl RootContext for Root {
    fn on_configure(&mut self, size: usize) -> bool {
        let text = host::buffer(BufferType::PluginConfiguration, 0, size);
        match plugin_config(&text) {
            Ok(PluginConfig::Gateway(mut policy)) => {
                if policy.has_cache {
                    policy.cache.known.agree(&mut SharedLoad::default(), policy.revision);
                }
                self.tick_ms = match policy.counting.store {
                    StoreKind::Redis => settlements::TICK_MS,
                    StoreKind::Local if policy.has_quotas() => PACE_MS,
                    StoreKind::Local => 0,
                };
                if self.tick_ms > 0 {
                    host::set_tick(self.tick_ms);
                }
                self.role = Role::Gateway(Rc::new(Shared::new(*policy)));
            }
            Ok(PluginConfig::Model { fails_at_end }) => self.role = Role::Model { fails_at_end },
            Err(problems) => {
                for problem in problems.iter().take(20) {
                    host::log(LogLevel::Error, &format!("pointsman: invalid policy: {problem}"));
                }
                return false;
            }
        }
        true
    }

    fn on_tick(&mut self) {
        parked::look(self.id, &self.ticking, self.tick_ms);
        if let Role::Gateway(shared) = &self.role {
            shared.refresh_gauges();
        }
        settlements::send();
    }

    fn create_http_context(&self, id: u32) -> Option<Box<dyn HttpContext>> {
        match &self.role {
            Role::Gateway(shared) if shared.policy().has_cache => {
                Some(Box::new(Waitable::new(id, Rc::clone(&self.ticking), Gateway::new(Rc::clone(shared)))))
            }
            Role::Gateway(shared) => Some(Box::new(Gateway::new(Rc::clone(shared)))),
            Role::Model { fails_at_end } => Some(Box::new(ModelStage::new(*fails_at_end))),
            // Never configured, so never asked; a request that came all the same would be refused.
            Role::Unconfigured => Some(Box::new(ModelStage::new(true))),
        }
    }

    fn get_type(&self) -> Option<ContextType> {
        Some(ContextType::HttpContext)
    }
}
