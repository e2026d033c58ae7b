//! The response cache: which requests it may answer, under which key, what it stores and how it returns it.

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
