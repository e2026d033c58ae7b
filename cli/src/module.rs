//! Finds the module, and makes sure that it is Pointsman's before Envoy gets it. Envoy would start on any other file,
//! and then answer every request with an error.

use std::fmt;
use std::path::{Path, PathBuf};

/// Why a file is not the module.
#[derive(Debug, PartialEq, Eq)]
enum InvalidModule {
    /// It does not begin with a module's magic number.
    NotWasm,
    /// It is a component, which Envoy cannot run.
    Component,
    /// It ends in the middle.
    Cut,
    /// It has no mark of Pointsman's.
    Foreign,
}

impl fmt::Display for InvalidModule {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(match self {
            Self::NotWasm => "not a WebAssembly module",
            Self::Component => "a WebAssembly component; Envoy runs core modules",
            Self::Cut => "truncated WebAssembly module",
            Self::Foreign => "a WebAssembly module, but not Pointsman's",
        })
    }
}

/// The module's file name.
pub const FILE: &str = "pointsman.wasm";
/// The environment variable that names the module.
const VARIABLE: &str = "POINTSMAN_WASM";

/// Returns the path of the module and, if it was built from another version than this program, a warning. Looks at
/// `chosen`, else at `$POINTSMAN_WASM`, else where [`places`] says.
///
/// # Errors
/// Where it was looked for, or why the file is not the module.
pub fn find(chosen: Option<&Path>) -> Result<(String, Option<String>), String> {
    let named = chosen.map(Path::to_owned);
    let named = named.or_else(|| std::env::var_os(VARIABLE).filter(|path| !path.is_empty()).map(PathBuf::from));
    let candidates = named.map_or_else(|| places(&std::env::current_exe().unwrap_or_default()), |path| vec![path]);
    let Some(path) = candidates.iter().find(|path| path.is_file()) else {
        let tried: Vec<_> = candidates.iter().map(|path| path.display().to_string()).collect();
        return Err(format!(
            "no filter module at {}; build it with `make wasm`, or set --wasm or ${VARIABLE}",
            tried.join(" or ")
        ));
    };
    let named = |why: &dyn fmt::Display| format!("{}: {why}", path.display());
    let bytes = std::fs::read(path).map_err(|e| named(&e))?;
    let version = version(&bytes).map_err(|invalid| named(&invalid))?;
    let own = env!("CARGO_PKG_VERSION");
    let warning = (version != own)
        .then(|| named(&format_args!("built from version {version}, but this command is version {own}")));
    let path = std::path::absolute(path).map_err(|e| e.to_string())?;
    Ok((path.display().to_string(), warning))
}

/// Returns where the module of this program is: beside it, in `../share/pointsman` if it is installed, or in the build
/// directory if it was built there. None depends on the working directory.
fn places(program: &Path) -> Vec<PathBuf> {
    let mut places = Vec::new();
    let mut above = program.ancestors().skip(1);
    if let Some(beside) = above.next() {
        places.push(beside.join(FILE));
    }
    if let Some(prefix) = above.next() {
        places.push(prefix.join("share/pointsman").join(FILE));
        // target/PROFILE/pointsman
        places.push(prefix.join("wasm32-wasip1/release").join(FILE));
    }
    places
}

/// The custom section that `filter/src/mark.rs` writes.
const MARK: &[u8] = b"pointsman";

/// Returns the version of Pointsman that a module was built from.
///
/// See <https://webassembly.github.io/spec/core/binary/modules.html>.
fn version(bytes: &[u8]) -> Result<String, InvalidModule> {
    let mut rest = match bytes.split_at_checked(8) {
        Some((b"\0asm\x01\0\0\0", rest)) => rest,
        Some((b"\0asm\x0d\0\x01\0", _)) => return Err(InvalidModule::Component),
        _ => return Err(InvalidModule::NotWasm),
    };
    let mut version = None;
    while let Some((id, after)) = rest.split_first() {
        let (content, after) = sized(after).ok_or(InvalidModule::Cut)?;
        rest = after;
        if *id == 0
            && let Some((MARK, text)) = sized(content)
        {
            version = Some(String::from_utf8_lossy(text).chars().filter(|c| !c.is_control()).take(40).collect());
        }
    }
    version.ok_or(InvalidModule::Foreign)
}

/// Splits off what a length in LEB128 precedes. `None` if it is not all there.
fn sized(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut length = 0_usize;
    for (i, byte) in bytes.iter().enumerate().take(5) {
        length |= usize::from(byte & 0x7f).checked_shl(7 * u32::try_from(i).ok()?)?;
        if byte & 0x80 == 0 {
            return bytes.get(i + 1..)?.split_at_checked(length);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_module_is_beside_the_program_or_in_its_prefix() {
        assert_eq!(
            places(Path::new("/usr/local/bin/pointsman")),
            [
                "/usr/local/bin/pointsman.wasm",
                "/usr/local/share/pointsman/pointsman.wasm",
                "/usr/local/wasm32-wasip1/release/pointsman.wasm",
            ]
            .map(PathBuf::from)
        );
        assert!(places(Path::new("")).is_empty());
    }

    /// A module with these sections: identifier and content.
    fn module(sections: &[(u8, &[u8])]) -> Vec<u8> {
        let mut bytes = b"\0asm\x01\0\0\0".to_vec();
        for (id, content) in sections {
            bytes.push(*id);
            // A length may have more digits than it needs, as linkers write it.
            let length = u8::try_from(content.len()).unwrap();
            bytes.extend([length & 0x7f | 0x80, length >> 7 | 0x80, 0]);
            bytes.extend_from_slice(content);
        }
        bytes
    }

    #[test]
    fn the_mark_tells_the_version() {
        let marked = module(&[(1, &[0; 200]), (0, b"\x04name\x01"), (0, b"\x09pointsman1.2.3"), (11, b"\0")]);
        assert_eq!(version(&marked), Ok("1.2.3".to_owned()));
        for cut in 9..marked.len() {
            // What ends between two sections is whole.
            let expected = match marked.len() - cut {
                5 => Ok("1.2.3".to_owned()),
                24 | 34 => Err(InvalidModule::Foreign),
                _ => Err(InvalidModule::Cut),
            };
            assert_eq!(version(&marked[..cut]), expected, "{cut}");
        }
    }

    #[test]
    fn what_is_not_the_module_is_told_apart() {
        assert_eq!(version(b""), Err(InvalidModule::NotWasm));
        assert_eq!(version(b"\0asm"), Err(InvalidModule::NotWasm));
        assert_eq!(version(b"<!DOCTYPE html>"), Err(InvalidModule::NotWasm));
        assert_eq!(version(b"\0asm\x0d\0\x01\0\0"), Err(InvalidModule::Component));
        assert_eq!(version(&module(&[])), Err(InvalidModule::Foreign));
        assert_eq!(version(&module(&[(0, b"\x0apointsman2x"), (0, b"\x08pointsma")])), Err(InvalidModule::Foreign));
        assert_eq!(version(b"\0asm\x01\0\0\0\0\xff\xff\xff\xff\x0f"), Err(InvalidModule::Cut));
        assert_eq!(version(b"\0asm\x01\0\0\0\0\xff\xff\xff\xff\xff\xff"), Err(InvalidModule::Cut));
    }
}
