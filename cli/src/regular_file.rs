//! Reads regular files only: what is read again later must not be used up by reading it, nor wait for a writer.

use rustix::fs::OFlags;
use std::fmt;
use std::fs::{File, FileType, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _};
use std::path::Path;

/// A path that names something other than a file or a directory.
#[derive(Debug)]
pub struct NotRegular(&'static str);

impl fmt::Display for NotRegular {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "is {}, which cannot be read again; name a regular file", self.0)
    }
}

impl std::error::Error for NotRegular {}

/// Returns the error for standard input in place of a file.
pub fn standard_input() -> io::Error {
    io::Error::other(NotRegular("standard input"))
}

/// Opens a regular file. Never blocks.
///
/// # Errors
/// [`NotRegular`] within an [`io::Error`]; `IsADirectory`; the system's.
pub fn open(path: &Path) -> io::Result<File> {
    let flags = i32::try_from(OFlags::NONBLOCK.bits()).unwrap_or_default();
    // A socket cannot be opened, and the system's reason does not say that it is one.
    let refused = |error: io::Error| match std::fs::metadata(path) {
        Ok(data) if data.file_type().is_socket() => io::Error::other(NotRegular("a socket")),
        _ => error,
    };
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path).map_err(refused)?;
    // The open file is asked, not the path: a rename may come in between.
    let kind = file.metadata()?.file_type();
    match other(kind) {
        None if kind.is_dir() => Err(io::ErrorKind::IsADirectory.into()),
        None => Ok(file),
        Some(name) => Err(io::Error::other(NotRegular(name))),
    }
}

fn other(kind: FileType) -> Option<&'static str> {
    match kind {
        kind if kind.is_file() || kind.is_dir() => None,
        kind if kind.is_fifo() => Some("a FIFO"),
        kind if kind.is_socket() => Some("a socket"),
        _ => Some("a device"),
    }
}

/// Reads a regular file.
///
/// # Errors
/// As [`open`], and the system's.
pub fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    open(path)?.read_to_end(&mut bytes).map(|_| bytes)
}

/// Reads a regular file of UTF-8 text.
///
/// # Errors
/// As [`open`]; `InvalidData`; the system's.
pub fn read_to_string(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    open(path)?.read_to_string(&mut text).map(|_| text)
}

/// Returns whether an error is [`NotRegular`].
pub fn is_not_regular(error: &io::Error) -> bool {
    error.get_ref().is_some_and(|inner| inner.is::<NotRegular>())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    #[test]
    fn only_a_regular_file_is_read() {
        let scratch = tempfile::tempdir().unwrap();
        let at = |name: &str| scratch.path().join(name);
        std::fs::write(at("file"), "text").unwrap();
        std::os::unix::fs::symlink(at("file"), at("link")).unwrap();
        assert_eq!(read_to_string(&at("file")).unwrap(), "text");
        assert_eq!(read(&at("link")).unwrap(), b"text");

        let _socket = UnixListener::bind(at("socket")).unwrap();
        // No writer: reading it would wait for one.
        let made = std::process::Command::new("mkfifo").arg(at("fifo")).status().unwrap();
        assert!(made.success());
        for (path, kind) in [(at("fifo"), "a FIFO"), (at("socket"), "a socket"), ("/dev/zero".into(), "a device")] {
            let error = read(&path).unwrap_err();
            assert!(is_not_regular(&error), "{error}");
            assert_eq!(error.to_string(), format!("is {kind}, which cannot be read again; name a regular file"));
        }
        assert_eq!(read(scratch.path()).unwrap_err().kind(), io::ErrorKind::IsADirectory);
        let absent = read(&at("absent")).unwrap_err();
        assert!(absent.kind() == io::ErrorKind::NotFound && !is_not_regular(&absent));
    }
}
