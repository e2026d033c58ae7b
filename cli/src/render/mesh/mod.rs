//! Rendering for a mesh: Kubernetes objects by which a control plane gives its Envoys the gateway.

pub mod args;
pub mod image;
pub mod pod;
pub mod reserved;
pub mod version;
