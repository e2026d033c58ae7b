//! Mistakes of shape: unknown, missing and mistyped fields, each named once, in words for people who write policies.
//!
//! serde stops at the first mistake. To name them all, the place of each is repaired and the rest read again. A repair
//! puts a stand-in where the value was, so that nothing is missing and no list is renumbered afterwards.
//!
//! What serde says is never repeated as it is: it quotes values, and a value may be an API key in the wrong place.

use crate::config::Config;
use crate::problem::{Problem, quoted};
use serde_json::{Value, json};
use serde_path_to_error::{Path, Segment};

type Error = serde_path_to_error::Error<serde_json::Error>;

/// Mistakes after which a document is not read further; nobody repairs more in one go.
const ENOUGH: usize = 100;

/// Reads the tree, or names every mistake of shape in it.
pub(super) fn read(document: &Value) -> Result<Config, Vec<Problem>> {
    let first = match serde_path_to_error::deserialize(document) {
        Ok(config) => return Ok(config),
        Err(error) => error,
    };
    let mut tree = document.clone();
    let mut problems = Vec::new();
    let mut next = Some(Mistake::of(&first));
    while let Some(mistake) = next.take() {
        let repaired = if problems.len() < ENOUGH { mistake.repair(&mut tree) } else { None };
        problems.push(mistake.problem());
        next = repaired.flatten();
    }
    Err(problems)
}

/// The problem that a serde error stands for.
pub(super) fn problem(error: &Error) -> Problem {
    Mistake::of(error).problem()
}

/// One mistake: where, and what serde says of it.
#[derive(Debug, PartialEq)]
struct Mistake {
    /// Names and indices from the root to the offending value.
    place: Vec<Step>,
    kind: Kind,
}

#[derive(Debug, PartialEq, Clone)]
enum Step {
    Name(String),
    Index(usize),
}

#[derive(Debug, PartialEq)]
enum Kind {
    /// The last step of the place is a field that does not exist; these do.
    UnknownField(Vec<String>),
    /// The last step of the place is a field that should exist.
    MissingField,
    DuplicateField,
    /// The value is none of these names.
    UnknownVariant(String, Vec<String>),
    /// Found, expected.
    WrongType(&'static str, String),
    /// In other words, which quote no value.
    Other(String),
}

impl Mistake {
    fn of(error: &Error) -> Self {
        let mut place = steps(error.path());
        let message = error.inner().to_string();
        // The tree has no lines; text has, but the place says it better than the line of one long line of JSON.
        let text = if error.inner().is_data() { without_line(&message) } else { &message };
        let kind = if let Some((field, expected)) = split(text, "unknown field `") {
            // serde names the field in the path too, where it can.
            if place.last() != Some(&Step::Name(field.to_owned())) {
                place.push(Step::Name(field.to_owned()));
            }
            Kind::UnknownField(in_backticks(expected))
        } else if let Some(field) = text.strip_prefix("missing field `") {
            place.push(Step::Name(field.trim_end_matches('`').to_owned()));
            Kind::MissingField
        } else if let Some(field) = text.strip_prefix("duplicate field `") {
            if place.last() != Some(&Step::Name(field.trim_end_matches('`').to_owned())) {
                place.push(Step::Name(field.trim_end_matches('`').to_owned()));
            }
            Kind::DuplicateField
        } else if let Some((variant, expected)) = split(text, "unknown variant `") {
            Kind::UnknownVariant(variant.to_owned(), in_backticks(expected))
        } else if let Some((found, expected)) = wrong_type(text) {
            Kind::WrongType(found, expected)
        } else {
            Kind::Other(text.to_owned())
        };
        Self { place, kind }
    }

    /// Makes the place acceptable. The next mistake, if there is one; `None` if nothing helps.
    fn repair(&self, tree: &mut Value) -> Option<Option<Mistake>> {
        let stand_ins = match &self.kind {
            Kind::UnknownField(_) => Vec::new(),
            Kind::UnknownVariant(_, names) => names.first().map(|name| json!(name)).into_iter().collect(),
            _ => vec![json!(null), json!(""), json!(0), json!(false), json!([]), json!({})],
        };
        for stand_in in stand_ins {
            put(tree, &self.place, Some(stand_in))?;
            match self.after_repair(tree) {
                Ok(next) => return Some(next),
                // One of several names is expected: the error that says so names them.
                Err(Mistake { kind: Kind::UnknownVariant(_, names), .. }) => {
                    put(tree, &self.place, names.first().map(|name| json!(name)))?;
                    if let Ok(next) = self.after_repair(tree) {
                        return Some(next);
                    }
                }
                Err(_) => {}
            }
        }
        put(tree, &self.place, None)?;
        self.after_repair(tree).ok()
    }

