//! Finds the places of a policy in its text: the line, the column and the bytes of a name or a value.

use crate::document::yaml_options;
use crate::secrets::{self, Under};
use crate::text_index::TextIndex;
use pointsman_core::config::place::Step;
use pointsman_core::config::problem::{Part, Problem};
use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;
use serde_saphyr::{DuplicateKeyPolicy, Location, Spanned};
use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;

/// A part of a text, in bytes.
pub type Span = Range<usize>;

/// A text whose places are known.
#[derive(Debug, Default)]
pub struct Source {
    text: String,
    /// `None` if the text cannot be parsed.
    root: Option<Node>,
    is_yaml: bool,
    index: TextIndex,
}

/// A value and where it is. A mapping or a list is where its first entry begins.
#[derive(Debug)]
struct Node {
    span: Span,
    content: Content,
}

#[derive(Debug)]
enum Content {
    Scalar,
    List(Vec<Node>),
    /// Names with their spans.
    Map(BTreeMap<String, (Span, Node)>),
}

impl Source {
    /// Reads YAML.
    pub fn of_yaml(text: String) -> Self {
        // A name that is given twice is a mistake with a place too.
        let options = yaml_options(DuplicateKeyPolicy::FirstWins);
        let root = serde_saphyr::from_str_with_options::<Spanned<Tree>>(&text, options);
        let root = root.ok().map(|spanned| spanned.into_node(&text));
        Self { index: TextIndex::new(&text), text, root, is_yaml: true }
    }

    /// Reads JSON.
    pub fn of_json(text: String) -> Self {
        let root = serde_json::from_str::<&RawValue>(&text).ok().and_then(|raw| json_node(raw, &text, MAX_DEPTH));
        Self { index: TextIndex::new(&text), text, root, is_yaml: false }
    }

    /// Returns the text.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Returns what is known of the text.
    pub fn index(&self) -> &TextIndex {
        &self.index
    }

    /// Returns where a problem is: the name or value that it is about, or the closest name above.
    pub fn span(&self, problem: &Problem) -> Option<Span> {
        let root = self.root.as_ref()?;
        let (node, name) = descend(root, problem.place.steps());
        match (&problem.part, node) {
            (Part::Field(field), Some(node)) => match node.entry(field) {
                Some((span, _)) => Some(span.clone()),
                // What the document as a whole lacks is nowhere.
                None => name,
            },
            (Part::Value, Some(node)) if node.is_scalar() => Some(node.span.clone()),
            // A list element has no name: its own beginning is closer than the list's name.
            (Part::Value, Some(node)) if matches!(problem.place.steps().last(), Some(Step::Index(_))) => {
                Some(node.span.clone())
            }
            (_, node) => name.or_else(|| node.map(|node| node.span.clone())),
        }
    }

    /// Returns the line and the column of a byte, both from 1. The column counts characters.
    pub fn line_and_column(&self, at: usize) -> (usize, usize) {
        let line = self.index.line(at);
        let start = self.index.line_span(line, &self.text).map_or(0, |line| line.start);
        (line, self.index.characters(start..at, &self.text) + 1)
    }

    /// Returns the byte at a line and a column, both from 1.
    pub fn byte_at(&self, line: usize, column: usize) -> Option<usize> {
        let Span { start, end } = self.index.line_span(line, &self.text)?;
        let line = self.text.get(start..end)?;
        let within = line.char_indices().nth(column.checked_sub(1)?).map_or(line.len(), |(at, _)| at);
        Some(start + within)
    }

    /// Returns the word around a byte, with quotation marks: what a parser objects to where it names only a place.
    pub fn word_at(&self, at: usize) -> Span {
        let is_word = |c: char| c.is_alphanumeric() || "_-.\"'".contains(c);
        let (Some(before), Some(after)) = (self.text.get(..at), self.text.get(at..)) else { return at..at };
        let start = if after.starts_with(is_word) { before.trim_end_matches(is_word).len() } else { at };
        let end = self.text.len() - after.trim_start_matches(is_word).len();
        start..end
    }

