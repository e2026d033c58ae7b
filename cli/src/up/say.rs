//! Prints messages for the user of `pointsman up`.

use std::fmt;
use std::io::Write;

/// Prints a line to standard error and ignores failures. `eprintln!` would panic if standard error is closed, and leave
/// Envoy unsupervised.
pub fn say(line: impl fmt::Display) {
    let _ = writeln!(std::io::stderr(), "{line}");
}