    /// The next mistake; an error if it is about the place that has just been repaired.
    fn after_repair(&self, tree: &Value) -> Result<Option<Mistake>, Mistake> {
        match serde_path_to_error::deserialize::<_, Config>(tree) {
            Ok(_) => Ok(None),
            Err(error) => {
                let next = Mistake::of(&error);
                if next.place.starts_with(&self.place) { Err(next) } else { Ok(Some(next)) }
            }
        }
    }

    fn problem(&self) -> Problem {
        let (last, parents) = match self.place.split_last() {
            Some((Step::Name(name), parents)) => (name.as_str(), parents),
            _ => ("", &[][..]),
        };
        let name = |text: &str| if holds_secrets(&self.place) { "(not shown)".to_owned() } else { quoted(text) };
        match &self.kind {
            Kind::UnknownField(fields) => Problem::new(
                path(parents),
                match fields.as_slice() {
                    [] => format!("unknown field {}; it has no fields", name(last)),
                    fields => format!("unknown field {}; fields are {}", name(last), fields.join(", ")),
                },
            ),
            Kind::MissingField => Problem::new(path(parents), format!("missing field \"{last}\"")),
            Kind::DuplicateField => Problem::new(path(parents), format!("field \"{last}\" is given twice")),
            Kind::UnknownVariant(variant, names) => {
                let names = names.join(", ");
                Problem::new(path(&self.place), format!("{} is not one of {names}", name(variant)))
            }
            Kind::WrongType(found, expected) => {
                Problem::new(path(&self.place), format!("expected {expected}, found {found}"))
            }
            Kind::Other(message) => Problem::new(path(&self.place), message.as_str()),
        }
    }
}

/// Whether this is a part of the policy where people may put a key by mistake.
fn holds_secrets(place: &[Step]) -> bool {
    place.iter().any(|step| matches!(step, Step::Name(name) if name == "keys" || name == "credential"))
}

fn steps(path: &Path) -> Vec<Step> {
    path.iter()
        .filter_map(|segment| match segment {
            Segment::Seq { index } => Some(Step::Index(*index)),
            Segment::Map { key } => Some(Step::Name(key.clone())),
            Segment::Enum { variant } => Some(Step::Name(variant.clone())),
            Segment::Unknown => None,
        })
        .collect()
}

fn path(place: &[Step]) -> String {
    place.iter().fold(String::new(), |path, step| match step {
        Step::Index(index) => format!("{path}[{index}]"),
        Step::Name(name) if path.is_empty() => name.clone(),
        Step::Name(name) => format!("{path}.{name}"),
    })
}

/// Puts a value at the place, or takes away what is there. `None` if there is no such place.
fn put(tree: &mut Value, place: &[Step], value: Option<Value>) -> Option<()> {
    let (last, parents) = place.split_last()?;
    let node = parents.iter().try_fold(tree, |node, step| match step {
        Step::Name(name) => node.as_object_mut()?.get_mut(name),
        Step::Index(index) => node.as_array_mut()?.get_mut(*index),
    })?;
    match (last, value) {
        (Step::Name(name), Some(value)) => drop(node.as_object_mut()?.insert(name.clone(), value)),
        (Step::Name(name), None) => drop(node.as_object_mut()?.remove(name)),
        (Step::Index(index), Some(value)) => *node.as_array_mut()?.get_mut(*index)? = value,
        // To take an element away would renumber the ones after it.
        (Step::Index(_), None) => return None,
    }
    Some(())
}

fn without_line(message: &str) -> &str {
    message.rfind(" at line ").and_then(|at| message.get(..at)).unwrap_or(message)
}

/// What follows `start`, up to its closing backtick, and the words after that.
fn split<'a>(text: &'a str, start: &str) -> Option<(&'a str, &'a str)> {
    let rest = text.strip_prefix(start)?;
    // From the right: what serde quotes may hold anything, what it expects holds names.
    rest.rsplit_once("`, expected ").or_else(|| rest.rsplit_once("`, there are no "))
}

