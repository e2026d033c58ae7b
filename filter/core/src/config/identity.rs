//! Who calls: the source of a caller's identity, and the keys of tenants.

use serde::de::{self, Deserializer, MapAccess, Visitor};
use serde::{Deserialize, Serialize};
use std::fmt;

#[cfg(feature = "schema")]
use schemars::JsonSchema;

/// Where the tenant's name comes from.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(JsonSchema))]
#[serde(tag = "source", rename_all = "snake_case", deny_unknown_fields)]
pub enum Identity {
    /// An API key in `Authorization: Bearer KEY`, `x-api-key: KEY` or `api-key: KEY`, matched by SHA-256 against the
    /// tenants' keys.
    #[default]
    ApiKey,
    /// Headers set by a trusted filter that runs first (jwt_authn, ext_authz). That filter must overwrite or remove any
    /// values that the client sent.
    Header {
        /// The header that carries the tenant's name. Required with source `header`, not allowed otherwise.
        tenant: String,
        /// The header that carries the end user's id. Logs contain only a hash of it. Only with source `header`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        user: Option<String>,
        /// The header that carries the caller's permissions, such as a hash of its groups. The cache scope `permission`
        /// separates responses by it. Only with source `header`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        permissions: Option<String>,
    },
}

/// All fields of every source. Read in place of the tagged enum, which buffers: its mistakes lose their place, and its
/// unit variants let unknown fields pass.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct IdentityFields {
    source: IdentitySource,
    #[serde(default)]
    tenant: Option<String>,
    #[serde(default)]
    user: Option<String>,
    #[serde(default)]
    permissions: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum IdentitySource {
    ApiKey,
    Header,
}

impl<'de> Deserialize<'de> for Identity {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Deserialize::deserialize(deserializer)? {
            IdentityFields { source: IdentitySource::Header, tenant: Some(tenant), user, permissions } => {
                Ok(Self::Header { tenant, user, permissions })
            }
            IdentityFields { source: IdentitySource::Header, tenant: None, .. } => {
                Err(de::Error::missing_field("tenant"))
            }
            IdentityFields { source: IdentitySource::ApiKey, tenant: None, user: None, permissions: None } => {
                Ok(Self::ApiKey)
            }
            IdentityFields { source: IdentitySource::ApiKey, .. } => Err(de::Error::custom(
                "source api_key accepts no other fields; tenant, user and permissions belong to source header",
            )),
        }
    }
}

/// An API key: `"sha256:HEX"`, or `{hash: "sha256:HEX", expires: "2027-01-31T00:00:00Z"}`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    /// `sha256:` and 64 hexadecimal digits: the SHA-256 of the key's bytes.
    pub hash: String,
    /// Expiry as an RFC 3339 time (UTC, `Z`), from which the key is rejected.
    pub expires: Option<String>,
}

#[derive(Deserialize, Serialize)]
#[cfg_attr(feature = "schema", derive(JsonSchema))]
#[serde(deny_unknown_fields)]
struct KeyWithExpiry {
    /// `sha256:` and 64 hexadecimal digits: the SHA-256 of the key's bytes.
    #[cfg_attr(feature = "schema", schemars(regex(pattern = r"^sha256:[0-9a-fA-F]{64}$")))]
    hash: String,
    /// Expiry as an RFC 3339 time (UTC, `Z`), such as `2027-01-31T00:00:00Z`. From then on, the key gets 401.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    expires: Option<String>,
}

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct KeyVisitor;
        impl<'de> Visitor<'de> for KeyVisitor {
            type Value = Key;
            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("\"sha256:HEX\" or {hash: \"sha256:HEX\", expires: TIME}")
            }
            fn visit_str<E: de::Error>(self, hash: &str) -> Result<Key, E> {
                Ok(Key { hash: hash.to_owned(), expires: None })
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Key, A::Error> {
                let KeyWithExpiry { hash, expires } =
                    Deserialize::deserialize(de::value::MapAccessDeserializer::new(map))?;
                Ok(Key { hash, expires })
            }
        }
        deserializer.deserialize_any(KeyVisitor)
    }
}

impl Serialize for Key {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match &self.expires {
            None => serializer.serialize_str(&self.hash),
            Some(_) => KeyWithExpiry { hash: self.hash.clone(), expires: self.expires.clone() }.serialize(serializer),
        }
    }
}

#[cfg(feature = "schema")]
impl JsonSchema for Key {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Key".into()
    }
    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        let with_expiry = generator.subschema_for::<KeyWithExpiry>();
        schemars::json_schema!({
            "description": "The SHA-256 of an API key, alone or with its expiry time.",
            "anyOf": [{"type": "string", "pattern": "^sha256:[0-9a-fA-F]{64}$"}, with_expiry]
        })
    }
}
