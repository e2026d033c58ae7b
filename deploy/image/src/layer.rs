//! A layer with one file, as `tar` and `gzip`, of which nothing depends on the machine or the time.

use flate2::write::DeflateEncoder;
use flate2::{Compression, Crc};
use std::io::{self, Write as _};

/// The size of tar's blocks.
const BLOCK: usize = 512;

/// Returns an archive with one file (POSIX.1-1988, ustar): mode 0644, owner 0, time 0.
///
/// # Errors
/// If the file has 8 GiB or more, or its name 100 bytes or more, for which ustar has no place.
pub fn tar(name: &str, content: &[u8]) -> io::Result<Vec<u8>> {
    if name.len() >= 100 || content.len() >= 1 << 33 {
        return Err(io::Error::other("too large for a tar archive"));
    }
    // Name, mode, owner, group, size, time, checksum (blank while it is computed), type, link, format, names of the
    // owner and the group, device, rest.
    let header = |checksum: &str| {
        let mut header = Vec::with_capacity(BLOCK);
        let mut field = |text: &str, width: usize| {
            header.extend_from_slice(text.as_bytes());
            header.resize(header.len() + width.saturating_sub(text.len()), 0);
        };
        field(name, 100);
        field("0000644", 8);
        field("0000000", 8);
        field("0000000", 8);
        field(&format!("{:011o}", content.len()), 12);
        field("00000000000", 12);
        field(checksum, 8);
        field("0", 1);
        field("", 100);
        field("ustar\0", 6);
        field("00", 2);
        field("", 64);
        field("0000000", 8);
        field("0000000", 8);
        header.resize(BLOCK, 0);
        header
    };
    let sum: u32 = header("        ").iter().map(|byte| u32::from(*byte)).sum();
    let mut archive = header(&format!("{sum:06o}\0 "));
    archive.extend_from_slice(content);
    archive.resize(archive.len().next_multiple_of(BLOCK) + 2 * BLOCK, 0);
    Ok(archive)
}

/// Compresses as `gzip` does (RFC 1952), without a name and a time.
///
/// # Errors
/// None in practice: it writes to memory.
pub fn gzip(content: &[u8]) -> io::Result<Vec<u8>> {
    // Magic, deflate, no flags, no time, the slowest compression, an unknown system.
    let head = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 2, 255];
    let mut encoder = DeflateEncoder::new(head.to_vec(), Compression::best());
    encoder.write_all(content)?;
    let mut bytes = encoder.finish()?;
    let mut crc = Crc::new();
    crc.update(content);
    bytes.extend_from_slice(&crc.sum().to_le_bytes());
    bytes.extend_from_slice(&crc.amount().to_le_bytes());
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn tar_and_gzip_read_it() {
        let scratch = tempfile::tempdir().unwrap();
        let content: Vec<u8> = (0..100_000u32).map(|i| u8::try_from(i % 251).unwrap()).collect();
        let archive = gzip(&tar("plugin.wasm", &content).unwrap()).unwrap();
        assert!(archive.len() < 50_000);
        std::fs::write(scratch.path().join("layer.tar.gz"), &archive).unwrap();
        let tar = |arguments: &[&str]| {
            let output = Command::new("tar").current_dir(scratch.path()).args(arguments).output().unwrap();
            assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
            String::from_utf8(output.stdout).unwrap()
        };
        let listed = tar(&["--utc", "--numeric-owner", "-tvzf", "layer.tar.gz"]);
        assert_eq!(
            listed.split_whitespace().collect::<Vec<_>>(),
            ["-rw-r--r--", "0/0", "100000", "1970-01-01", "00:00", "plugin.wasm"]
        );
        tar(&["-xzf", "layer.tar.gz"]);
        assert_eq!(std::fs::read(scratch.path().join("plugin.wasm")).unwrap(), content);
    }

    #[test]
    fn the_bytes_are_the_same_on_every_machine() {
        // If this fails, the compressor has changed: images of old modules get new digests.
        let layer = gzip(&tar("plugin.wasm", b"\0asm\x01\0\0\0").unwrap()).unwrap();
        assert_eq!(
            crate::layout::digest(&layer),
            "sha256:feeee24a225d9d895dd8b7d3e07e7c8f2c89c3e0880a15b3e4833bf0d601bfc7"
        );
    }

    #[test]
    fn what_ustar_cannot_hold_is_refused() {
        assert!(tar(&"x".repeat(99), b"").is_ok());
        assert!(tar(&"x".repeat(100), b"").is_err());
    }
}
