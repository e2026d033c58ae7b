//! What a wrong value should be: the remedy for each kind of value that a place expects and each that people write.

use super::sections::{NAMED, names, refers_to, singular};
use super::spelling::proposal;
use crate::config::Time;
use crate::config::place::{Place, Step};
use crate::config::problem::{looks_secret, quoted};
use serde_json::{Value, json};

/// A wrong value, where it is, and the tree it is in.
pub(super) struct Wrong<'a> {
    pub(super) place: &'a [Step],
    pub(super) value: &'a Value,
    pub(super) tree: &'a Value,
}

impl Wrong<'_> {
    /// Returns the whole message. `expected`: the words for what the place takes.
    pub(super) fn message(&self, expected: &str) -> String {
        let (expected, remedy) = match expected {
            "a whole number" => (expected.to_owned(), self.whole_number()),
            "a number" => (expected.to_owned(), self.number()),
            "a boolean" => ("true or false".to_owned(), self.boolean()),
            "a list" => (expected.to_owned(), self.list()),
            "a string" => self.text(),
            "a mapping of fields" => (expected.to_owned(), self.fields()),
            "a mapping of names to fields" => (expected.to_owned(), self.entries()),
            _ if expected.starts_with("a duration") => ("a duration".to_owned(), self.duration()),
            _ if self.place.iter().any(|step| step.as_name() == Some("keys")) => {
                (expected.to_owned(), Some("`pointsman hash-key` prints it".to_owned()))
            }
            _ => (expected.to_owned(), self.nothing()),
        };
        let found = self.found();
        if expected == "a whole number" && self.is_huge() {
            return format!("{found} is out of range; {}", remedy.unwrap_or_default());
        }
        let remedy = remedy.map(|remedy| format!("; {remedy}")).unwrap_or_default();
        format!("expected {expected}, found {found}{remedy}")
    }

    /// The value as a message shows it.
    fn found(&self) -> String {
        let hides = Place::from(self.place).holds_secrets();
        match self.value {
            Value::Null => "nothing".to_owned(),
            Value::Array(_) => "a list".to_owned(),
            Value::Object(_) => "a mapping".to_owned(),
            Value::String(_) if hides => "a string".to_owned(),
            Value::Number(_) if hides => "a number".to_owned(),
            Value::String(text) => quoted(text),
            other => other.to_string(),
        }
    }

    /// Whether it is a number above all that a policy takes.
    fn is_huge(&self) -> bool {
        self.value.as_f64().is_some_and(|number| number > f64::from(u32::MAX))
    }

    fn field(&self) -> &str {
        self.place.iter().rev().find_map(Step::as_name).unwrap_or_default()
    }

    fn hides(&self) -> bool {
        Place::from(self.place).holds_secrets() || self.value.as_str().is_some_and(looks_secret)
    }

    /// For a value that is missing behind its name.
    fn nothing(&self) -> Option<String> {
        if !self.value.is_null() {
            return None;
        }
        if matches!(self.place.last(), Some(Step::Index(_))) {
            return Some("write a value after the `-`, or remove it".to_owned());
        }
        let example = example(self.place, self.tree);
        let or_not = if is_required(self.place) { "" } else { ", or remove the line" };
        Some(match example {
            Some(example) => format!("write a value, such as `{example}`{or_not}"),
            None => format!("write a value{or_not}"),
        })
    }

    /// Whether the field is a limit that may be left out.
    fn is_limit(&self) -> bool {
        let names: Vec<_> = self.place.iter().filter_map(Step::as_name).collect();
        names.contains(&"limits")
            || matches!(names.as_slice(), ["models", _, "max_concurrent"] | ["tasks", _, "max_output_tokens"])
    }

    fn whole_number(&self) -> Option<String> {
        const NO_LIMIT: &str = "for no limit, remove the line";
        match self.value {
            Value::Number(_) if self.is_huge() && self.field() == "context" => {
                Some("the largest is 100000000".to_owned())
            }
            Value::Number(number) if number.is_u64() => Some(format!("the largest is {}", u32::MAX)),
            Value::Number(number) => {
                let number = number.as_f64()?;
                if number < 0.0 {
                    return self.is_limit().then(|| NO_LIMIT.to_owned());
                }
                if self.is_huge() {
                    return Some("write a smaller number".to_owned());
                }
                (number.fract() == 0.0).then(|| format!("write {number:.0}"))
            }
            Value::String(text) => {
                let word = text.trim().to_ascii_lowercase();
                if ["unlimited", "none", "infinite", "inf", "no", "never", "off", "-1", "max"].contains(&word.as_str())
                {
                    return self.is_limit().then(|| NO_LIMIT.to_owned());
                }
                let is_size = self.field().ends_with("_bytes");
                Some(match amount(text, is_size) {
                    Some(number) if word.bytes().all(|b| b.is_ascii_digit()) => {
                        format!("remove the quotes: {number}")
                    }
                    Some(number) => format!("write {number}"),
                    None => return None,
                })
            }
            Value::Array(list) if list.len() == 1 => Some("remove the brackets".to_owned()),
            _ => self.nothing(),
        }
    }

    fn number(&self) -> Option<String> {
        let Value::String(text) = self.value else { return self.nothing() };
        let word = text.trim().trim_end_matches("USD").trim_end_matches("usd").trim();
        let word = word.trim_matches(['$', ' ', '\u{20ac}']);
        if let Some(percent) = word.strip_suffix('%') {
            let share: f64 = percent.trim().parse().ok()?;
            return Some(format!("write {}", decimal(share / 100.0)));
        }
        if ["free", "none", "zero"].contains(&word.to_ascii_lowercase().as_str()) {
            return Some("write 0".to_owned());
        }
        let plain = word.replace(['_', ' '], "");
        let plain = if plain.contains('.') { plain.replace(',', "") } else { plain.replace(',', ".") };
        let number: f64 = plain.parse().ok().filter(|number: &f64| number.is_finite())?;
        Some(if plain == *text { format!("remove the quotes: {plain}") } else { format!("write {}", decimal(number)) })
    }

    fn boolean(&self) -> Option<String> {
        let word = match self.value {
            Value::String(text) => text.trim().to_ascii_lowercase(),
            Value::Number(number) => number.to_string(),
            _ => return self.nothing(),
        };
        match word.as_str() {
            "yes" | "on" | "y" | "true" | "1" | "enabled" => Some("write true, without quotes".to_owned()),
            "no" | "off" | "n" | "false" | "0" | "disabled" => Some("write false, without quotes".to_owned()),
            _ => None,
        }
    }

    /// A duration that has no unit, a wrong one, or is no text.
    pub(super) fn duration(&self) -> Option<String> {
        let no_unit =
            |number: &str| format!("a unit is missing: write {number}s for seconds or {number}ms for milliseconds");
        let text = match self.value {
            Value::Number(number) if number.is_u64() => return Some(no_unit(&number.to_string())),
            Value::Number(number) => {
                let remedy = number.as_f64().and_then(|seconds| in_ms(seconds * 1000.0));
                return remedy.map(|remedy| format!("a unit is missing: for seconds, {remedy}"));
            }
            Value::String(text) => text.trim(),
            _ => return self.nothing(),
        };
        let lower = text.to_ascii_lowercase();
        let split =
            text.find(|c: char| !(c.is_ascii_digit() || c == '.' || c == ',' || c == '_')).unwrap_or(text.len());
        let (number, unit) = text.split_at_checked(split)?;
        let unit = unit.trim();
        if ["never", "none", "infinite", "unlimited", "off", "inf"].contains(&lower.as_str()) {
            return Some("a time has no such value; write a long one, such as 24h".to_owned());
        }
        if number.is_empty() {
            let is_iso = lower.starts_with("pt") || lower.starts_with('p');
            let iso = lower.trim_start_matches('p').trim_start_matches('t');
            return if is_iso && is_time(iso) { Some(format!("write {iso}")) } else { Some(UNITS.to_owned()) };
        }
        if unit.is_empty() && number.bytes().all(|b| b.is_ascii_digit()) {
            return Some(no_unit(number));
        }
        let scale = match unit.to_ascii_lowercase().as_str() {
            "ms" => Some(1.0),
            "s" | "sec" | "" => Some(1000.0),
            "m" | "min" => Some(60_000.0),
            "h" | "hours" | "hour" => Some(3_600_000.0),
            "d" | "days" | "day" => Some(86_400_000.0),
            _ => None,
        };
        if let (true, Some(scale)) = (number.contains(['.', ',']), scale) {
            return number.replace(',', ".").parse::<f64>().ok().and_then(|number| in_ms(number * scale));
        }
        if is_time(&lower) {
            return Some(format!("units are lower case: write {lower}"));
        }
        Some(UNITS.to_owned())
    }

    fn text(&self) -> (String, Option<String>) {
        let word = match self.value {
            Value::Number(number) => number.to_string(),
            Value::Bool(on) => on.to_string(),
            Value::Array(list) if list.len() == 1 => {
                let one = list.first().and_then(Value::as_str).filter(|text| !self.hides() && !looks_secret(text));
                let remedy = one
                    .map_or("write one value, not a list".to_owned(), |one| format!("write {one}, without brackets"));
                return (self.noun(), Some(remedy));
            }
            Value::Array(_) => return (self.noun(), Some("write one value, not a list".to_owned())),
            Value::Null => return (self.noun(), self.nothing()),
            _ => return (self.noun(), None),
        };
        if let Some(section) = refers_to(self.place) {
            let known = names(self.tree, section);
            let remedy = if known.contains(&word.as_str()) {
                Some(format!("put it in quotes: \"{word}\""))
            } else {
                proposal(&word, known.iter().copied()).or_else(|| some_of(section, &known))
            };
            return (self.noun(), remedy);
        }
        // Only where the quoted text is right too.
        let takes_any = matches!(self.field(), "model" | "region" | "template" | "unsupported_params");
        (self.noun(), takes_any.then(|| format!("put it in quotes: \"{word}\"")))
    }

    /// The words for a text that is expected.
    fn noun(&self) -> String {
        match refers_to(self.place) {
            Some(section) => format!("the name of a {}", singular(section).unwrap_or_default()),
            None => "a string".to_owned(),
        }
    }

    fn list(&self) -> Option<String> {
        match self.value {
            Value::String(_) if self.field() == "keys" => Some("write `keys: [\"sha256:…\"]`".to_owned()),
            Value::String(text) if !self.hides() => {
                let words: Vec<_> = text.split(',').map(str::trim).collect();
                words.iter().all(|word| word.len() < 65).then(|| format!("write [{}]", words.join(", ")))
            }
            Value::Number(number) if !self.hides() => Some(format!("write [{number}]")),
            Value::Object(map) if self.field() == "keys" => Some(match map.contains_key("hash") {
                true => "write `- ` before it".to_owned(),
                false => "write the hashes without names: `keys: [\"sha256:…\"]`".to_owned(),
            }),
            Value::Object(map) if map.keys().all(|name| !looks_secret(name)) && map.len() < 20 => {
                Some(format!("write [{}]", map.keys().cloned().collect::<Vec<_>>().join(", ")))
            }
            Value::Object(_) => Some("write `- ` before each entry".to_owned()),
            Value::Null => {
                let example = example(self.place, self.tree);
                Some(
                    example.map_or("write [] for none, or remove the line".to_owned(), |example| {
                        format!("write `{example}`")
                    }),
                )
            }
            _ => None,
        }
    }

    /// The fields of a section, or of an entry.
    fn fields(&self) -> Option<String> {
        let names: Vec<&str> = self.place.iter().filter_map(Step::as_name).collect();
        let plain = |text: &str| !self.hides() && text.len() < 65 && !text.contains("://");
        let name = self.value.as_str().filter(|text| plain(text));
        Some(match (names.as_slice(), self.value, name) {
            (["tasks", _], Value::String(_), Some(model)) => format!("write {{primary: {model}}}"),
            (["tasks", _], Value::Array(list), _) => {
                let models: Option<Vec<&str>> = list.iter().map(Value::as_str).collect();
                match models?.as_slice() {
                    [first] => format!("write {{primary: {first}}}"),
                    [first, others @ ..] => format!("write {{primary: {first}, fallback: [{}]}}", others.join(", ")),
                    [] => return None,
                }
            }
            (["tiers", _], Value::String(_), Some(model)) => format!("write {{models: [{model}]}}"),
            (["tiers", _], Value::Array(list), _) => {
                let models: Option<Vec<&str>> = list.iter().map(Value::as_str).collect();
                format!("write {{models: [{}]}}", models?.join(", "))
            }
            (["tenants", _], Value::String(_), Some(tier)) => format!("write {{tier: {tier}, keys: [\"sha256:…\"]}}"),
            (["tenants", _], Value::Array(_), _) => "write {tier: NAME, keys: [\"sha256:…\"]}".to_owned(),
            (["providers", _], Value::String(url), _) if url.contains("://") => {
                "the address belongs to the provider's Envoy cluster; here write {dialect: openai, data: internal}"
                    .to_owned()
            }
            (["identity"], Value::String(_), Some(source)) => format!("write {{source: {source}}}"),
            ([.., "price" | "default_price"], Value::Number(price), _) => {
                format!("write {{input: {price}, output: {price}}}")
            }
            ([.., "price" | "default_price"], Value::String(text), _)
                if ["free", "0", "none"].contains(&text.as_str()) =>
            {
                "write {input: 0, output: 0}".to_owned()
            }
            (["tasks", _, "cache"], Value::String(text), _) if is_time(text) => format!("write {{ttl: {text}}}"),
            (["tasks", _, "cache"], Value::Bool(false), _) => "for no cache, remove the line".to_owned(),
            (["redis"], Value::Bool(true), _) => "write `redis: {cluster: redis}`".to_owned(),
            (["cache" | "redis" | "quota" | "request" | "response" | "resilience" | "identity"], ..) => {
                "write its fields below it, indented, or remove the line".to_owned()
            }
            ([section, _], Value::Null, _) if singular(section).is_some() => {
                format!("write the fields of the {} below it, indented", singular(section).unwrap_or_default())
            }
            _ => match example(self.place, self.tree) {
                Some(example) => format!("write `{example}`"),
                None => return None,
            },
        })
    }

    fn entries(&self) -> Option<String> {
        let section = self.field();
        let (_, singular) = NAMED.iter().find(|(name, _)| *name == section)?;
        Some(match self.value {
            Value::Null => format!("write at least one {singular} below it, indented"),
            _ => format!("write `NAME:` for each {singular}, and its fields below it, indented"),
        })
    }
}

