//! Reduces what Envoy says of a configuration that it refuses to the place and the reason.
//!
//! Envoy may repeat the whole configuration in its message, and the configuration may hold secrets of the operator's.

/// Why Envoy refuses a configuration.
#[derive(Debug, PartialEq, Eq)]
pub struct Objection {
    /// The field, like `transport_socket.typed_config.common_tls_context`. Empty if Envoy does not say.
    place: String,
    /// The reason, in one line.
    reason: String,
    /// The name or value that Envoy objects to, if it says which.
    offending: Option<String>,
}

/// The length of a reason, in characters, for words of Envoy that are not known here.
const MAX_REASON: usize = 300;

impl Objection {
    /// Reads the output of `envoy --mode validate`. `None` if it gives no reason.
    pub fn read(output: &str) -> Option<Self> {
        let (_, message) = output.split_once("error initializing configuration '")?;
        let message = message.split_once("': ")?.1.trim();
        if let Some((_, chain)) = message.rsplit_once("Proto constraint validation failed (") {
            return Some(Self::of_constraint(chain.strip_suffix(')').unwrap_or(chain)));
        }
        // The configuration follows the reason.
        let reason = match message.strip_prefix("Unable to parse JSON as proto (") {
            Some(rest) => rest.split_once("): {").map_or(rest, |(reason, _)| reason),
            None => message,
        };
        Some(Self::of_parser(&one_line(reason)))
    }

    /// `AError.B: embedded message failed validation | caused by BError.C[0]: the reason`.
    fn of_constraint(chain: &str) -> Self {
        let mut place = Vec::new();
        let mut reason = "";
        for link in chain.split(" | caused by ") {
            let (field, why) = link.split_once(": ").unwrap_or(("", link));
            place.push(snake_case(field.rsplit('.').next().unwrap_or(field)));
            reason = why;
        }
        Self { place: without_cluster(&place.join(".")), reason: one_line(reason), offending: None }
    }

    fn of_parser(message: &str) -> Self {
        // Protobuf message (type X reason INVALID_ARGUMENT: … @ PLACE: message Y, near 1:2 (offset 1): …)
        let (at, reason) = match message.split_once(" @ ") {
            Some((_, at)) => (at.split(':').next().unwrap_or_default(), after_offset(at)),
            None => ("", message.split_once("INVALID_ARGUMENT: ").map_or(message, |(_, reason)| reason)),
        };
        let reason = reason.strip_suffix(" has unknown fields").unwrap_or(reason);
        // Of the pairs of the whole message, only the end of the outer one is left.
        let open = |reason: &str| reason.matches(')').count() > reason.matches('(').count();
        let reason = reason.strip_suffix(')').filter(|_| open(reason)).unwrap_or(reason);
        let offending = reason.split_once('\'').and_then(|(_, rest)| Some(rest.split_once('\'')?.0.to_owned()));
        let reason = match (reason.starts_with("no such field: "), &offending) {
            (true, Some(field)) => format!("unknown field \"{field}\""),
            _ => reason.chars().take(MAX_REASON).collect(),
        };
        Self { place: without_cluster(at), reason, offending }
    }

    /// Formats the objection for a file with this text: `LINE:COLUMN: PLACE: REASON`, as far as they are known.
    pub fn in_file(&self, text: &str) -> String {
        let at = self.offending.as_deref().and_then(|word| position(text, word));
        let at = at.map(|(line, column)| format!("{line}:{column}:")).unwrap_or_default();
        let place = if self.place.is_empty() { String::new() } else { format!(" {}:", self.place) };
        format!("{at}{place} {}", self.reason)
    }
}

/// Returns what follows `(offset N): `.
fn after_offset(text: &str) -> &str {
    let after = text.split_once("(offset ").and_then(|(_, rest)| rest.split_once("): "));
    after.map_or(text, |(_, reason)| reason)
}

/// Removes the names that only our own files know: the list of clusters, and Envoy's mark of an embedded message.
fn without_cluster(place: &str) -> String {
    let own = place.strip_prefix("static_resources.clusters[").and_then(|rest| rest.split_once(']'));
    own.map_or(place, |(_, rest)| rest.trim_start_matches('.')).replace(".<any>", "")
}

/// `ConnectTimeout` is `connect_timeout` in YAML.
fn snake_case(name: &str) -> String {
    let mut snake = String::with_capacity(name.len() + 4);
    for (i, c) in name.chars().enumerate() {
        if c.is_ascii_uppercase() && i > 0 {
            snake.push('_');
        }
        snake.push(c.to_ascii_lowercase());
    }
    snake
}

