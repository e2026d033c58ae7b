//! Parts of a policy in the wrong place: under the wrong section, indented too far or not far enough.
//!
//! Each is reported once, with its likely cause, and moved to where it belongs. Otherwise each of its fields would be a
//! problem.

use super::sections::{NAMED, fields_of, fields_of_part, looks_like_entry, section_of_entry, sections, singular};
use crate::config::place::{Place, Step};
use crate::config::problem::{Problem, quoted};
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// Where parts of the repaired tree are in the document: each place in the tree, and the one in the document.
#[derive(Default)]
pub(super) struct Moves(BTreeMap<Vec<Step>, Vec<Step>>);

impl Moves {
    pub(super) fn add(&mut self, to: Vec<Step>, from: &[Step]) {
        let from = self.original(from);
        self.0.insert(to, from);
    }

    /// Gives a problem its place in the document.
    pub(super) fn locate(&self, mut problem: Problem) -> Problem {
        problem.place = Place::from(self.original(problem.place.steps()).as_slice());
        problem
    }

    /// Returns where a place of the tree is in the document.
    pub(super) fn original(&self, place: &[Step]) -> Vec<Step> {
        let moved = (1..=place.len()).rev().find_map(|length| {
            let (to, rest) = place.split_at_checked(length)?;
            Some([self.0.get(to)?, rest].concat())
        });
        moved.unwrap_or_else(|| place.to_vec())
    }
}

/// Moves parts to where they belong, and reports each.
pub(super) fn mend(tree: &mut Value) -> (Vec<Problem>, Moves) {
    let mut mending = Mending { problems: Vec::new(), moves: Moves::default(), headers: Vec::new() };
    if let Some(root) = tree.as_object_mut() {
        mending.unwrap(root);
        mending.sections_in_sections(root);
        mending.lists(root);
        mending.fields_beside_their_entry(root);
        mending.entries_at_the_root(root);
        mending.entries_of_other_sections(root);
        mending.entries_in_entries(root);
    }
    (mending.problems, mending.moves)
}

struct Mending {
    problems: Vec<Problem>,
    moves: Moves,
    /// Sections whose line was indented, without what is below it.
    headers: Vec<String>,
}

fn steps(names: &[&str]) -> Vec<Step> {
    names.iter().map(|name| Step::Name((*name).to_owned())).collect()
}

/// "`a`", "`a` and `b`", or "`a`, `b` and 3 more". A name that may be a key is not shown.
fn listed(names: &[String]) -> String {
    let shown = |name: &String| match quoted(name) {
        hidden if hidden.starts_with('(') => hidden,
        _ => format!("`{name}`"),
    };
    match names {
        [one] => shown(one),
        [one, other] => format!("{} and {}", shown(one), shown(other)),
        [one, other, more @ ..] => format!("{}, {} and {} more", shown(one), shown(other), more.len()),
        [] => String::new(),
    }
}

fn look(names: &[String]) -> &'static str {
    if names.len() == 1 { "looks like an entry" } else { "look like entries" }
}

fn section_mut<'a>(root: &'a mut Map<String, Value>, section: &str) -> Option<&'a mut Map<String, Value>> {
    root.get_mut(section)?.as_object_mut()
}

fn is_empty(value: Option<&Value>) -> bool {
    value.is_none_or(|value| value.is_null() || value.as_object().is_some_and(Map::is_empty))
}

impl Mending {
    fn report(&mut self, place: &[Step], message: String) {
        self.problems.push(Problem::of_name(self.moves.original(place).as_slice(), message));
    }

    /// The whole policy under a name.
    fn unwrap(&mut self, root: &mut Map<String, Value>) {
        let known = sections();
        let count = |map: &Map<String, Value>| map.keys().filter(|name| known.contains(name)).count();
        if count(root) > 0 {
            return;
        }
        let Some(name) = root.iter().find(|(_, value)| value.as_object().is_some_and(|map| count(map) > 1)) else {
            return;
        };
        let name = name.0.clone();
        let Some(Value::Object(inner)) = root.remove(&name) else { return };
        let message = "the sections of a policy are not under a name; remove this line and the indentation below it";
        self.report(&steps(&[&name]), message.to_owned());
        for section in inner.keys() {
            self.moves.add(steps(&[section]), &steps(&[&name, section]));
        }
        *root = inner;
    }