/// The units of a time.
pub(super) const UNITS: &str = "units are ms, s, m, h and d, such as 250ms, 30s or 1h 30m";

fn is_time(text: &str) -> bool {
    serde_json::from_value::<Time>(json!(text)).is_ok()
}

fn in_ms(ms: f64) -> Option<String> {
    (1.0..1e12).contains(&ms).then(|| format!("write {ms:.0}ms"))
}

/// Formats a number without an exponent and without zeros at its end.
pub(super) fn decimal(number: f64) -> String {
    let text = format!("{number:.6}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// Returns the names of a section for a message, if there are any.
pub(super) fn some_of(section: &str, names: &[&str]) -> Option<String> {
    let some: Vec<_> = names.iter().filter(|name| !looks_secret(name)).take(20).copied().collect();
    let more = if names.len() > some.len() { ", …" } else { "" };
    (!some.is_empty()).then(|| format!("known {section}: {}{more}", some.join(", ")))
}

/// Reads a number as people write it: `100_000`, `100,000`, `1e6`, `128k`, `32MiB`.
fn amount(text: &str, is_size: bool) -> Option<u64> {
    let word = text.trim().replace(['_', ' '], "").to_ascii_lowercase();
    let split = word.find(|c: char| !(c.is_ascii_digit() || matches!(c, '.' | ','))).unwrap_or(word.len());
    let (digits, unit) = word.split_at_checked(split)?;
    // A comma between groups of three digits separates thousands.
    let groups: Vec<_> = digits.split(',').collect();
    if groups.iter().skip(1).any(|group| group.len() != 3) {
        return None;
    }
    let number: f64 = digits.replace(',', "").parse().ok()?;
    let scale: f64 = match (unit, is_size) {
        ("", _) => 1.0,
        ("k", false) => 1e3,
        ("m", false) => 1e6,
        ("b" | "bytes", true) => 1.0,
        ("k" | "kb", true) => 1e3,
        ("m" | "mb", true) => 1e6,
        ("g" | "gb", true) => 1e9,
        ("ki" | "kib", true) => 1024.0,
        ("mi" | "mib", true) => 1_048_576.0,
        ("gi" | "gib", true) => 1_073_741_824.0,
        _ => return word.parse::<f64>().ok().filter(|n| n.fract() == 0.0 && (0.0..1e15).contains(n)).map(|n| n as u64),
    };
    let whole = number * scale;
    (whole.fract() == 0.0 && whole < 1e15).then_some(whole as u64)
}

/// Returns whether a field cannot be left out.
fn is_required(place: &[Step]) -> bool {
    let names: Vec<&str> = place.iter().filter_map(Step::as_name).collect();
    matches!(
        names.as_slice(),
        ["providers", _, "dialect" | "data"]
            | ["models", _, "provider" | "model" | "context" | "max_output_tokens"]
            | ["tasks", _, "primary"]
            | ["tiers", _, "models"]
            | ["tenants", _, "tier"]
            | ["tasks", _, "cache", "ttl"]
            | [.., "price" | "default_price", "input" | "output"]
            | [.., "credential", "header"]
            | ["identity", "source"]
    )
}

/// Returns an example of the field at a place: `context: 128000`.
pub(super) fn example(place: &[Step], tree: &Value) -> Option<String> {
    let field = place.iter().rev().find_map(Step::as_name)?;
    let first = |section: &str| {
        let all = names(tree, section);
        all.iter().find(|name| !looks_secret(name)).map_or_else(|| "NAME".to_owned(), |name| (*name).to_owned())
    };
    if let Some(section) = refers_to(place) {
        return Some(format!("{field}: {}", first(section)));
    }
    let names: Vec<&str> = place.iter().filter_map(Step::as_name).collect();
    let value = match (names.as_slice(), field) {
        (["tiers", _, "models"], _) => return Some(format!("models: [{}]", first("models"))),
        (["identity", ..], "tenant") => "x-tenant",
        (_, "dialect") => "openai",
        (_, "data" | "max_data") => "internal",
        (["models", _, "model"], _) => "gpt-4.1",
        (_, "context") => "128000",
        (_, "max_output_tokens") => "4096",
        (_, "level") => "mid",
        (_, "input") => "0.4",
        (_, "output") => "1.6",
        (_, "price" | "default_price") => "{input: 0.4, output: 1.6}",
        (_, "credential") => "{header: authorization, prefix: \"Bearer \", env: NAME_API_KEY}",
        (_, "header") => "authorization",
        (_, "hash") => "\"sha256:…\"",
        (_, "keys") => "[\"sha256:…\"]",
        (["tasks", _, "cache"], _) => "{ttl: 1h}",
        (_, "ttl") => "1h",
        (_, "source") => "api_key",
        (_, "identity") => "{source: api_key}",
        (_, "limits") => "{requests_per_minute: 60}",
        (_, "retry_on_status") => "[429, 5xx]",
        (_, "capabilities") => "[tools, vision]",
        (_, "fallback") => return Some(format!("fallback: [{}]", first("models"))),
        _ => return None,
    };
    Some(format!("{field}: {value}"))
}
