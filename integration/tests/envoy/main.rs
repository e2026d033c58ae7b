//! What must hold on a real Envoy: one module per promise. `make test` runs them; `ENVOY` chooses the Envoy.

mod audit;
mod body;
mod clients;
mod demo;
mod endpoints;
mod fallback;
mod faults;
mod hostile;
mod identity;
mod metrics;
mod reload;
mod routing;
mod secrecy;
mod size;
mod standard;
mod streaming;
