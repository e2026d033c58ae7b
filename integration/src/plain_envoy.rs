//! An Envoy that runs on files, without `pointsman up`.

use crate::call::Call;
use crate::deadline::await_true;
use crate::environment;
use crate::process::Process;
use crate::turn;
use std::ffi::OsStr;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;

/// A running Envoy. It ends when dropped, and prints its last lines if the test panicked.
pub struct PlainEnvoy {
    /// Its process.
    pub process: Process,
    /// The address of its admin interface.
    pub admin: SocketAddr,
}

impl PlainEnvoy {
    /// Starts an Envoy on a bootstrap whose admin interface is at `admin`, and waits until it is ready. `directory` is
    /// removed when it has ended.
    ///
    /// # Panics
    /// If it does not start.
    pub fn start(bootstrap: &Path, admin: SocketAddr, variables: &[(&str, &OsStr)], directory: &Path) -> Self {
        let flags = "--disable-hot-restart --log-level warning --concurrency 2 --file-flush-interval-msec 20 -c";
        let mut arguments: Vec<&OsStr> = flags.split(' ').map(OsStr::new).collect();
        arguments.push(bootstrap.as_os_str());
        let _turn = turn::take();
        let process = Process::start(&environment::envoy(), arguments, variables, Some(directory));
        let envoy = Self { process, admin };
        await_true("Envoy to be ready", || {
            assert!(envoy.process.is_running(), "{:#?}", envoy.process.lines());
            TcpStream::connect(admin).is_ok() && Call::new("GET", "/ready").send(admin).status == 200
        });
        envoy
    }
}

impl Drop for PlainEnvoy {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.process.show_log();
        }
    }
}
