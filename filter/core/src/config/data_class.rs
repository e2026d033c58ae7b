//! How sensitive data is, and the names of its classes.

use serde::{Deserialize, Serialize};

#[cfg(feature = "schema")]
use schemars::JsonSchema;

/// How sensitive data is; each class includes the ones before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize, Hash)]
#[cfg_attr(feature = "schema", derive(JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum DataClass {
    /// Fit for publication.
    Public,
    /// Ordinary business data.
    Internal,
    /// Data whose disclosure would do harm.
    Confidential,
    /// Data protected by law or contract, such as health, payment and personal records.
    Regulated,
}

impl DataClass {
    /// The class of this name, as policies and callers write it.
    pub fn named(name: &[u8]) -> Option<Self> {
        match name {
            b"public" => Some(Self::Public),
            b"internal" => Some(Self::Internal),
            b"confidential" => Some(Self::Confidential),
            b"regulated" => Some(Self::Regulated),
            _ => None,
        }
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Public => "public",
            Self::Internal => "internal",
            Self::Confidential => "confidential",
            Self::Regulated => "regulated",
        }
    }
}
