//! What a mesh's control plane does with rendered manifests, and an Envoy with the result.
//!
//! The rules of each control plane are re-written small from its public sources. Where it works on protobuf messages,
//! this works on their JSON form.

pub mod envoy;
pub mod istio;
pub mod json_patch;
pub mod manifests;
pub mod resources;
