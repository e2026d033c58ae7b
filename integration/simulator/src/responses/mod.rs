//! The OpenAI Responses dialect: requests in, documents and streams out.

mod item;
mod object;
mod request;
mod store;
mod stream;

pub use object::{failed, finished, id};
pub use request::{Purpose, find, read};
pub use store::{Response, Store};
pub use stream::{error, events, failure};
