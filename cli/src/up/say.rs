//! Lines for the person who started `pointsman up`.

use std::fmt;
use std::io::Write;

/// Prints a line to standard error, if anybody still reads it. (`eprintln!` panics if not, and Envoy would be left
/// alone.)
pub fn say(line: impl fmt::Display) {
    let _ = writeln!(std::io::stderr(), "{line}");
}
