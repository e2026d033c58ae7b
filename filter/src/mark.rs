//! The custom section `pointsman`, by which the command knows the module: the version that it was built from.
#![allow(unsafe_code)] // Only for the attribute that names the section; this is data that nothing else refers to.

const VERSION: &str = env!("CARGO_PKG_VERSION");

#[used]
#[cfg_attr(target_family = "wasm", unsafe(link_section = "pointsman"))]
static MARK: [u8; VERSION.len()] = match VERSION.as_bytes().first_chunk() {
    Some(bytes) => *bytes,
    None => [0; VERSION.len()],
};
