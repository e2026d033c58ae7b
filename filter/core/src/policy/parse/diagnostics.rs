//! Mistakes of shape in a policy: unknown, missing and mistyped fields, each reported once, for policy authors.
//!
//! serde stops at the first mistake. To report all of them, the place of each is repaired and the rest is read again. A
//! repair puts a placeholder where the value was, so that nothing is missing and no list is renumbered.
//! Nothing but [`problem`] is part of the module.

use crate::config::Config;
use crate::config::place::Step;
use crate::config::problem::{MORE, Problem};
use crate::policy::Policy;
use misplaced::Moves;
use mistake::{Kind, Mistake, put};
use serde::Deserialize;
use serde_json::{Value, json};

mod conceal;
mod explain;
mod foreign;
mod meaning;
mod misplaced;
mod mistake;
mod moved;
mod sections;
mod spelling;
mod values;

type Error = serde_path_to_error::Error<serde_json::Error>;

/// After this many mistakes, nothing more is repaired.
const ENOUGH: usize = 100;

/// A document with mistakes of shape.
pub(super) struct Flawed {
    problems: Vec<Problem>,
    /// The document with every mistake repaired, unless there were too many.
    repaired: Option<(Config, Value)>,
    /// The places of the mistakes in the repaired document.
    refused: Vec<Vec<Step>>,
    moves: Moves,
}

/// Reads the document, or finds every mistake of shape in it.
pub(super) fn read(document: &Value) -> Result<Config, Box<Flawed>> {
    if !document.is_object() {
        let problems = vec![Problem::new("", explain::whole(document))];
        return Err(Box::new(Flawed { problems, repaired: None, refused: Vec::new(), moves: Moves::default() }));
    }
    if sections::lists_for_fields(document).is_empty()
        && let Ok(config) = Config::deserialize(document)
    {
        return Ok(config);
    }
    let mut tree = document.clone();
    let (mut problems, mut moves) = misplaced::mend(&mut tree);
    let mut refused = Vec::new();
    for place in sections::lists_for_fields(&tree) {
        let mistake = Mistake { place, kind: Kind::WrongType("a list", "a mapping of fields".to_owned()) };
        problems.push(moves.locate(explain::explain(&mistake, &tree)));
        mistake.replace(&mistake.place, &mut tree);
        refused.push(mistake.place);
    }
    let mut next = Mistake::in_tree(&tree).err();
    while let Some(mistake) = next.take() {
        if refused.len() >= ENOUGH {
            problems.push(Problem::new("", MORE));
            break;
        }
        // What is said about a whole follows from a part that was repaired.
        let is_whole = matches!(mistake.kind, Kind::Other(_));
        if !(is_whole && refused.iter().any(|part: &Vec<Step>| part.starts_with(&mistake.place))) {
            problems.push(moves.locate(explain::explain(&mistake, &tree)));
        }
        let repaired = mistake.repair(&mut tree, &mut moves);
        next = repaired.flatten();
        refused.push(mistake.place);
    }
    let repaired = Config::deserialize(&tree).ok().map(|config| (config, tree));
    Err(Box::new(Flawed { problems, repaired, refused, moves }))
}

impl Flawed {
    /// Returns the mistakes of shape, and those of meaning that do not follow from them.
    pub(super) fn problems(self, document: &Value) -> Vec<Problem> {
        let Self { mut problems, repaired, refused, moves } = self;
        if let Some((config, tree)) = repaired
            && let Err(others) = Policy::try_from(config)
        {
            let own = others.into_iter().filter(|problem| meaning::is_independent(problem, &refused, &tree)).collect();
            problems.extend(meaning::explain(own, &tree).into_iter().map(|problem| moves.locate(problem)));
        }
        conceal::conceal(problems, document)
    }
}

/// Explains the mistakes of meaning in a document without mistakes of shape.
pub(super) fn explain(problems: Vec<Problem>, document: &Value) -> Vec<Problem> {
    conceal::conceal(meaning::explain(problems, document), document)
}

/// Converts a serde error to a problem.
pub(super) fn problem(error: &Error) -> Problem {
    Mistake::of(error).problem()
}

impl Mistake {
    /// Makes the place acceptable. Returns the next mistake, if there is one, or `None` if no repair works.
    fn repair(&self, tree: &mut Value, moves: &mut Moves) -> Option<Option<Mistake>> {
        if let Kind::UnknownField(known) = &self.kind {
            self.rename(known, tree, moves)?;
            return Some(Self::in_tree(tree).err());
        }
        // A list that cannot have a placeholder is emptied, and so on outwards.
        (1..=self.place.len()).rev().find_map(|length| self.replace(self.place.get(..length)?, tree))
    }

    /// Gives a field the name that was meant, or removes it.
    fn rename(&self, known: &[String], tree: &mut Value, moves: &mut Moves) -> Option<()> {
        let (last, parents) = self.place.split_last()?;
        if let Some((field, text)) = last.as_name().and_then(|name| explain::without_space(name, known)) {
            let value = serde_json::from_str(text).unwrap_or_else(|_| json!(text));
            let to = [parents, &[Step::Name(field.to_owned())]].concat();
            put(tree, &self.place, None)?;
            if sections::value_at(tree, &to).is_none() {
                put(tree, &to, Some(value))?;
                moves.add(to, &self.place);
            }
            return Some(());
        }
        let to = explain::meant_field(&self.place, known).map(|name| [parents, &[Step::Name(name)]].concat());
        let value = sections::value_at(tree, &self.place).cloned();
        put(tree, &self.place, None)?;
        if let Some(to) = to.filter(|to| sections::value_at(tree, to).is_none()) {
            put(tree, &to, value)?;
            moves.add(to, &self.place);
        }
        Some(())
    }

    /// Puts a value at a place that is acceptable there, or none.
    fn replace(&self, place: &[Step], tree: &mut Value) -> Option<Option<Mistake>> {
        let mut stand_ins = match &self.kind {
            Kind::UnknownVariant(variant, names) => {
                let near = spelling::nearest(variant, names.iter().map(String::as_str));
                near.into_iter()
                    .take(1)
                    .chain(names.iter().map(String::as_str))
                    .take(1)
                    .map(|name| json!(name))
                    .collect()
            }
            _ => Vec::new(),
        };
        // Without a price, a budget would be a problem too.
        if matches!(place.last(), Some(Step::Name(name)) if ["price", "default_price"].contains(&name.as_str())) {
            stand_ins.push(json!({"input": 0, "output": 0}));
        }
        stand_ins.extend([json!(null), json!(""), json!(0), json!(false), json!("60s"), json!([]), json!({})]);
        for stand_in in stand_ins {
            if put(tree, place, Some(stand_in)).is_none() {
                continue;
            }
            match Self::after_repair(place, tree) {
                Ok(next) => return Some(next),
                // A name from a list is expected, and this error lists the names.
                Err(Mistake { kind: Kind::UnknownVariant(_, names), .. }) => {
                    put(tree, place, names.first().map(|name| json!(name)))?;
                    if let Ok(next) = Self::after_repair(place, tree) {
                        return Some(next);
                    }
                }
                Err(_) => {}
            }
        }
        put(tree, place, None)?;
        Self::after_repair(place, tree).ok()
    }
}

#[cfg(test)]
mod tests;
