//! What must hold on a real Envoy: one module per promise. `make test` runs them; `ENVOY` chooses the Envoy.

mod identity;
mod standard;
