//! `pointsman hash-key`: hashes an API key for a policy.

use sha2::{Digest, Sha256};
use std::io::Read;
use std::process::ExitCode;

/// Read one line with an API key from standard input and print its hash for the policy: `sha256:HEX`.
#[derive(clap::Args)]
pub struct Args {}

/// Prints the hash. Never accepts the key as an argument, where other users of the machine could see it.
pub fn run(Args {}: &Args) -> ExitCode {
    let mut text = String::new();
    let result = match std::io::stdin().read_to_string(&mut text) {
        Ok(_) => hash(&text),
        Err(error) => Err(error.to_string()),
    };
    match result {
        Ok(hash) => {
            println!("{hash}");
            ExitCode::SUCCESS
        }
        Err(message) => {
            eprintln!("hash-key: {message}");
            ExitCode::FAILURE
        }
    }
}

/// Hashes a key without the white space around it: the gateway trims keys too.
fn hash(text: &str) -> Result<String, String> {
    let key = text.trim_ascii();
    if key.is_empty() {
        return Err("no key on standard input".to_owned());
    }
    if key.chars().any(char::is_control) {
        return Err("expected one line with one key on standard input".to_owned());
    }
    let digest = Sha256::digest(key.as_bytes());
    Ok(digest.iter().fold("sha256:".to_owned(), |text, byte| format!("{text}{byte:02x}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_hashed_without_the_white_space_around_it() {
        // printf abc | sha256sum; also the first example of FIPS 180-4.
        let abc = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(hash("abc").unwrap(), abc);
        assert_eq!(hash(" abc\r\n").unwrap(), abc);
        assert_ne!(hash("abd").unwrap(), abc);
    }

    #[test]
    fn no_key_and_two_keys_are_refused() {
        assert!(hash("\n").is_err());
        assert!(hash("abc\nabd\n").is_err());
    }
}
