//! Many streams that begin at the same time: how long each waits for its first event.

use crate::Result;
use crate::envoy::{Envoy, Variant};
use crate::load::Plan;
use crate::scenario;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::time::{Duration, Instant};

/// Streams that begin at the same time.
pub const STREAMS: usize = 40;

/// The timeout of a burst. Its streams take a fifth of a second.
const TIMEOUT: Duration = Duration::from_secs(20);

/// The times of one variant, in microseconds from the moment the first request of its burst was sent.
pub struct Burst {
    /// The variant.
    pub variant: Variant,
    /// Until the first byte of each stream.
    pub first: Vec<f64>,
    /// Until the last byte of each stream.
    pub last: Vec<f64>,
}

/// Measures bursts against each Envoy in turn. The request names a task, so the gateway and the floor beside it have
/// both stages.
pub fn measure(envoys: &[Envoy], plan: &Plan) -> Result<Vec<Burst>> {
    let request = scenario::burst_request();
    let mut all: Vec<Burst> =
        envoys.iter().map(|e| Burst { variant: e.variant, first: Vec::new(), last: Vec::new() }).collect();
    let mut callers = envoys.iter().map(|e| open(e.port)).collect::<Result<Vec<_>>>()?;
    // The first burst opens Envoy's connections to the upstream and is not counted.
    for round in 0..=plan.rounds {
        for ((callers, envoy), burst) in callers.iter_mut().zip(envoys).zip(&mut all) {
            let times = once(callers, &request).map_err(|e| format!("burst, {}: {e}", envoy.variant.name()))?;
            if round > 0 {
                burst.first.extend(times.iter().map(|(first, _)| first));
                burst.last.extend(times.iter().map(|(_, last)| last));
            }
        }
    }
    Ok(all)
}

fn open(port: u16) -> Result<Vec<TcpStream>> {
    let open = |_| {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        Ok(stream)
    };
    (0..STREAMS).map(open).collect::<std::io::Result<_>>().map_err(|e| format!("connect: {e}"))
}

/// Sends one request on each connection and receives all streams. Returns the times of the first and the last byte.
fn once(callers: &mut [TcpStream], request: &[u8]) -> Result<Vec<(f64, f64)>> {
    let start = Instant::now();
    let micros = || start.elapsed().as_nanos() as f64 / 1000.0;
    for caller in callers.iter_mut() {
        caller.write_all(request).map_err(|e| format!("request: {e}"))?;
    }
    let mut received: Vec<(Vec<u8>, Option<f64>, Option<f64>)> = callers.iter().map(|_| Default::default()).collect();
    while received.iter().any(|(.., last)| last.is_none()) {
        if start.elapsed() > TIMEOUT {
            return Err("the streams did not end".to_owned());
        }
        let timeout = Timespec { tv_sec: 1, tv_nsec: 0 };
        let ready: Vec<bool> = {
            let mut polled: Vec<PollFd> = callers.iter().map(|caller| PollFd::new(caller, PollFlags::IN)).collect();
            poll(&mut polled, Some(&timeout)).map_err(|e| format!("poll: {e}"))?;
            polled.iter().map(|fd| !fd.revents().is_empty()).collect()
        };
        for ((caller, (text, first, last)), _) in
            callers.iter_mut().zip(&mut received).zip(ready).filter(|(_, ready)| *ready)
        {
            read_all(caller, text)?;
            if first.is_none() && has_body(text)? {
                *first = Some(micros());
            }
            if text.ends_with(b"\r\n0\r\n\r\n") {
                *last = Some(micros());
            }
        }
    }
    let whole = |(text, first, last): (Vec<u8>, Option<f64>, Option<f64>)| {
        let text = String::from_utf8_lossy(&text);
        let chunks = text.matches("\"delta\":{\"content\"").count();
        match (text.contains("data: [DONE]"), first.zip(last)) {
            (true, Some(times)) if chunks == scenario::BURST_CHUNKS => Ok(times),
            _ => Err(format!("a wrong answer: {text}")),
        }
    };
    received.into_iter().map(whole).collect()
}

fn read_all(caller: &mut TcpStream, text: &mut Vec<u8>) -> Result<()> {
    let mut piece = [0u8; 16 << 10];
    loop {
        match caller.read(&mut piece) {
            Ok(0) => return Err("the connection was closed".to_owned()),
            Ok(n) => text.extend_from_slice(piece.get(..n).unwrap_or_default()),
            Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(e) => return Err(format!("reading: {e}")),
        }
    }
}

/// Returns whether the body has begun.
fn has_body(text: &[u8]) -> Result<bool> {
    if text.len() >= 12 && !text.starts_with(b"HTTP/1.1 200") {
        return Err(format!("not 200: {}", String::from_utf8_lossy(text)));
    }
    Ok(text.windows(4).position(|w| w == b"\r\n\r\n").is_some_and(|end| text.len() > end + 4))
}
