//! API keys, known only by their SHA-256, and the hash that stands for an end user.

use crate::config::Key;
use crate::config::place::Place;
use crate::config::problem::Problem;
use crate::ids::TenantId;
use crate::store::quick_hash::QuickHash;
use crate::store::secret::Secret;
use sha2::{Digest, Sha256};
use siphasher::sip128::{Hasher128, SipHasher24};
use std::collections::HashMap;
use std::hash::Hasher;

/// The API keys of all tenants, by hash. The time of a lookup reveals at most something about a hash, never about a
/// key.
#[derive(Debug, Clone, Default)]
pub struct KeyTable {
    sorted: Vec<Entry>,
}

/// API keys that a worker has recently looked up in one table. It need not hash them with SHA-256 again, which is most
/// of the cost of a lookup.
///
/// Keys are identified by a 128-bit SipHash-2-4 under a secret, so no key is stored. Without the secret, a guess
/// matches a remembered key with a probability of 2^-128 per key.
#[derive(Debug, Default)]
pub struct ApiKeyMemo {
    secret: Secret,
    /// Positions in the table. Callers cannot choose fingerprints, so any hash spreads them.
    places: HashMap<u128, u32, QuickHash>,
}

/// How the message of a key that appears twice begins.
pub(crate) const SAME_KEY: &str = "the same key as ";

/// Maximum number of keys that a worker remembers, about 50 kB. If one more comes, it forgets all of them.
const MAX_KEYS: usize = 1024;

impl ApiKeyMemo {
    fn fingerprint(&self, key: &[u8]) -> u128 {
        let (a, b) = self.secret.words();
        let mut hasher = SipHasher24::new_with_keys(a, b);
        hasher.write(key);
        hasher.finish128().as_u128()
    }

    fn insert(&mut self, fingerprint: u128, place: usize) {
        let Ok(place) = u32::try_from(place) else { return };
        if self.places.len() >= MAX_KEYS {
            self.places.clear();
        }
        self.places.insert(fingerprint, place);
    }
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Entry {
    hash: [u8; 32],
    tenant: TenantId,
    /// Which of the tenant's keys it is.
    index: u32,
    /// The time from which the key is refused, in milliseconds since the Unix epoch. `u64::MAX` means never.
    expires_ms: u64,
}

/// Why a caller could not be identified.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InvalidIdentity {
    /// No credential was sent.
    Missing,
    /// No tenant has this credential.
    Unknown,
    /// The key was valid, but has expired.
    Expired,
}

impl KeyTable {
    /// Adds a key from the policy: the tenant's key number `index`, from 0.
    ///
    /// # Errors
    /// A message that says what is expected.
    pub(crate) fn add(&mut self, tenant: TenantId, index: usize, key: &Key) -> Result<(), String> {
        let Key { hash, expires } = key;
        let hash = hash
            .strip_prefix("sha256:")
            .and_then(parse_hex)
            .ok_or("expected sha256: and 64 hexadecimal digits, the SHA-256 of the key; never write the key itself")?;
        let expires_ms = match expires {
            None => u64::MAX,
            Some(time) => humantime::parse_rfc3339(time)
                .ok()
                .and_then(|t| t.duration_since(std::time::UNIX_EPOCH).ok())
                .and_then(|d| u64::try_from(d.as_millis()).ok())
                .ok_or_else(|| format!("\"{time}\" is not a UTC time like 2027-01-31T00:00:00Z"))?,
        };
        let index = u32::try_from(index).unwrap_or(u32::MAX);
        self.sorted.push(Entry { hash, tenant, index, expires_ms });
        Ok(())
    }

    /// Sorts the table and reports each key that appears more than once, once, where it appears for the second time.
    pub(crate) fn finish<'a>(&mut self, problems: &mut Vec<Problem>, name_of: impl Fn(TenantId) -> &'a str) {
        self.sorted.sort_unstable();
        let place = |entry: &Entry| {
            Place::of(&["tenants", name_of(entry.tenant), "keys"]).index(usize::try_from(entry.index).unwrap_or(0))
        };
        for same in self.sorted.chunk_by(|a, b| a.hash == b.hash) {
            let [first, second, others @ ..] = same else { continue };
            let more = match others.len() {
                0 => String::new(),
                1 => " (1 more place has it)".to_owned(),
                n => format!(" ({n} more places have it)"),
            };
            let message = format!("{SAME_KEY}{}; list each key once, under one tenant{more}", place(first));
            problems.push(Problem::new(place(second), message));
        }
        self.sorted.shrink_to_fit();
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.sorted.is_empty()
    }

    /// Returns the tenant to which `key` belongs at `now_ms` (milliseconds since the Unix epoch). `memo`: used with
    /// this table only.
    ///
    /// # Errors
    /// [`InvalidIdentity::Unknown`] or [`InvalidIdentity::Expired`].
    pub fn tenant_of(&self, key: &[u8], now_ms: u64, memo: &mut ApiKeyMemo) -> Result<TenantId, InvalidIdentity> {
        let fingerprint = memo.fingerprint(key);
        let at = match memo.places.get(&fingerprint) {
            Some(at) => *at as usize,
            None => {
                let hash: [u8; 32] = Sha256::digest(key).into();
                let at = self.sorted.binary_search_by(|entry| entry.hash.cmp(&hash));
                let at = at.map_err(|_| InvalidIdentity::Unknown)?;
                memo.insert(fingerprint, at);
                at
            }
        };
        let entry = self.sorted.get(at).ok_or(InvalidIdentity::Unknown)?;
        if now_ms >= entry.expires_ms { Err(InvalidIdentity::Expired) } else { Ok(entry.tenant) }
    }
}

