//! The quota steps in Envoy's shared data.

pub mod record;
pub mod reserve;
pub mod settle;
#[cfg(test)]
mod tests;
pub mod user_record;
#[cfg(test)]
mod users_tests;
pub mod view;
mod visit;

pub use reserve::reserve;
pub use settle::settle;
pub use view::{look, view};