    /// `  tenants:` indented into the section before it.
    fn sections_in_sections(&mut self, root: &mut Map<String, Value>) {
        let known = sections();
        let mut found: Vec<Vec<String>> = Vec::new();
        for (section, value) in root.iter().filter(|(section, _)| known.contains(section)) {
            let Some(map) = value.as_object() else { continue };
            let is_named = singular(section).is_some();
            for (name, value) in map {
                // `tasks: {cache: {primary: …}}` is a task that is called cache.
                let is_own = if is_named && value.is_null() {
                    // Only the line is indented: what is below it follows.
                    !map.values().any(|other| section_of_entry(other) == Some(name))
                } else if is_named {
                    value.as_object().is_none_or(|map| map.keys().all(|field| fields_of(section).contains(field)))
                } else {
                    fields_of(section).contains(name)
                };
                if known.contains(name) && !is_own && !root.contains_key(name) {
                    found.push(vec![section.clone(), name.clone()]);
                }
                if let (true, Some(entry)) = (is_named, value.as_object()) {
                    let inner = entry.keys().filter(|inner| {
                        known.contains(inner) && !fields_of(section).contains(inner) && !root.contains_key(*inner)
                    });
                    // Limits are known to be written elsewhere in older policies.
                    found.extend(inner.map(|inner| vec![section.clone(), name.clone(), inner.clone()]));
                }
            }
        }
        for path in found {
            let Some((name, parents)) = path.split_last() else { continue };
            let mut node = Some(&mut *root);
            for parent in parents {
                node = node.and_then(|map| map.get_mut(parent)).and_then(Value::as_object_mut);
            }
            let Some(value) = node.and_then(|map| map.remove(name)) else { continue };
            if root.contains_key(name) {
                continue;
            }
            let from: Vec<_> = path.iter().cloned().map(Step::Name).collect();
            self.report(&from, format!("`{name}` is a section of its own; is it indented too far?"));
            self.moves.add(steps(&[name]), &from);
            if value.is_null() {
                self.headers.push(name.clone());
            }
            root.insert(name.clone(), value);
        }
    }

    /// `models: [{name: fast, …}]`, as other gateways have it.
    fn lists(&mut self, root: &mut Map<String, Value>) {
        for (section, singular) in NAMED {
            let Some(Value::Array(list)) = root.get(section) else { continue };
            let name_of = |entry: &Value| {
                let map = entry.as_object()?;
                let field = ["name", "id", singular, "model_name"].into_iter().find(|field| {
                    map.get(*field).is_some_and(Value::is_string) && !fields_of(section).iter().any(|own| own == field)
                })?;
                Some((field.to_owned(), map.get(field)?.as_str()?.to_owned()))
            };
            let names: Option<Vec<_>> = list.iter().map(name_of).collect();
            let Some(names) = names.filter(|names| !names.is_empty()) else { continue };
            let mut map = Map::new();
            for (i, ((field, name), entry)) in names.iter().zip(list).enumerate() {
                let mut entry = entry.clone();
                entry.as_object_mut().and_then(|entry| entry.remove(field));
                self.moves.add(steps(&[section, name]), &[Step::Name(section.to_owned()), Step::Index(i)]);
                map.insert(name.clone(), entry);
            }
            let (field, name) = names.first().cloned().unwrap_or_default();
            let name = quoted(&name).trim_matches('"').to_owned();
            self.problems.push(Problem::new(
                Place::of(&[section]),
                format!(
                    "expected names, found a list; write each {singular} under its name: `{name}: {{…}}` in place of \
                     `- {field}: {name}`"
                ),
            ));
            root.insert(section.to_owned(), Value::Object(map));
        }
    }

    /// `fast:` with nothing under it, and its fields beside it.
    fn fields_beside_their_entry(&mut self, root: &mut Map<String, Value>) {
        for section in sections() {
            self.fields_beside(root, &[], section, fields_of(section));
        }
        for (section, _) in NAMED {
            let own = fields_of(section);
            let Some(map) = section_mut(root, section) else { continue };
            let nothing: Vec<_> =
                map.iter().filter(|(_, value)| value.is_null()).map(|(name, _)| name.clone()).collect();
            if let [name] = nothing.as_slice() {
                self.fields_beside(map, &[section], name, own);
            }
            for (name, entry) in map.iter_mut() {
                let Some(entry) = entry.as_object_mut() else { continue };
                for field in own {
                    let fields: Vec<_> =
                        fields_of_part(section, field).iter().filter(|inner| !own.contains(inner)).cloned().collect();
                    self.fields_beside(entry, &[section, name], field, &fields);
                }
            }
        }
    }