/// Returns the API key from a request's headers.
///
/// `Authorization: Bearer KEY` (RFC 6750; the scheme in any case), else `x-api-key`, else `api-key`: the places that
/// client libraries use. If a header is sent twice, only the first one arrives here.
pub fn api_key<'a>(
    authorization: Option<&'a [u8]>,
    x_api_key: Option<&'a [u8]>,
    api_key: Option<&'a [u8]>,
) -> Result<&'a [u8], InvalidIdentity> {
    let bearer = authorization.and_then(|value| {
        let (scheme, rest) = value.split_at_checked(7)?;
        scheme.eq_ignore_ascii_case(b"bearer ").then(|| rest.trim_ascii())
    });
    [bearer, x_api_key.map(<[u8]>::trim_ascii), api_key.map(<[u8]>::trim_ascii)]
        .into_iter()
        .flatten()
        .find(|key| !key.is_empty())
        .ok_or(InvalidIdentity::Missing)
}

/// Identifies an end user: SHA-256 over tenant and user, so that it cannot be compared across tenants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UserHash(pub [u8; 32]);

impl UserHash {
    /// Hashes a user of a tenant.
    pub fn new(tenant: &str, user: &[u8]) -> Self {
        let digest = Sha256::new()
            .chain_update(b"pointsman.user.v1")
            .chain_update((tenant.len() as u64).to_be_bytes())
            .chain_update(tenant)
            .chain_update(user)
            .finalize();
        Self(digest.into())
    }

    /// Returns its first 64 bits in hexadecimal, for logs.
    pub fn short(&self) -> String {
        self.0.iter().take(8).map(|b| format!("{b:02x}")).collect()
    }
}

fn parse_hex(text: &str) -> Option<[u8; 32]> {
    let mut bytes = [0u8; 32];
    if text.len() != 64 || !text.is_ascii() {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks(2)) {
        let pair = std::str::from_utf8(pair).ok()?;
        if pair.starts_with('+') {
            return None;
        }
        *byte = u8::from_str_radix(pair, 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALICE: TenantId = TenantId(0);

    fn table(expires: Option<&str>) -> KeyTable {
        let hash =
            format!("sha256:{}", Sha256::digest(b"sk-alice").iter().map(|b| format!("{b:02x}")).collect::<String>());
        let mut table = KeyTable::default();
        table.add(ALICE, 0, &Key { hash, expires: expires.map(str::to_owned) }).unwrap();
        table.finish(&mut Vec::new(), |_| "alice");
        table
    }

    #[test]
    fn a_key_is_known_until_it_expires() {
        let fresh = &mut ApiKeyMemo::default();
        assert_eq!(table(None).tenant_of(b"sk-alice", u64::MAX - 1, fresh), Ok(ALICE));
        assert_eq!(table(None).tenant_of(b"sk-alicf", 0, fresh), Err(InvalidIdentity::Unknown));
        let expiring = table(Some("1970-01-01T00:00:10Z"));
        for now_ms in [9_999, 10_000] {
            let expected = if now_ms < 10_000 { Ok(ALICE) } else { Err(InvalidIdentity::Expired) };
            assert_eq!(expiring.tenant_of(b"sk-alice", now_ms, &mut ApiKeyMemo::default()), expected);
        }
    }

    #[test]
    fn a_key_that_is_known_is_the_same_key_and_expires_as_before() {
        let (expiring, memo) = (table(Some("1970-01-01T00:00:10Z")), &mut ApiKeyMemo::default());
        for _ in 0..3 {
            assert_eq!(expiring.tenant_of(b"sk-alice", 9_999, memo), Ok(ALICE));
            for other in [&b"sk-alic"[..], b"sk-alice ", b"Sk-alice", b""] {
                assert_eq!(expiring.tenant_of(other, 0, memo), Err(InvalidIdentity::Unknown));
            }
        }
        assert_eq!(expiring.tenant_of(b"sk-alice", 10_000, memo), Err(InvalidIdentity::Expired));
        assert_eq!(memo.places.len(), 1);
    }

    #[test]
    fn what_is_known_is_bounded() {
        let mut memo = ApiKeyMemo::default();
        (0..5000_u32).for_each(|n| memo.insert(memo.fingerprint(&n.to_le_bytes()), n as usize));
        assert!(memo.places.len() <= MAX_KEYS);
        assert_eq!(memo.places.get(&memo.fingerprint(&4999_u32.to_le_bytes())), Some(&4999));
    }

    #[test]
    fn the_key_is_found_where_clients_put_it() {
        assert_eq!(api_key(Some(b"Bearer k"), None, None), Ok(&b"k"[..]));
        assert_eq!(api_key(Some(b"bearer  k "), Some(b"other"), None), Ok(&b"k"[..]));
        assert_eq!(api_key(Some(b"Basic eDp5"), Some(b"k"), None), Ok(&b"k"[..]));
        assert_eq!(api_key(None, None, Some(b"k")), Ok(&b"k"[..]));
        assert_eq!(api_key(Some(b"Bearer "), None, None), Err(InvalidIdentity::Missing));
        assert_eq!(api_key(Some(b"\xff\xfe"), None, None), Err(InvalidIdentity::Missing));
    }

    #[test]
    fn a_key_in_the_clear_is_refused() {
        let mut table = KeyTable::default();
        for wrong in ["sk-plain", "sha256:", "sha256:zz", &format!("sha256:+f{}", "0".repeat(62))] {
            assert!(table.add(ALICE, 0, &Key { hash: wrong.to_owned(), expires: None }).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_same_user_has_another_hash_in_another_tenant() {
        assert_eq!(UserHash::new("a", b"u"), UserHash::new("a", b"u"));
        assert_ne!(UserHash::new("a", b"u"), UserHash::new("b", b"u"));
        assert_ne!(UserHash::new("ab", b"c"), UserHash::new("a", b"bc"));
    }
}
