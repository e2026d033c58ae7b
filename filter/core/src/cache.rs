//! A cache of answers that cannot leak: which requests, under which key, what is kept, and how it is given back.

pub mod canonical;
pub mod completion;
pub mod control;
pub mod eligible;
pub mod entry;
#[cfg(test)]
mod fixture;
pub mod flight;
pub mod hot;
pub mod key;
pub mod known;
pub mod marks;
mod memo;
pub mod recording;
pub mod remote;
pub mod rules;
pub mod table;
pub mod transcript;
