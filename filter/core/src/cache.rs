//! A cache of answers that cannot leak: which requests, under which key, what is kept, and how it is given back.

pub mod coalesce;
pub mod eligibility;
pub mod entry;
#[cfg(test)]
pub(crate) mod fixture;
pub mod key;
pub mod local;
pub mod normal_form;
pub mod question;
pub mod redis;
pub mod worker;
