//! The programs that `up` starts: none outlives it, even if it is killed with SIGKILL.
#![allow(unsafe_code)] // What runs between fork and exec is unsafe to choose: see below.

use rustix::process::{Signal, getpid, getppid, set_parent_process_death_signal};
use std::ffi::OsStr;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

/// A program without input that the kernel sends SIGTERM when the *thread* that started it ends (prctl(2),
/// PR_SET_PDEATHSIG): start it from the main thread. A set-user-ID program and one with file capabilities get no such
/// signal.
pub fn command(program: impl AsRef<OsStr>) -> Command {
    let parent = getpid();
    let mut command = Command::new(program);
    command.stdin(Stdio::null());
    let bind = move || {
        set_parent_process_death_signal(Some(Signal::TERM))?;
        // The parent may have ended before that.
        if getppid() == Some(parent) { Ok(()) } else { Err(io::ErrorKind::NotFound.into()) }
    };
    // SAFETY: two system calls; it neither allocates nor takes a lock, so it may run between fork and exec.
    unsafe { command.pre_exec(bind) };
    command
}
