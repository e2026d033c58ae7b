//! Plays a response body: pacing, faults in the middle, compression, and cutting into pieces.

use std::io::Write as _;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use flate2::Compression;
use flate2::write::GzEncoder;
use futures_util::{Stream, stream};

use crate::behavior::Split;
use crate::dialect::LastWords;
use crate::record::Exchange;
use crate::sse::{Event, Kind};
use crate::wire::{Cut, Line};

/// How long written bytes have to reach the peer before the connection is cut. A reset discards bytes still in transit.
const GRACE: Duration = Duration::from_millis(20);

/// What goes wrong in the middle of a body.
pub enum Trouble {
    /// The connection is cut.
    Cut(Cut),
    /// Nothing more comes.
    Hang,
    /// The body ends cleanly in the middle of the next event.
    Truncate,
    /// The bytes made for this number of events before them are sent, then the body ends cleanly.
    Last(LastWords),
    /// These bytes are sent, and the body continues.
    Aside(Bytes),
    /// These bytes are sent again and again, with this wait before each.
    Pings(Bytes, Duration),
}

/// When something goes wrong, and what.
pub struct Due {
    /// After how many content events. At 0 it is before the first event of any kind.
    pub after_chunks: usize,
    /// Not before the events that precede the content.
    pub after_head: bool,
    /// What goes wrong.
    pub trouble: Trouble,
}

impl Due {
    /// Something that goes wrong after this many content events.
    pub fn after(after_chunks: usize, trouble: Trouble) -> Self {
        Self { after_chunks, after_head: false, trouble }
    }
}

/// A body to play.
pub struct Score {
    /// The events, in order. A document is one or more `Content` events.
    pub events: Box<dyn Iterator<Item = Event> + Send>,
    /// What goes wrong, and when.
    pub trouble: Option<Due>,
    /// Leave out the `Done` event.
    pub no_done: bool,
    /// Bytes sent after the last event.
    pub trailing: Option<&'static [u8]>,
    /// The wait before the first event.
    pub first_delay: Duration,
    /// The wait between content events.
    pub chunk_delay: Duration,
    /// The wait between the last byte and the end.
    pub end_delay: Duration,
    /// Compress with gzip.
    pub gzip: bool,
    /// Write in pieces of this size.
    pub split: Option<Split>,
}

struct Player {
    score: Score,
    line: Arc<Line>,
    exchange: Exchange,
    gzip: Option<GzEncoder<Vec<u8>>>,
    /// Bytes held back until a piece of the split size is full.
    held: BytesMut,
    contents: usize,
    /// Events sent, of any kind.
    sent: usize,
    ping_delay: Duration,
    started: bool,
    split_started: bool,
    stop: Option<Stop>,
}

enum Step {
    Send(Bytes),
    Stop(Stop),
}

/// How a body stops.
#[derive(Clone, Copy)]
enum Stop {
    End,
    Cut(Cut),
    Hang,
}

/// Returns the pieces of the body. `exchange` records how far they got.
pub fn play(score: Score, line: Arc<Line>, exchange: Exchange) -> impl Stream<Item = Bytes> + Send {
    let gzip = score.gzip.then(|| GzEncoder::new(Vec::new(), Compression::fast()));
    let player = Player {
        score,
        line,
        exchange,
        gzip,
        held: BytesMut::new(),
        contents: 0,
        sent: 0,
        ping_delay: Duration::ZERO,
        started: false,
        split_started: false,
        stop: None,
    };
    stream::unfold(player, |mut player| async move { player.next().await.map(|piece| (piece, player)) })
}