    /// Moves the fields of `name` that are beside it into it, if it has nothing.
    fn fields_beside(&mut self, map: &mut Map<String, Value>, parents: &[&str], name: &str, fields: &[String]) {
        if !map.get(name).is_some_and(Value::is_null) {
            return;
        }
        // An entry of a section is a mapping, and a field of one may be: `price`.
        let is_beside = |(beside, value): &(&String, &Value)| {
            fields.contains(beside) && (parents.len() != 1 || section_of_entry(value).is_none())
        };
        let beside: Vec<String> = map.iter().filter(is_beside).map(|(name, _)| name.clone()).collect();
        if beside.is_empty() || (parents.is_empty() && beside.iter().any(|name| sections().contains(name))) {
            return;
        }
        let place = |names: &[&str]| steps(&[parents, names].concat());
        let are = if beside.len() == 1 { "is" } else { "are" };
        let nothing = listed(&[name.to_owned()]);
        let message = format!("nothing is under {nothing}; {are} {} not indented far enough?", listed(&beside));
        self.report(&place(&[name]), message);
        let mut inner = Map::new();
        for field in beside {
            if let Some(value) = map.remove(&field) {
                self.moves.add(place(&[name, &field]), &place(&[&field]));
                inner.insert(field, value);
            }
        }
        map.insert(name.to_owned(), Value::Object(inner));
    }

    /// Entries at the start of a line, below the header of their section or without one.
    fn entries_at_the_root(&mut self, root: &mut Map<String, Value>) {
        let known = sections();
        for (section, _) in NAMED {
            let is_entry =
                |(name, value): &(&String, &Value)| !known.contains(name) && section_of_entry(value) == Some(section);
            let names: Vec<String> = root.iter().filter(is_entry).map(|(name, _)| name.clone()).collect();
            let Some(first) = names.first() else { continue };
            let end = match root.get(section) {
                None => format!("is the line `{section}:` missing above, and the indentation?"),
                Some(value) if is_empty(Some(value)) => {
                    format!("{} not indented far enough?", if names.len() == 1 { "is it" } else { "are they" })
                }
                Some(_) => format!("move {} there, indented", if names.len() == 1 { "it" } else { "them" }),
            };
            self.report(&steps(&[first]), format!("{} {} of `{section}`; {end}", listed(&names), look(&names)));
            for name in &names {
                self.move_entry(root, &[name], section);
            }
        }
    }

    /// Entries that look like those of another section: its header is missing, or they are in the wrong section.
    fn entries_of_other_sections(&mut self, root: &mut Map<String, Value>) {
        for section in sections() {
            let own = fields_of(section);
            let is_named = singular(section).is_some();
            for (other, _) in NAMED.iter().filter(|(other, _)| *other != section) {
                let is_other = |(name, value): &(&String, &Value)| {
                    let is_own = match is_named {
                        true => value.as_object().is_some_and(|map| map.keys().all(|field| own.contains(field))),
                        false => own.contains(name),
                    };
                    section_of_entry(value) == Some(other) && !is_own
                };
                let map = root.get(section).and_then(Value::as_object);
                let names: Vec<String> =
                    map.into_iter().flatten().filter(is_other).map(|(name, _)| name.clone()).collect();
                let Some(first) = names.first() else { continue };
                let end = if is_empty(root.get(*other)) {
                    format!("is the line `{other}:` missing above?")
                } else {
                    format!("move {} there", if names.len() == 1 { "it" } else { "them" })
                };
                if !self.headers.iter().any(|header| header == other) {
                    let message = format!("{} {} of `{other}`; {end}", listed(&names), look(&names));
                    self.report(&steps(&[section, first]), message);
                }
                for name in &names {
                    self.move_entry(root, &[section, name], other);
                }
            }
        }
    }

    /// An entry among the fields of another one.
    fn entries_in_entries(&mut self, root: &mut Map<String, Value>) {
        for (section, _) in NAMED {
            let own = fields_of(section);
            let mut found = Vec::new();
            for (name, entry) in root.get(section).and_then(Value::as_object).into_iter().flatten() {
                let inner = entry.as_object().into_iter().flatten();
                let inner = inner.filter(|(inner, value)| !own.contains(inner) && looks_like_entry(value, section));
                found.extend(inner.map(|(inner, _)| (name.clone(), inner.clone())));
            }
            for (name, inner) in found {
                let place = steps(&[section, &name, &inner]);
                let message = format!(
                    "{} looks like an entry of `{section}`; is it indented too far?",
                    listed(std::slice::from_ref(&inner))
                );
                self.report(&place, message);
                self.move_entry(root, &[section, &name, &inner], section);
            }
        }
    }

    /// Moves an entry into a section, unless it has one of that name.
    fn move_entry(&mut self, root: &mut Map<String, Value>, path: &[&str], section: &str) {
        let Some((name, parents)) = path.split_last() else { return };
        let mut node = Some(&mut *root);
        for parent in parents {
            node = node.and_then(|map| map.get_mut(*parent)).and_then(Value::as_object_mut);
        }
        let Some(value) = node.and_then(|map| map.remove(*name)) else { return };
        if is_empty(root.get(section)) {
            root.insert(section.to_owned(), Value::Object(Map::new()));
        }
        let Some(target) = section_mut(root, section) else { return };
        if !target.contains_key(*name) {
            target.insert((*name).to_owned(), value);
            self.moves.add(steps(&[section, name]), &steps(path));
        }
    }
}