fn in_backticks(text: &str) -> Vec<String> {
    text.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

fn wrong_type(text: &str) -> Option<(&'static str, String)> {
    let rest = ["invalid type: ", "invalid value: ", "invalid length "].iter().find_map(|p| text.strip_prefix(p))?;
    let (found, expected) = rest.rsplit_once(", expected ")?;
    let found = match found.split([' ', '`']).next().unwrap_or_default() {
        "null" | "unit" => "nothing",
        "boolean" => "true or false",
        "integer" if found.starts_with("integer `-") => "a negative number",
        "integer" | "floating" | "number" => "another number",
        "string" | "character" => "text",
        "map" => "fields",
        _ => "a list",
    };
    let expected = match expected {
        "u64" | "u32" | "usize" => "a whole number".to_owned(),
        "f64" => "a number".to_owned(),
        "a string" | "string" => "text".to_owned(),
        "a boolean" => "true or false".to_owned(),
        "a sequence" => "a list".to_owned(),
        "a map" => "names, each with its fields".to_owned(),
        "string or map" | "variant identifier" => "a name".to_owned(),
        struct_ if struct_.starts_with("struct ") => "fields".to_owned(),
        other => other.to_owned(),
    };
    let found = match (found, &*expected) {
        ("another number", "text" | "a list" | "fields" | "true or false" | "a name") => "a number",
        ("text", "a list") => "text alone",
        (found, _) => found,
    };
    Some((found, expected))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> Value {
        json!({
            "providers": {"vllm": {"dialect": "openai", "local": true, "data": "regulated"}},
            "models": {"fast": {"provider": "vllm", "model": "m", "tier": "local", "context": 8192,
                "max_output_tokens": 512, "price": {"input": 0.1, "output": 0.2}}},
            "tasks": {"chat": {"primary": "fast", "fallback": ["fast", "fast"]}},
            "tiers": {"free": {"models": ["fast"]}},
            "tenants": {"acme": {"tier": "free", "keys": [{"hash": "sha256:00"}]}}
        })
    }

    /// The problems of the good policy with some places changed; `null` takes a place away.
    fn problems(changes: &[(&str, Value)]) -> Vec<String> {
        let mut tree = good();
        for (pointer, value) in changes {
            let (parent, last) = pointer.rsplit_once('/').unwrap();
            match (tree.pointer_mut(parent).unwrap(), value) {
                (Value::Object(map), Value::Null) => drop(map.remove(last).unwrap()),
                (Value::Object(map), value) => drop(map.insert(last.to_owned(), value.clone())),
                (Value::Array(list), value) => list[last.parse::<usize>().unwrap()] = value.clone(),
                _ => unreachable!(),
            }
        }
        read(&tree).map_or_else(|problems| problems.iter().map(Problem::to_string).collect(), |_| Vec::new())
    }

    #[test]
    fn a_good_document_has_no_problem() {
        assert_eq!(problems(&[]), [""; 0]);
        assert_eq!(problems(&[("/identity", json!({"source": "api_key"}))]), [""; 0]);
        assert_eq!(problems(&[("/identity", json!({"source": "header", "tenant": "x-t"}))]), [""; 0]);
    }

    #[test]
    fn an_unknown_field_names_its_section_and_the_fields_there() {
        assert_eq!(
            problems(&[("/models/fast/price/inptu", json!(1))]),
            ["models.fast.price: unknown field \"inptu\"; fields are input, cached_input, output"]
        );
        assert_eq!(
            problems(&[("/tenant", json!({}))]),
            [
                "unknown field \"tenant\"; fields are identity, limits, default_task, providers, models, tasks, tiers, tenants"
            ]
        );
        // A name that serde's own words would be confused by.
        assert_eq!(
            problems(&[("/tiers/free/a`, expected `b", json!(1))]),
            ["tiers.free: unknown field \"a`, expected `b\"; fields are models"]
        );
    }

    #[test]
    fn a_missing_field_is_named_and_the_others_too() {
        assert_eq!(
            problems(&[("/models/fast", json!({"context": 1}))]),
            [
                "models.fast: missing field \"provider\"",
                "models.fast: missing field \"model\"",
                "models.fast: missing field \"tier\"",
                "models.fast: missing field \"max_output_tokens\"",
            ]
        );
        assert_eq!(
            problems(&[("/tiers", json!(null)), ("/models", json!(null))]),
            ["missing field \"models\"", "missing field \"tiers\"",]
        );
    }

    #[test]
    fn a_wrong_type_says_what_was_expected_and_causes_no_second_problem() {
        for (pointer, value, expected) in [
            ("/models/fast/context", json!("many"), "models.fast.context: expected a whole number, found text"),
            (
                "/models/fast/context",
                json!(-1),
                "models.fast.context: expected a whole number, found a negative number",
            ),
            ("/models/fast/context", json!(1.5), "models.fast.context: expected a whole number, found another number"),
            ("/models/fast/price", json!("free"), "models.fast.price: expected fields, found text"),
            ("/models/fast/price/input", json!("0"), "models.fast.price.input: expected a number, found text"),
            ("/models/fast/drop_params", json!("yes"), "models.fast.drop_params: expected true or false, found text"),
            ("/models/fast/provider", json!(5), "models.fast.provider: expected text, found a number"),
            ("/models/fast/tier", json!(5), "models.fast.tier: expected a name, found a number"),
            ("/models/fast/tier", json!("big"), "models.fast.tier: \"big\" is not one of local, mid, flagship"),
            ("/models/fast", json!([]), "models.fast: expected fields, found a list"),
            ("/models", json!(["fast"]), "models: expected names, each with its fields, found a list"),
            ("/limits", json!(true), "limits: expected fields, found true or false"),
            ("/tasks/chat/fallback/0", json!(7), "tasks.chat.fallback[0]: expected text, found a number"),
            ("/tasks/chat/fallback", json!("fast"), "tasks.chat.fallback: expected a list, found text alone"),
        ] {
            assert_eq!(problems(&[(pointer, value)]), [expected]);
        }
    }

    #[test]
    fn several_mistakes_are_each_named_once_in_the_order_of_the_document() {
        assert_eq!(
            problems(&[
                ("/tasks/chat/fallback/0", json!(1)),
                ("/tasks/chat/fallback/1", json!(2)),
                ("/models/fast/tier", json!(null)),
                ("/models/fast/context", json!("x")),
                ("/models/fast/prise", json!({})),
                ("/tenants/acme/data", json!("secret")),
                ("/identity", json!({"source": "jwt"})),
            ]),
            [
                "identity.source: \"jwt\" is not one of api_key, header",
                "models.fast.context: expected a whole number, found text",
                "models.fast: unknown field \"prise\"; fields are provider, model, tier, context, max_output_tokens, \
                 price, capabilities, output_param, unsupported_params, drop_params",
                "models.fast: missing field \"tier\"",
                "tasks.chat.fallback[0]: expected text, found a number",
                "tasks.chat.fallback[1]: expected text, found a number",
                "tenants.acme.data: \"secret\" is not one of public, internal, confidential, regulated",
            ]
        );
    }

    #[test]
    fn the_source_of_identity_has_its_own_fields_and_no_others() {
        let of = |identity: Value| problems(&[("/identity", identity)]);
        assert_eq!(of(json!({"source": "header"})), ["identity: missing field \"tenant\""]);
        assert_eq!(of(json!({})), ["identity: missing field \"source\""]);
        assert_eq!(
            of(json!({"source": "api_key", "tenant": "x-t"})),
            ["identity: the source api_key has no other fields; tenant and user belong to the source header"]
        );
        assert_eq!(
            of(json!({"source": "header", "tenat": "x-t"})),
            [
                "identity: unknown field \"tenat\"; fields are source, tenant, user",
                "identity: missing field \"tenant\""
            ]
        );
        assert_eq!(of(json!({"source": "header", "tenant": 1})), ["identity.tenant: expected text, found a number"]);
    }

    #[test]
    fn a_document_of_nonsense_ends() {
        for nonsense in [json!(null), json!(1), json!("x"), json!([]), json!([1, {}])] {
            assert!(read(&nonsense).is_err(), "{nonsense}");
        }
        let many: serde_json::Map<String, Value> = (0..300).map(|i| (format!("m{i}"), json!(i))).collect();
        assert_eq!(problems(&[("/models", many.into())]).len(), ENOUGH + 1);
    }

    /// Every place of the policy, filled with every kind of value that holds a key.
    #[test]
    fn no_message_repeats_what_may_be_a_key() {
        const KEY: &str = "sk-live-0123456789";
        fn pointers(node: &Value, at: &str, all: &mut Vec<String>) {
            all.push(at.to_owned());
            match node {
                Value::Object(map) => map.iter().for_each(|(k, v)| pointers(v, &format!("{at}/{k}"), all)),
                Value::Array(list) => list.iter().enumerate().for_each(|(i, v)| pointers(v, &format!("{at}/{i}"), all)),
                _ => {}
            }
        }
        let mut tree = good();
        tree["providers"]["vllm"]["credential"] = json!({"header": "a", "prefix": "b", "env": "C"});
        tree["identity"] = json!({"source": "header", "tenant": "x-t", "user": "x-u"});
        tree["limits"] = json!({"max_nesting": 64});
        let mut all = Vec::new();
        pointers(&tree, "", &mut all);
        let wrong = [
            json!(KEY),
            json!([KEY]),
            json!({"hash": KEY}),
            json!({"key": KEY, "expires": KEY}),
            json!([{KEY: "2027-01-31"}]),
            json!([{"hash": "sha256:00", "expires": KEY}]),
            json!({"x": {KEY: 1}}),
        ];
        let mut refused = 0;
        for pointer in &all {
            for wrong in &wrong {
                let mut changed = tree.clone();
                *changed.pointer_mut(pointer).unwrap() = wrong.clone();
                let text = changed.to_string();
                for result in [super::super::from_value(&changed).err(), super::super::from_json(text.as_bytes()).err()]
                {
                    for problem in result.into_iter().flatten() {
                        refused += 1;
                        assert!(!problem.to_string().contains(KEY), "{pointer} = {wrong}: {problem}");
                    }
                }
            }
        }
        assert!(refused > 300, "{refused}");
    }
}
