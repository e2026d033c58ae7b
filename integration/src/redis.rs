//! A Redis for one test, and the HTTP bridge in front of it, both on reserved ports.

use crate::call::Call;
use crate::clock::Clock;
use crate::deadline::await_true;
use crate::port::Port;
use crate::process::{Process, directory};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};
use std::ffi::{OsStr, OsString};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};

/// A Redis server and its bridge. Both end when dropped.
pub struct Redis {
    /// The address of the bridge, to which an Envoy cluster points.
    pub bridge: SocketAddr,
    server: Process,
    _webdis: Process,
    /// The ports of the server and of the bridge.
    ports: [Port; 2],
    how: How,
}

/// How to start Redis.
#[derive(Default)]
struct How {
    /// The directory for its data, if it persists them.
    kept: Option<PathBuf>,
    /// The environment variables that make it use another clock.
    variables: Vec<(&'static str, OsString)>,
}

impl Redis {
    /// Starts both and waits until they answer.
    ///
    /// # Panics
    /// If they are not installed or do not start.
    pub fn start() -> Self {
        Self::start_as(How::default())
    }

    /// Does the same with a Redis that writes every change to disk immediately and has its data again after a crash.
    pub fn start_durable() -> Self {
        Self::start_as(How { kept: Some(directory()), ..How::default() })
    }

    /// Does the same with a Redis that also uses this clock.
    pub fn start_durable_by(clock: &Clock) -> Self {
        Self::start_as(How { kept: Some(directory()), variables: clock.variables().into() })
    }

    /// Starts a Redis that uses this clock.
    pub fn start_by(clock: &Clock) -> Self {
        Self::start_as(How { variables: clock.variables().into(), ..How::default() })
    }

    fn start_as(how: How) -> Self {
        let ports = [Port::reserve(), Port::reserve()];
        let [address, bridge] = [ports[0].address, ports[1].address];
        let server = serve(address, &how);
        await_true("redis-server to listen", || TcpStream::connect(address).is_ok());
        let webdis = start_webdis(address, bridge);
        let redis = Self { bridge, server, _webdis: webdis, ports, how };
        await_true("webdis to answer", || TcpStream::connect(bridge).is_ok());
        await_true("webdis to reach Redis", || redis.is_there());
        redis
    }

    /// Runs a command through the bridge and returns the reply, as webdis writes it in JSON.
    ///
    /// # Panics
    /// If the bridge does not answer with 200.
    pub fn command(&self, arguments: &[&str]) -> Value {
        let answer = Self::call(arguments).send(self.bridge);
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.json()[arguments[0]].clone()
    }

    /// Returns the number of keys.
    pub fn keys(&self) -> u64 {
        self.command(&["DBSIZE"]).as_u64().expect("is a number")
    }

    /// Kills Redis as a crash would. The bridge stays. Unless this Redis is durable, its data are lost.
    pub fn kill(&mut self) {
        self.server.signal("KILL");
        self.server.end();
    }

    /// Restarts Redis at the same address, and waits until the bridge has reconnected.
    pub fn restart(&mut self) {
        self.server = serve(self.ports[0].address, &self.how);
        await_true("webdis to reach Redis again", || self.is_there());
    }

    /// Stops Redis from answering, like a machine that hangs. Connections stay open.
    pub fn freeze(&self) {
        self.server.signal("STOP");
    }

    /// Lets Redis continue.
    pub fn thaw(&self) {
        self.server.signal("CONT");
    }

    fn is_there(&self) -> bool {
        // webdis may close the connection while it is without Redis.
        let Ok(answer) = Self::call(&["PING"]).try_open(self.bridge) else { return false };
        let answer = answer.finish();
        answer.status == 200 && answer.text().contains("PONG")
    }

    fn call(arguments: &[&str]) -> Call {
        let encode = |argument: &&str| utf8_percent_encode(argument, NON_ALPHANUMERIC).to_string();
        let body: Vec<String> = arguments.iter().map(encode).collect();
        Call::new("POST", "/").body(body.join("/"))
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        if let Some(kept) = &self.how.kept {
            self.server.end();
            let _ = std::fs::remove_dir_all(kept);
        }
    }
}

fn serve(address: SocketAddr, how: &How) -> Process {
    let kept = how.kept.as_deref();
    let port = address.port().to_string();
    // A directory that serves only this run is removed with it.
    let own = kept.is_none().then(directory);
    let path = kept.or(own.as_deref()).and_then(Path::to_str).expect("is text");
    let writes = if kept.is_some() { "yes" } else { "no" };
    let args =
        ["--port", &port, "--bind", "127.0.0.1", "--save", "", "--appendonly", writes, "--appendfsync", "always"];
    let args = args.into_iter().chain(["--dir", path]);
    let variables: Vec<(&str, &OsStr)> = how.variables.iter().map(|(name, value)| (*name, value.as_os_str())).collect();
    Process::start(&installed("redis-server"), args, &variables, own.as_deref())
}

fn start_webdis(redis: SocketAddr, bridge: SocketAddr) -> Process {
    let directory = directory();
    let file = directory.join("webdis.json");
    let settings = json!({
        "redis_host": "127.0.0.1", "redis_port": redis.port(),
        "http_host": "127.0.0.1", "http_port": bridge.port(),
        "threads": 2, "pool_size": 8, "daemonize": false, "websockets": false, "database": 0,
        "verbosity": 2, "logfile": directory.join("webdis.log"),
    });
    std::fs::write(&file, settings.to_string()).expect("writes a file");
    Process::start(&installed("webdis"), [&file], &[], Some(&directory))
}

fn installed(program: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).map(|directory| directory.join(program)).find(|path| path.exists());
    found.unwrap_or_else(|| {
        panic!("{program} is not installed: run `make test`, or apt-get install redis-server webdis")
    })
}