    /// Returns the parts of the text in which an API key may be by mistake: all that is under a name like `keys` or
    /// `credential`. If the text cannot be parsed, all that may be under such a name. In order, without overlaps.
    pub fn secrets(&self) -> Vec<Span> {
        let mut spans = Vec::new();
        match &self.root {
            Some(root) => root.add_secrets(secrets::under_root, &mut spans),
            None if self.is_yaml => spans.extend(secrets::of_broken(&self.text)),
            None => spans.push(0..self.text.len()),
        }
        // An alias may point anywhere.
        spans.sort_unstable_by_key(|span| (span.start, span.end));
        spans.dedup_by(|next, span| {
            let overlaps = next.start <= span.end;
            span.end = if overlaps { span.end.max(next.end) } else { span.end };
            overlaps
        });
        spans
    }
}

/// Follows the steps as far as they exist. Returns the value at the end, and the name closest to it.
fn descend<'a>(root: &'a Node, steps: &[Step]) -> (Option<&'a Node>, Option<Span>) {
    let mut node = root;
    let mut name = None;
    for step in steps {
        let next = match (step, &node.content) {
            (Step::Name(step), Content::Map(_)) => node.entry(step).map(|(span, next)| {
                name = Some(span.clone());
                next
            }),
            (Step::Index(index), Content::List(list)) => list.get(*index),
            _ => None,
        };
        match next {
            Some(next) => node = next,
            None => return (None, name),
        }
    }
    (Some(node), name)
}

impl Node {
    fn is_scalar(&self) -> bool {
        matches!(self.content, Content::Scalar)
    }

    fn entry(&self, name: &str) -> Option<&(Span, Node)> {
        match &self.content {
            Content::Map(entries) => entries.get(name),
            _ => None,
        }
    }

    /// Returns where the value ends.
    fn end(&self) -> usize {
        let last = match &self.content {
            Content::Scalar => None,
            Content::List(list) => list.iter().map(Node::end).max(),
            Content::Map(entries) => entries.values().map(|(name, node)| name.end.max(node.end())).max(),
        };
        self.span.end.max(last.unwrap_or(0))
    }

    /// Adds the parts that may hold keys, by `rule`: what a name says of its value.
    fn add_secrets(&self, rule: fn(&str) -> Under, spans: &mut Vec<Span>) {
        match &self.content {
            Content::Scalar => {}
            Content::List(list) => list.iter().for_each(|node| node.add_secrets(rule, spans)),
            Content::Map(entries) => {
                for (name, (at, node)) in entries {
                    match (rule(name), &node.content) {
                        (Under::Known(rule), _) | (Under::Entries(rule), Content::Map(_)) => {
                            node.add_secrets(rule, spans);
                        }
                        (Under::Secret | Under::Entries(_), _) => spans.push(at.start..node.end().max(at.end)),
                    }
                }
            }
        }
    }
}

/// What a YAML value holds.
enum Tree {
    Scalar,
    List(Vec<Spanned<Tree>>),
    Map(Vec<(Spanned<String>, Spanned<Tree>)>),
}

trait IntoNode {
    fn into_node(self, text: &str) -> Node;
}

impl IntoNode for Spanned<Tree> {
    fn into_node(self, text: &str) -> Node {
        let span = span_of(&self.defined, text);
        let content = match self.value {
            Tree::Scalar => Content::Scalar,
            Tree::List(list) => Content::List(list.into_iter().map(|node| node.into_node(text)).collect()),
            Tree::Map(entries) => Content::Map(
                entries
                    .into_iter()
                    .map(|(name, node)| (name.value, (span_of(&name.defined, text), node.into_node(text))))
                    .collect(),
            ),
        };
        Node { span, content }
    }
}

/// Converts a location of the parser, which ends a span at the end of its last line at the latest.
fn span_of(location: &Location, text: &str) -> Span {
    let span = location.span();
    let start = span.byte_offset().and_then(|at| usize::try_from(at).ok()).unwrap_or(0).min(text.len());
    let length = span.byte_len().and_then(|length| usize::try_from(length).ok()).unwrap_or(0);
    let end = start.saturating_add(length).min(text.len());
    let shown = text.get(start..end).map_or(0, |part| part.trim_end().len());
    start..start + shown
}

impl<'de> Deserialize<'de> for Tree {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TreeVisitor)
    }
}

