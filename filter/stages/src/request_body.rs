//! The request's body as it goes on: another head, and what follows of the caller's own bytes.

use crate::host::{Buffer, Host};
use std::ops::Range;

/// A request body that is shorter, in bytes, is put together here: then it takes one call.
const SHORT_BODY: usize = 16 << 10;

/// Replaces the body by `head`, then these parts of the old one with commas between them, then `closing`; a long one
/// piece by piece, so that it is copied once, by the host. `false` if the host would not.
pub fn replace(host: &impl Host, body: &[u8], head: &[u8], rest: &[Range<usize>], closing: &Range<usize>) -> bool {
    let kind = Buffer::RequestBody;
    let piece = |range: &Range<usize>| body.get(range.clone()).unwrap_or_default();
    if body.len() < SHORT_BODY {
        let mut whole = Vec::with_capacity(head.len() + body.len() + 1);
        whole.extend_from_slice(head);
        for (i, range) in rest.iter().enumerate() {
            if i > 0 {
                whole.push(b',');
            }
            whole.extend_from_slice(piece(range));
        }
        whole.extend_from_slice(piece(closing));
        return host.replace_prefix(kind, body.len(), &whole);
    }
    let mut done = host.replace_prefix(kind, body.len(), head);
    for (i, range) in rest.iter().enumerate() {
        done = done && (i == 0 || host.append(kind, b",")) && host.append(kind, piece(range));
    }
    done && host.append(kind, piece(closing))
}
