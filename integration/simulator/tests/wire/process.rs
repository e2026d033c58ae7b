//! Starts and stops a simulator.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};

use crate::raw::{Answer, End, exchange, post};

/// A running simulator, ended when dropped.
pub struct Simulator {
    pub child: Child,
    pub addresses: Vec<SocketAddr>,
}

impl Simulator {
    pub fn start() -> Self {
        Self::with(1, &[])
    }

    pub fn with(listeners: usize, flags: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_simulator"));
        for _ in 0..listeners {
            command.args(["--listen", "127.0.0.1:0"]);
        }
        let mut child = command.args(flags).stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let addresses = (0..listeners)
            .map(|_| lines.next().unwrap().unwrap().strip_prefix("listening on ").unwrap().parse().unwrap())
            .collect();
        Self { child, addresses }
    }

    pub fn address(&self) -> SocketAddr {
        self.addresses[0]
    }

    /// Sends a chat completion.
    pub fn chat(&self, body: &Value) -> Answer {
        exchange(self.address(), &post("/v1/chat/completions", &body.to_string()))
    }

    /// Sends a chat completion with one short message that asks for `behavior`.
    pub fn ask(&self, stream: bool, behavior: &Value) -> Answer {
        self.chat(&question(stream, behavior))
    }

    /// Sends a control request, which must succeed.
    pub fn control(&self, method: &str, path: &str, body: &Value) -> Value {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let head = format!("{method} /_sim/{path} HTTP/1.1\r\nhost: s\r\ncontent-length: {}\r\n", body.len());
        let answer = exchange(self.address(), format!("{head}connection: close\r\n\r\n{body}").as_bytes());
        assert_eq!((answer.status, answer.end), (200, End::Closed), "{}", answer.text());
        answer.json()
    }

    pub fn requests(&self) -> Vec<Value> {
        self.control("GET", "requests", &Value::Null).as_array().unwrap().clone()
    }

    /// Polls until the last request satisfies `holds`, and returns it.
    pub fn last_request_until(&self, holds: impl Fn(&Value) -> bool) -> Value {
        for _ in 0..6000 {
            if let Some(last) = self.requests().pop().filter(&holds) {
                return last;
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        panic!("never: {:?}", self.requests().pop());
    }
}

impl Drop for Simulator {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Returns the body of a chat completion that asks for `behavior`.
pub fn question(stream: bool, behavior: &Value) -> Value {
    json!({"model": "m", "stream": stream, "messages": [{"role": "user", "content": format!("[[sim:{behavior}]]")}]})
}