struct TreeVisitor;

impl<'de> Visitor<'de> for TreeVisitor {
    type Value = Tree;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a value")
    }
    fn visit_unit<E>(self) -> Result<Tree, E> {
        Ok(Tree::Scalar)
    }
    fn visit_none<E>(self) -> Result<Tree, E> {
        Ok(Tree::Scalar)
    }
    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Tree, D::Error> {
        Tree::deserialize(deserializer)
    }
    fn visit_bool<E>(self, _: bool) -> Result<Tree, E> {
        Ok(Tree::Scalar)
    }
    fn visit_i64<E>(self, _: i64) -> Result<Tree, E> {
        Ok(Tree::Scalar)
    }
    fn visit_u64<E>(self, _: u64) -> Result<Tree, E> {
        Ok(Tree::Scalar)
    }
    fn visit_f64<E>(self, _: f64) -> Result<Tree, E> {
        Ok(Tree::Scalar)
    }
    fn visit_str<E>(self, _: &str) -> Result<Tree, E> {
        Ok(Tree::Scalar)
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Tree, A::Error> {
        let mut list = Vec::new();
        while let Some(node) = sequence.next_element()? {
            list.push(node);
        }
        Ok(Tree::List(list))
    }
    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Tree, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = access.next_entry()? {
            entries.push(entry);
        }
        Ok(Tree::Map(entries))
    }
}

/// How deep JSON may be, as in `serde_json`.
const MAX_DEPTH: usize = 128;

/// Converts JSON that is known to be valid. A part of the text is found by its address.
fn json_node(raw: &RawValue, text: &str, depth: usize) -> Option<Node> {
    let depth = depth.checked_sub(1)?;
    let json = raw.get();
    let start = (json.as_ptr() as usize).checked_sub(text.as_ptr() as usize)?;
    let content = match json.as_bytes().first()? {
        b'[' => {
            let list: Vec<&RawValue> = serde_json::from_str(json).ok()?;
            Content::List(list.into_iter().map(|raw| json_node(raw, text, depth)).collect::<Option<_>>()?)
        }
        b'{' => {
            let JsonEntries(entries) = serde_json::from_str(json).ok()?;
            let entry = |(name, raw): (String, &RawValue)| {
                let node = json_node(raw, text, depth)?;
                let at = json_name(text.get(..node.span.start)?)?;
                Some((name, (at, node)))
            };
            Content::Map(entries.into_iter().map(entry).collect::<Option<_>>()?)
        }
        _ => Content::Scalar,
    };
    Some(Node { span: start..start + json.len(), content })
}

/// Returns the span of the string, with its quotation marks, that ends a text before a colon.
fn json_name(before: &str) -> Option<Span> {
    let inner = before.trim_end().strip_suffix(':')?.trim_end().strip_suffix('"')?;
    let is_escaped = |at: usize| inner.bytes().take(at).rev().take_while(|byte| *byte == b'\\').count() % 2 == 1;
    let start = inner.rmatch_indices('"').map(|(at, _)| at).find(|at| !is_escaped(*at))?;
    Some(start..inner.len() + 1)
}

