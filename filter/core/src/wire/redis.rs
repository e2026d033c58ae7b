//! Redis commands over an HTTP bridge (webdis), and the replies to them.
//!
//! webdis reads a command from the body of a POST: the arguments, percent-encoded and joined by `/`, followed by the
//! format of the reply. The gateway requests `.raw`, which is Redis's own protocol, RESP2
//! (<https://redis.io/docs/latest/develop/reference/protocol-spec/>), because webdis's JSON would end a value at its
//! first NUL byte.
//!
//! webdis alters arrays: it sends every integer as text and leaves out every nil. A script that returns several values
//! must return a flat array without nil. [`Value::integer`] reads numbers in both forms.

use crate::config;
use crate::config::problem::Problem;
use crate::wire::http_call::{HttpCall, HttpCallResult};
use percent_encoding::percent_encode_byte;

/// The bridge to Redis.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bridge {
    /// Name of the bridge's Envoy cluster.
    pub cluster: Box<str>,
    /// Timeout of a command in milliseconds.
    pub timeout_ms: u64,
}

impl Bridge {
    /// Converts the policy's section, and reports its mistakes.
    pub(crate) fn from_config(config: &config::Redis, problems: &mut Vec<Problem>) -> Self {
        let config::Redis { cluster, timeout } = config;
        if !(1..=10_000).contains(&timeout.0) {
            problems
                .push(Problem::new("redis.timeout", format!("{}ms is out of range: expected 1ms to 10s", timeout.0)));
        }
        Self { cluster: cluster.as_str().into(), timeout_ms: timeout.0 }
    }

    /// Returns the call that runs one command: its name, then its arguments, which may be any bytes.
    pub fn command(&self, arguments: &[&[u8]]) -> HttpCall {
        let mut body = Vec::with_capacity(arguments.iter().map(|a| a.len() + a.len() / 2 + 1).sum::<usize>() + 4);
        for (i, argument) in arguments.iter().enumerate() {
            if i > 0 {
                body.push(b'/');
            }
            for byte in *argument {
                match is_plain(*byte) {
                    true => body.push(*byte),
                    false => body.extend_from_slice(percent_encode_byte(*byte).as_bytes()),
                }
            }
        }
        body.extend_from_slice(b".raw");
        let headers = vec![
            (":method", "POST".into()),
            (":path", "/".into()),
            (":authority", self.cluster.to_string().into()),
            ("content-length", body.len().to_string().into()),
        ];
        HttpCall { cluster: self.cluster.to_string(), headers, body, timeout_ms: self.timeout_ms }
    }
}

/// Returns whether a byte needs no percent-encoding. webdis splits the body at `/`, parses what follows a `.` as the
/// format of the reply, and decodes `+` as a space.
fn is_plain(byte: u8) -> bool {
    // A byte set and the iterator of `percent_encoding` take twice as long for a cache entry.
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_')
}

/// A reply from Redis.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value<'a> {
    /// A status like `OK`.
    Status(&'a [u8]),
    /// A number.
    Integer(i64),
    /// A value of any bytes.
    Bytes(&'a [u8]),
    /// The key does not exist.
    Nil,
    /// A list.
    Array(Vec<Value<'a>>),
}

/// Why there is no reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// The bridge did not answer with 200: it timed out, or has no connection to Redis.
    Unreachable,
    /// Redis refused the command with this message. Its first word is the kind of error, such as `NOSCRIPT`.
    Refused(String),
    /// The body is not exactly one reply.
    Malformed,
}

impl Value<'_> {
    /// Returns the number, in either form.
    pub fn integer(&self) -> Option<i64> {
        match self {
            Self::Integer(number) => Some(*number),
            Self::Bytes(text) => std::str::from_utf8(text).ok()?.parse().ok(),
            Self::Status(_) | Self::Nil | Self::Array(_) => None,
        }
    }
}

/// Reads the reply to a call that [`Bridge::command`] created.
///
/// # Errors
/// Why there is no reply.
pub fn answer<'a>(answered: &HttpCallResult<'a>) -> Result<Value<'a>, Failure> {
    if answered.status != 200 {
        return Err(Failure::Unreachable);
    }
    let mut rest = answered.body;
    match value(&mut rest, 0)? {
        value if rest.is_empty() => Ok(value),
        _ => Err(Failure::Malformed),
    }
}

/// Deepest nesting of arrays in a reply: more than any of the gateway's commands returns.
const MAX_NESTING: u32 = 4;

