//! The names of a policy section, and the problem that an unknown name causes.

use crate::config::place::Place;
use crate::config::problem::{Problem, quoted};
use std::collections::BTreeMap;

/// The names of one section, sorted. Their indices become ids.
pub(super) struct Names<'a> {
    singular: &'static str,
    plural: &'static str,
    needed: bool,
    pub(super) sorted: Vec<&'a str>,
}

impl<'a> Names<'a> {
    /// Collects the names. Reports a section that is too small or too large.
    pub(super) fn of<T>(
        (singular, plural): (&'static str, &'static str),
        section: &'a BTreeMap<String, T>,
        (least, most): (usize, usize),
        problems: &mut Vec<Problem>,
    ) -> Self {
        if section.len() < least {
            problems.push(Problem::new(plural, format!("at least one {singular} is required")));
        }
        if section.len() > most {
            problems.push(Problem::new(plural, format!("{} entries; at most {most} are supported", section.len())));
        }
        Self { singular, plural, needed: least > 0, sorted: section.keys().map(String::as_str).collect() }
    }

    pub(super) fn find(&self, name: &str, place: impl FnOnce() -> Place, problems: &mut Vec<Problem>) -> Option<usize> {
        let found = self.sorted.binary_search(&name).ok();
        // A required section that is empty has already been reported.
        let said = self.sorted.is_empty() && self.needed;
        if found.is_none() && !said {
            let some: Vec<_> = self.sorted.iter().take(20).copied().collect();
            let more = if self.sorted.len() > some.len() { ", …" } else { "" };
            let have = if some.is_empty() { "none".to_owned() } else { format!("{}{more}", some.join(", ")) };
            problems.push(Problem::new(
                place(),
                format!("unknown {} {}; known {}: {have}", self.singular, quoted(name), self.plural),
            ));
        }
        found
    }
}