struct JsonEntries<'a>(Vec<(String, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for JsonEntries<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct EntriesVisitor;
        impl<'de> Visitor<'de> for EntriesVisitor {
            type Value = Vec<(String, &'de RawValue)>;
            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Self::Value, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = access.next_entry()? {
                    entries.push(entry);
                }
                Ok(entries)
            }
        }
        deserializer.deserialize_map(EntriesVisitor).map(JsonEntries)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pointsman_core::config::place::Place;

    const YAML: &str = "# über\nmodels:\n  gpt-4.1:\n    'tier': mid\n    context: &c 12 # tokens\n    \
        caps: [tools, \"vis\\u0069on\"]\n    price: {input: 1, output: *c}\n  m2:\n    <<: {a: 1}\n\
        tenants:\n  é: {keys: [k1, k2], x: 1}\n\
        list:\n  - a: 1\n    b: 2\n  -\n    - c\nempty:\ntext: |\n  one\n  two\n";

    #[track_caller]
    fn shows(source: &Source, problem: Problem, expected: &str, at: (usize, usize)) {
        let span = source.span(&problem).unwrap();
        assert_eq!((&source.text()[span.clone()], source.line_and_column(span.start)), (expected, at), "{problem:?}");
        assert_eq!(source.byte_at(at.0, at.1), Some(span.start));
    }

    fn of(names: &[&str]) -> Problem {
        Problem::new(Place::of(names), "")
    }

    #[test]
    fn every_kind_of_place_in_yaml() {
        let yaml = Source::of_yaml(YAML.to_owned());
        shows(&yaml, of(&["models", "gpt-4.1", "tier"]), "mid", (4, 13));
        shows(&yaml, of(&["models", "gpt-4.1", "context"]), "12", (5, 17));
        shows(&yaml, of(&["models", "gpt-4.1"]), "gpt-4.1", (3, 3));
        shows(&yaml, Problem::of_name(Place::of(&["models", "gpt-4.1", "tier"]), ""), "'tier'", (4, 5));
        shows(&yaml, Problem::of_field("models", "m2", ""), "m2", (8, 3));
        shows(&yaml, Problem::of_field("models", "m3", ""), "models", (2, 1));
        shows(&yaml, of(&["models", "m2", "nothing"]), "m2", (8, 3));
        let caps = Place::of(&["models", "gpt-4.1", "caps"]);
        shows(&yaml, Problem::new(caps.index(1), ""), "\"vis\\u0069on\"", (6, 19));
        shows(&yaml, Problem::new(caps.index(7), ""), "caps", (6, 5));
        shows(&yaml, of(&["models", "gpt-4.1", "price", "input"]), "1", (7, 20));
        shows(&yaml, of(&["models", "gpt-4.1", "price", "output"]), "12", (5, 17));
        shows(&yaml, of(&["models", "m2", "a"]), "1", (9, 13));
        shows(&yaml, of(&["tenants", "é", "x"]), "1", (11, 26));
        shows(&yaml, Problem::new(Place::from("list").index(0).name("b"), ""), "2", (14, 8));
        shows(&yaml, Problem::new(Place::from("list").index(1).index(0), ""), "c", (16, 7));
        assert_eq!(
            yaml.line_and_column(yaml.span(&Problem::new(Place::from("list").index(0), "")).unwrap().start),
            (13, 5)
        );
        let secrets: Vec<_> = yaml.secrets().into_iter().map(|span| &yaml.text()[span]).collect();
        assert_eq!(secrets, ["keys: [k1, k2", "x: 1"]);
    }

    #[test]
    fn every_kind_of_place_in_json() {
        let json = Source::of_json(
            "{\"models\": {\n \"a\\\"b\" : {\"x\": [1, \"\\ud83d\\ude00\", {\"y\": null}]}}}".to_owned(),
        );
        shows(&json, of(&["models", "a\"b"]), "\"a\\\"b\"", (2, 2));
        let list = Place::of(&["models", "a\"b", "x"]);
        shows(&json, Problem::new(list.index(1), ""), "\"\\ud83d\\ude00\"", (2, 21));
        shows(&json, Problem::new(list.index(2).name("y"), ""), "null", (2, 43));
        shows(&json, Problem::of_field(list.index(2), "y", ""), "\"y\"", (2, 38));
    }

    #[test]
    fn a_text_that_cannot_be_parsed_may_hold_secrets_below_a_name_like_keys() {
        let json = Source::of_json("{".to_owned());
        assert_eq!(json.span(&of(&["a"])), None);
        assert!(matches!(json.secrets().as_slice(), [all] if *all == (0..1)));
        let text = "t:\n  a:\n    tier: x\n    keys:\n    - k1\n    - hash: k2\n    tier: x\n  b: \
            {keys: [k3,\nk4: 1,\n  k5]}\n  c: [\n";
        let yaml = Source::of_yaml(text.to_owned());
        assert_eq!(yaml.span(&of(&["t"])), None);
        let secrets: Vec<_> = yaml.secrets().into_iter().map(|span| &text[span]).collect();
        assert_eq!(secrets, ["    keys:\n    - k1\n    - hash: k2\n", "  b: {keys: [k3,\nk4: 1,\n  k5]}\n"]);
    }
}
