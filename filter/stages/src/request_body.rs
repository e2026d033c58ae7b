//! Rewrites the request body: a new head, then the parts of the caller's own bytes that follow it.

use crate::host::{Buffer, Host};
use std::ops::Range;

/// A body shorter than this, in bytes, is assembled here and replaced with one host call.
const SHORT_BODY: usize = 16 << 10;

/// Replaces the body with `head`, the `rest` parts of the old body separated by commas, and `closing`. A long body is
/// written piece by piece, so that only the host copies it. Returns `false` if the host refused.
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
