//! A bounded log of requests and of how each of them ended.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use hyper::http::request::Parts;
use memchr::memmem;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::listen::Peer;

/// The maximum number of requests kept.
const MAX_REQUESTS: usize = 4096;
/// The maximum total size of the bodies kept, in bytes.
const MAX_BYTES: usize = 64 << 20;

/// The log of requests.
#[derive(Debug)]
pub struct Record {
    kept: Option<Mutex<Kept>>,
    seq: AtomicU64,
    count: AtomicU64,
    active: AtomicU64,
    max_active: AtomicU64,
}

#[derive(Debug, Default)]
struct Kept {
    entries: VecDeque<Arc<Entry>>,
    bytes: usize,
}

/// One request in the log.
#[derive(Debug)]
pub struct Entry {
    seq: u64,
    peer: Arc<Peer>,
    at_ms: u128,
    head: Parts,
    body: Bytes,
    finished: AtomicBool,
    aborted: AtomicBool,
    chunks: AtomicU64,
}

/// Which requests of the log are wanted. A condition that is left out always holds.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Wanted {
    /// Only requests after this number.
    pub since: u64,
    /// The name and value of a header that they have.
    header: Option<(String, String)>,
    /// A text in their body.
    body_contains: Option<String>,
}

/// A request being answered. Dropping it records how that ended.
#[derive(Debug)]
pub struct Exchange {
    record: Arc<Record>,
    entry: Option<Arc<Entry>>,
    ended: bool,
    number: u64,
}

impl Record {
    /// Creates an empty log. Without `keep` it only counts.
    pub fn new(keep: bool) -> Self {
        Self {
            kept: keep.then(Mutex::default),
            seq: AtomicU64::new(0),
            count: AtomicU64::new(0),
            active: AtomicU64::new(0),
            max_active: AtomicU64::new(0),
        }
    }

    /// Records that a request has begun.
    pub fn begin(self: &Arc<Self>) -> Exchange {
        let number = self.seq.fetch_add(1, Ordering::Relaxed) + 1;
        self.count.fetch_add(1, Ordering::Relaxed);
        let active = self.active.fetch_add(1, Ordering::Relaxed) + 1;
        self.max_active.fetch_max(active, Ordering::Relaxed);
        Exchange { record: Arc::clone(self), entry: None, ended: false, number }
    }

    /// Returns the wanted requests, oldest first.
    pub fn list(&self, wanted: &Wanted) -> Value {
        let Some(kept) = &self.kept else { return Value::Array(Vec::new()) };
        let entries: Vec<_> = locked(kept).entries.iter().filter(|entry| entry.seq > wanted.since).cloned().collect();
        entries.iter().filter(|entry| wanted.holds(entry)).map(|entry| entry.document()).collect()
    }

    /// Returns how many requests arrived since the last [`clear`](Self::clear), how many are being answered, and the
    /// maximum of that number.
    pub fn counts(&self) -> Value {
        json!({
            "count": self.count.load(Ordering::Relaxed),
            "active": self.active.load(Ordering::Relaxed),
            "max_active": self.max_active.load(Ordering::Relaxed),
        })
    }

    /// Forgets all requests. Their numbers are not used again.
    pub fn clear(&self) {
        if let Some(kept) = &self.kept {
            *locked(kept) = Kept::default();
        }
        self.count.store(0, Ordering::Relaxed);
        self.max_active.store(self.active.load(Ordering::Relaxed), Ordering::Relaxed);
    }
}

fn locked(kept: &Mutex<Kept>) -> MutexGuard<'_, Kept> {
    kept.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Kept {
    fn push(&mut self, entry: Arc<Entry>) {
        self.bytes += entry.body.len();
        self.entries.push_back(entry);
        while self.entries.len() > MAX_REQUESTS || self.bytes > MAX_BYTES {
            let Some(oldest) = self.entries.pop_front() else { break };
            self.bytes -= oldest.body.len();
        }
    }
}

impl Wanted {
    /// Returns every request after this number.
    pub fn after(since: u64) -> Self {
        Self { since, ..Self::default() }
    }

    fn holds(&self, entry: &Entry) -> bool {
        let Self { since, header, body_contains } = self;
        entry.seq > *since
            && header.as_ref().is_none_or(|(name, value)| {
                entry.head.headers.get_all(name).iter().any(|found| found.as_bytes() == value.as_bytes())
            })
            && body_contains.as_ref().is_none_or(|text| memmem::find(&entry.body, text.as_bytes()).is_some())
    }
}

