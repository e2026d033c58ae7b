//! Envoy Gateway's EnvoyPatchPolicy.
