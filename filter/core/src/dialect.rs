//! Wire formats of chat APIs: each dialect is a folder, both as a caller's and as a provider's.

pub mod openai;