impl Entry {
    fn document(&self) -> Value {
        let headers: Vec<Value> = self
            .head
            .headers
            .iter()
            .map(|(name, value)| json!([name.as_str(), String::from_utf8_lossy(value.as_bytes())]))
            .collect();
        json!({
            "seq": self.seq,
            "listener": self.peer.place.index,
            "local_port": self.peer.place.port,
            "peer_port": self.peer.port,
            "at_ms": self.at_ms as u64,
            "method": self.head.method.as_str(),
            "path": self.head.uri.path_and_query().map_or("", |path| path.as_str()),
            "authority": self.head.uri.authority().map(|authority| authority.as_str()),
            "version": format!("{:?}", self.head.version),
            "headers": headers,
            "body_base64": STANDARD.encode(&self.body),
            "body_text": std::str::from_utf8(&self.body).ok(),
            "finished": self.finished.load(Ordering::Acquire),
            "aborted": self.aborted.load(Ordering::Acquire),
            "chunks_sent": self.chunks.load(Ordering::Acquire),
        })
    }
}

impl Exchange {
    /// Returns the request's number, counted from 1.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Adds the request to the log, if the log keeps requests.
    pub fn keep(&mut self, peer: &Arc<Peer>, head: Parts, body: Bytes) {
        let Some(kept) = &self.record.kept else { return };
        let entry = Arc::new(Entry {
            seq: self.number,
            peer: Arc::clone(peer),
            at_ms: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis()),
            head,
            body,
            finished: AtomicBool::new(false),
            aborted: AtomicBool::new(false),
            chunks: AtomicU64::new(0),
        });
        self.entry = Some(Arc::clone(&entry));
        locked(kept).push(entry);
    }

    /// Records that a content chunk has been handed to the connection.
    pub fn chunk(&self) {
        if let Some(entry) = &self.entry {
            entry.chunks.fetch_add(1, Ordering::Release);
        }
    }

    /// Records that the whole response has been handed to the connection.
    pub fn finish(&mut self) {
        self.ended = true;
        if let Some(entry) = &self.entry {
            entry.finished.store(true, Ordering::Release);
        }
    }

    /// Records that a behavior is about to cut the response short, so that the end is not blamed on the client.
    pub fn give_up(&mut self) {
        self.ended = true;
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        self.record.active.fetch_sub(1, Ordering::Relaxed);
        if let Some(entry) = self.entry.as_ref().filter(|_| !self.ended) {
            entry.aborted.store(true, Ordering::Release);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::listen::Place;

    fn kept(record: &Arc<Record>, body: Bytes) -> Exchange {
        let peer = Arc::new(Peer { place: Place { index: 0, port: 1 }, port: 2, line: Arc::default() });
        let mut exchange = record.begin();
        exchange.keep(&peer, hyper::Request::new(()).into_parts().0, body);
        exchange
    }

    #[test]
    fn an_exchange_dropped_early_is_aborted_and_a_finished_one_is_not() {
        let record = Arc::new(Record::new(true));
        drop(kept(&record, Bytes::new()));
        kept(&record, Bytes::new()).finish();
        kept(&record, Bytes::new()).give_up();
        let ends: Vec<_> = record
            .list(&Wanted::after(0))
            .as_array()
            .unwrap()
            .iter()
            .map(|entry| (entry["finished"].as_bool().unwrap(), entry["aborted"].as_bool().unwrap()))
            .collect();
        assert_eq!(ends, [(false, true), (true, false), (false, false)]);
        assert_eq!(record.list(&Wanted::after(2)).as_array().unwrap().len(), 1);
    }

    #[test]
    fn the_log_is_bounded_by_number_and_by_bytes() {
        let record = Arc::new(Record::new(true));
        for _ in 0..MAX_REQUESTS + 5 {
            kept(&record, Bytes::new()).finish();
        }
        assert_eq!(record.list(&Wanted::after(0)).as_array().unwrap().len(), MAX_REQUESTS);
        let half = Bytes::from(vec![0; MAX_BYTES / 2]);
        for _ in 0..3 {
            kept(&record, half.clone()).finish();
        }
        assert_eq!(locked(record.kept.as_ref().unwrap()).bytes, MAX_BYTES);
    }

    #[test]
    fn counts_follow_the_exchanges() {
        let record = Arc::new(Record::new(false));
        let (one, two) = (record.begin(), record.begin());
        drop(one);
        assert_eq!(record.counts(), json!({"count": 2, "active": 1, "max_active": 2}));
        record.clear();
        assert_eq!(record.counts(), json!({"count": 0, "active": 1, "max_active": 1}));
        drop(two);
    }
}
