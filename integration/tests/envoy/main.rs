//! What must hold on a real Envoy: one module per promise. `make test` runs them; `ENVOY` chooses the Envoy.

mod audit;
mod body;
mod cache;
mod cache_flight;
mod cache_isolation;
mod clients;
mod demo;
mod endpoints;
mod fallback;
mod faults;
mod health;
mod hostile;
mod identity;
mod metrics;
mod outage;
mod quota;
mod quota_redis;
mod reload;
mod routing;
mod secrecy;
mod size;
mod spillover;
mod standard;
mod streaming;
mod timers;
mod unsteady;
