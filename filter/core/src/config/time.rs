//! A length of time, as people write it.

use crate::config::problem::quoted;
use serde::de::{self, Deserializer};
use serde::ser::Serializer;
use serde::{Deserialize, Serialize};

#[cfg(feature = "schema")]
use schemars::JsonSchema;

/// A duration in milliseconds, written like `250ms`, `30s`, `10m` or `1h 30m`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Time(pub u64);

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = Time;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a duration like 250ms, 30s or 10m")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Time, E> {
                let time = humantime::parse_duration(text).ok().and_then(|time| u64::try_from(time.as_millis()).ok());
                time.map(Time)
                    .ok_or_else(|| E::custom(format!("{} is not a duration like 250ms, 30s or 10m", quoted(text))))
            }
        }
        deserializer.deserialize_str(Visitor)
    }
}

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&format!("{}ms", self.0))
    }
}

#[cfg(feature = "schema")]
impl JsonSchema for Time {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Time".into()
    }
    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "description": "A duration like 250ms, 30s, 10m or 1h 30m.",
            "type": "string",
            "pattern": "^([0-9]+ ?(ns|nsec|us|usec|ms|msec|millis|s|secs?|seconds?|m|mins?|minutes?|h|hrs?|hours?|\
                d|days?|w|weeks?) ?)+$",
            "examples": ["250ms", "30s", "10m", "1h 30m"],
        })
    }
}