/// The protobuf library spaces its words at random.
fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Returns the line and the column, from 1, of the only place outside comments where a text has this word.
fn position(text: &str, word: &str) -> Option<(usize, usize)> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let mut found = None;
    for (number, line) in text.lines().enumerate() {
        let code = if line.trim_start().starts_with('#') { "" } else { line.split(" #").next().unwrap_or(line) };
        for (at, _) in code.match_indices(word) {
            let (before, after) = (code.get(..at)?, code.get(at + word.len()..)?);
            if before.ends_with(is_part) || after.starts_with(is_part) {
                continue;
            }
            if found.is_some() {
                return None;
            }
            found = Some((number + 1, before.chars().count() + 1));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "[2026-11-30 07:13:39.832][8005][critical][main] [source/server/config_validation/server.cc:76] \
        error initializing configuration '/x/validate.yaml': ";
    const FILE: &str = "# type: STATICAL\nname: a\ntype: STATICAL # STATICAL\ntls: {validation_contex: {}}\n";

    fn read(message: &str) -> String {
        Objection::read(&format!("{HEAD}{message}\n")).unwrap().in_file(FILE)
    }

    #[test]
    fn an_unknown_field_is_named_with_its_place() {
        let message = "Protobuf message (type envoy.config.bootstrap.v3.Bootstrap reason INVALID_ARGUMENT: \
            invalid JSON  in   envoy.config.bootstrap.v3.Bootstrap @  static_resources.clusters[2].\
            transport_socket.typed_config.<any>.common_tls_context: message a.CommonTlsContext, near \
            1:23329  (offset  23328):   no   such field: 'validation_contex') has unknown fields";
        assert_eq!(
            read(message),
            "4:7: transport_socket.typed_config.common_tls_context: unknown field \"validation_contex\""
        );
        let message = "Protobuf message (type envoy.config.bootstrap.v3.Bootstrap reason INVALID_ARGUMENT: \
            invalid JSON in envoy.config.bootstrap.v3.Bootstrap @ static_resources.clusters[0]: message \
            envoy.config.cluster.v3.Cluster, near 1:5463 (offset 5462): no such field: 'connect_timeot') has unknown \
            fields";
        assert_eq!(read(message), " unknown field \"connect_timeot\"", "the file does not have it: no line");
    }

    #[test]
    fn a_wrong_value_is_named_with_its_place() {
        let message = "Protobuf message (type envoy.config.bootstrap.v3.Bootstrap reason INVALID_ARGUMENT: \
            unknown enum value: 'STATICAL') has unknown fields";
        assert_eq!(read(message), "3:7: unknown enum value: 'STATICAL'");
        let message = "Unable to parse JSON as proto (INVALID_ARGUMENT: invalid JSON in envoy.config.bootstrap.v3.\
            Bootstrap @ static_resources.clusters[2].connect_timeout: message google.protobuf.Duration, near 1:5737 \
            (offset 5736): duration must start with an integer): {\"admin\":{\"x\":\"sk-live\"}}";
        assert_eq!(read(message), " connect_timeout: duration must start with an integer");
        let message = "Unable to parse JSON as proto (INVALID_ARGUMENT: could not find @type 'a.B'): {\"sk-live\":{}}";
        assert_eq!(read(message), " could not find @type 'a.B'");
    }

    #[test]
    fn the_configuration_is_not_repeated() {
        let message = "goo.gle/debugonly  \nnode {\n  id: \"sk-live: Proto constraint validation failed (\"\n}\n: \
            Proto constraint validation failed (BootstrapValidationError.StaticResources: embedded message failed \
            validation | caused by StaticResourcesValidationError.Clusters[2]: embedded message failed validation | \
            caused by ClusterValidationError.OutlierDetection: embedded message failed validation | caused by \
            OutlierDetectionValidationError.MaxEjectionPercent: value must be less than or equal to 100)";
        assert_eq!(read(message), " outlier_detection.max_ejection_percent: value must be less than or equal to 100");
    }

    #[test]
    fn other_words_of_envoy_are_kept_within_bounds() {
        assert_eq!(read("Invalid path: /nonexistent/ca.pem"), " Invalid path: /nonexistent/ca.pem");
        assert_eq!(read(&"x".repeat(2000)).len(), 1 + MAX_REASON);
        assert_eq!(Objection::read("Segmentation fault"), None);
        assert_eq!(Objection::read(""), None);
    }
}
