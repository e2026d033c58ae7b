//! Starts the child processes of `up`. None outlives it, even if it is killed with SIGKILL.
#![allow(unsafe_code)] // `pre_exec` is unsafe; see below.

use rustix::process::{Signal, getpid, getppid, set_parent_process_death_signal};
use std::ffi::OsStr;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

/// Creates a command without input, in a process group of its own: Ctrl-C in a terminal is for `up` alone, which ends
/// its children in order. The kernel sends it SIGTERM when the *thread* that started it ends (prctl(2),
/// PR_SET_PDEATHSIG), so start it from the main thread. A set-user-ID program, or one with file capabilities, gets no
/// such signal.
pub fn command(program: impl AsRef<OsStr>) -> Command {
    let parent = getpid();
    let mut command = Command::new(program);
    command.stdin(Stdio::null()).process_group(0);
    let bind = move || {
        set_parent_process_death_signal(Some(Signal::TERM))?;
        // The parent may have ended before the signal was set.
        if getppid() == Some(parent) { Ok(()) } else { Err(io::ErrorKind::NotFound.into()) }
    };
    // SAFETY: two system calls. The closure neither allocates nor locks, so it may run between fork and exec.
    unsafe { command.pre_exec(bind) };
    command
}