fn value<'a>(rest: &mut &'a [u8], depth: u32) -> Result<Value<'a>, Failure> {
    let line = take_line(rest)?;
    let (kind, text) = line.split_first().ok_or(Failure::Malformed)?;
    let number = || -> Result<i64, Failure> {
        std::str::from_utf8(text).ok().and_then(|text| text.parse().ok()).ok_or(Failure::Malformed)
    };
    match kind {
        b'+' => Ok(Value::Status(text)),
        b'-' => Err(Failure::Refused(String::from_utf8_lossy(text).into_owned())),
        b':' => number().map(Value::Integer),
        b'$' => match usize::try_from(number()?) {
            Err(_) => Ok(Value::Nil),
            Ok(len) => {
                let (bytes, after) = rest.split_at_checked(len).ok_or(Failure::Malformed)?;
                *rest = after.strip_prefix(b"\r\n").ok_or(Failure::Malformed)?;
                Ok(Value::Bytes(bytes))
            }
        },
        b'*' if depth < MAX_NESTING => match usize::try_from(number()?) {
            Err(_) => Ok(Value::Nil),
            Ok(count) => {
                let mut all = Vec::new();
                // webdis leaves out nil elements, so there may be fewer than announced.
                for _ in 0..count {
                    if rest.is_empty() && depth == 0 {
                        break;
                    }
                    all.push(value(rest, depth + 1)?);
                }
                Ok(Value::Array(all))
            }
        },
        _ => Err(Failure::Malformed),
    }
}

fn take_line<'a>(rest: &mut &'a [u8]) -> Result<&'a [u8], Failure> {
    let end = memchr::memmem::find(rest, b"\r\n").ok_or(Failure::Malformed)?;
    let (line, after) = rest.split_at_checked(end).ok_or(Failure::Malformed)?;
    *rest = after.get(2..).unwrap_or_default();
    Ok(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(body: &[u8]) -> Result<Value<'_>, Failure> {
        answer(&HttpCallResult { status: 200, body })
    }

    #[test]
    fn arguments_of_any_bytes_stay_apart() {
        let bridge = Bridge { cluster: "redis".into(), timeout_ms: 50 };
        let body = |arguments: &[&[u8]]| String::from_utf8(bridge.command(arguments).body).unwrap();
        assert_eq!(body(&[b"GET", b"a/b.json"]), "GET/a%2Fb%2Ejson.raw");
        assert_eq!(body(&[b"SET", b"k", b"a b+\0\xff%?"]), "SET/k/a%20b%2B%00%FF%25%3F.raw");
        assert_eq!(body(&[b"SET", b"", b""]), "SET//.raw");
        assert_ne!(body(&[b"DEL", b"a", b"b"]), body(&[b"DEL", b"a/b"]));
        let call = bridge.command(&[b"PING"]);
        assert_eq!((&*call.cluster, call.timeout_ms), ("redis", 50));
        assert!(call.headers.contains(&("content-length", "8".into())));
    }

    /// Recorded from Debian's webdis 0.1.9.
    #[test]
    fn reads_what_webdis_answers() {
        assert_eq!(read(b"+OK\r\n"), Ok(Value::Status(b"OK")));
        assert_eq!(read(b"$11\r\nhe+llo \x00\xff.?\r\n"), Ok(Value::Bytes(b"he+llo \x00\xff.?")));
        assert_eq!(read(b"$0\r\n\r\n"), Ok(Value::Bytes(b"")));
        assert_eq!(read(b"$-1\r\n"), Ok(Value::Nil));
        assert_eq!(read(b":7\r\n").unwrap().integer(), Some(7));
        // {1, ARGV[1], KEYS[1], false}
        let array = read(b"*4\r\n$1\r\n1\r\n$1\r\nv\r\n$1\r\nk\r\n").unwrap();
        assert_eq!(array, Value::Array(vec![Value::Bytes(b"1"), Value::Bytes(b"v"), Value::Bytes(b"k")]));
        let Value::Array(all) = array else { panic!() };
        assert_eq!(all[0].integer(), Some(1));
        let refused = read(b"-NOSCRIPT No matching script. Please use EVAL.\r\n");
        assert_eq!(refused, Err(Failure::Refused("NOSCRIPT No matching script. Please use EVAL.".to_owned())));
    }

    #[test]
    fn what_is_no_answer_is_a_failure() {
        for status in [503, 504, 0, 500] {
            assert_eq!(answer(&HttpCallResult { status, body: b"+OK\r\n" }), Err(Failure::Unreachable));
        }
        assert_eq!(answer(&HttpCallResult::NOT_SENT), Err(Failure::Unreachable));
        let deep = b"*1\r\n".repeat(1000);
        for broken in [
            &b""[..],
            b"+OK",
            b"x\r\n",
            b"\r\n",
            b"$5\r\nabc\r\n",
            b"$99999999999999999999\r\n",
            b"+OK\r\n+OK\r\n",
            &deep,
        ] {
            assert_eq!(read(broken), Err(Failure::Malformed), "{:?}", String::from_utf8_lossy(broken));
        }
        assert_eq!(read(b"*9999999999\r\n"), Ok(Value::Array(Vec::new())));
    }
}