impl Player {
    /// Returns the next piece to write. A body that is cut or hangs first writes everything before that point.
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if let Some(split) = self.score.split {
                let size = split.bytes.max(1);
                if self.held.len() >= size || (self.stop.is_some() && !self.held.is_empty()) {
                    if std::mem::replace(&mut self.split_started, true) {
                        pause(split.ms).await;
                    }
                    return Some(self.held.split_to(size.min(self.held.len())).freeze());
                }
            }
            match self.stop {
                None => {}
                Some(Stop::End) => {
                    wait(self.score.end_delay).await;
                    self.exchange.finish();
                    return None;
                }
                Some(Stop::Cut(how)) => {
                    self.exchange.give_up();
                    // The wait lets the connection write what it has.
                    tokio::time::sleep(GRACE).await;
                    self.line.cut(how);
                    return std::future::pending().await;
                }
                Some(Stop::Hang) => return std::future::pending().await,
            }
            let bytes = match self.step().await {
                Step::Send(bytes) => self.encode(bytes),
                Step::Stop(stop) => {
                    self.stop = Some(stop);
                    if matches!(stop, Stop::End) { self.last_bytes() } else { Bytes::new() }
                }
            };
            if self.score.split.is_some() {
                self.held.extend_from_slice(&bytes);
            } else if !bytes.is_empty() {
                return Some(bytes);
            }
        }
    }

    /// Returns the next event, or what goes wrong instead.
    async fn step(&mut self) -> Step {
        if !self.started {
            self.started = true;
            wait(self.score.first_delay).await;
            if let Some(step) = self.strike_if(|due, _| due.after_chunks == 0 && !due.after_head, None) {
                return step;
            }
        }
        let Some(event) = self.score.events.next() else {
            return match self.strike_if(|_, _| true, None) {
                Some(step) => step,
                None => Step::Stop(Stop::End),
            };
        };
        let due = |due: &Due, contents: usize| match event.kind {
            Kind::Head | Kind::Ping => false,
            Kind::Content | Kind::Between => contents >= due.after_chunks,
            Kind::Tail | Kind::Done => true,
        };
        if let Some(step) = self.strike_if(due, Some(&event)) {
            return step;
        }
        match event.kind {
            Kind::Content => {
                if self.contents > 0 {
                    wait(self.score.chunk_delay).await;
                }
                self.contents += 1;
                self.exchange.chunk();
            }
            Kind::Done if self.score.no_done => return Step::Stop(Stop::End),
            Kind::Ping => wait(self.ping_delay).await,
            Kind::Head | Kind::Between | Kind::Tail | Kind::Done => {}
        }
        self.sent += 1;
        Step::Send(event.bytes)
    }

    /// Applies the trouble if it is due. `event` is the next event, which is put back if the body continues.
    fn strike_if(&mut self, is_due: impl Fn(&Due, usize) -> bool, event: Option<&Event>) -> Option<Step> {
        let due = self.score.trouble.take()?;
        if !is_due(&due, self.contents) {
            self.score.trouble = Some(due);
            return None;
        }
        match due.trouble {
            Trouble::Cut(how) => Some(Step::Stop(Stop::Cut(how))),
            Trouble::Hang => Some(Step::Stop(Stop::Hang)),
            Trouble::Truncate => {
                let next = event.map(|event| event.bytes.clone()).or_else(|| self.score.events.next().map(|e| e.bytes));
                self.score.events = Box::new(std::iter::empty());
                self.score.trailing = None;
                next.map(|bytes| Step::Send(bytes.slice(..bytes.len() / 2)))
            }
            Trouble::Last(words) => {
                self.score.events = Box::new(std::iter::empty());
                Some(Step::Send(words(self.sent)))
            }
            Trouble::Pings(bytes, delay) => {
                self.score.events = Box::new(std::iter::repeat(Event { kind: Kind::Ping, bytes }));
                self.ping_delay = delay;
                Some(Step::Send(Bytes::new()))
            }
            Trouble::Aside(bytes) => {
                if let Some(event) = event.cloned() {
                    let rest = std::mem::replace(&mut self.score.events, Box::new(std::iter::empty()));
                    self.score.events = Box::new(std::iter::once(event).chain(rest));
                }
                Some(Step::Send(bytes))
            }
        }
    }

    fn encode(&mut self, bytes: Bytes) -> Bytes {
        let Some(gzip) = &mut self.gzip else { return bytes };
        // Writing to memory cannot fail.
        let _ = gzip.write_all(&bytes).and_then(|()| gzip.flush());
        std::mem::take(gzip.get_mut()).into()
    }

    fn last_bytes(&mut self) -> Bytes {
        let mut out = self.score.trailing.take().map(|bytes| self.encode(Bytes::from_static(bytes)).to_vec());
        if let Some(end) = self.gzip.take().and_then(|gzip| gzip.finish().ok()) {
            out.get_or_insert_default().extend_from_slice(&end);
        }
        out.unwrap_or_default().into()
    }
}

async fn wait(delay: Duration) {
    if !delay.is_zero() {
        tokio::time::sleep(delay).await;
    }
}

/// Lets the connection write what it has before the next piece.
async fn pause(ms: u64) {
    if ms == 0 {
        tokio::task::yield_now().await;
    } else {
        tokio::time::sleep(Duration::from_millis(ms)).await;
    }
}
