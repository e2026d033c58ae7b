//! Lists of HTTP statuses.

use crate::config::problem::quoted;
use serde::de::{self, Deserialize, Deserializer};
use serde::ser::{Serialize, SerializeSeq, Serializer};

#[cfg(feature = "schema")]
use schemars::JsonSchema;

/// HTTP statuses: numbers, or `5xx` for 500 to 599.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Statuses {
    /// The statuses listed as numbers.
    pub listed: Vec<u16>,
    /// Whether `5xx` is among them.
    pub all_5xx: bool,
}

/// One of [`Statuses`].
enum Status {
    One(u16),
    All5xx,
}

impl<'de> Deserialize<'de> for Status {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = Status;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a status like 503, or 5xx")
            }
            fn visit_u64<E: de::Error>(self, number: u64) -> Result<Status, E> {
                let wrong = || de::Error::custom(format!("{number} is not a status like 503, or 5xx"));
                u16::try_from(number).ok().filter(|status| *status < 1000).map(Status::One).ok_or_else(wrong)
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Status, E> {
                let wrong = || de::Error::custom(format!("{} is not a status like 503, or 5xx", quoted(text)));
                if text == "5xx" { Ok(Status::All5xx) } else { Err(wrong()) }
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

impl<'de> Deserialize<'de> for Statuses {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut all = Self::default();
        for status in Vec::<Status>::deserialize(deserializer)? {
            match status {
                Status::One(status) => all.listed.push(status),
                Status::All5xx => all.all_5xx = true,
            }
        }
        Ok(all)
    }
}

impl Serialize for Statuses {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut all = serializer.serialize_seq(None)?;
        self.listed.iter().try_for_each(|status| all.serialize_element(status))?;
        if self.all_5xx {
            all.serialize_element("5xx")?;
        }
        all.end()
    }
}

#[cfg(feature = "schema")]
impl JsonSchema for Statuses {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Statuses".into()
    }
    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "description": "HTTP statuses: numbers, or 5xx for 500 to 599.",
            "type": "array",
            "items": {"anyOf": [
                {"type": "integer", "minimum": 401, "maximum": 599, "not": {"enum": [413, 422]}},
                {"const": "5xx"},
            ]}
        })
    }
}
