//! Accepts connections and serves HTTP/1.1 or HTTP/2 (prior knowledge or ALPN) on each, with or without TLS.

use std::sync::Arc;
use std::time::Duration;

use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};

use crate::serve::{self, Sim};
use crate::tls;
use crate::wire::{Line, Wire};

/// The listener on which a request arrived.
#[derive(Debug, Clone, Copy)]
pub struct Place {
    /// The listener's position among the `--listen` flags.
    pub index: usize,
    /// Its port.
    pub port: u16,
}

/// One accepted connection, as its requests see it.
#[derive(Debug)]
pub struct Peer {
    /// The listener that accepted it.
    pub place: Place,
    /// The port of the client.
    pub port: u16,
    /// The handle that cuts it.
    pub line: Arc<Line>,
}

/// Accepts connections until the process ends.
pub async fn accept(sim: Arc<Sim>, listener: TcpListener, place: Place) {
    loop {
        match listener.accept().await {
            Ok((stream, from)) => {
                let peer = Arc::new(Peer { place, port: from.port(), line: Arc::default() });
                tokio::spawn(connection(Arc::clone(&sim), stream, peer));
            }
            // Most likely out of file descriptors: let some connections end.
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    }
}

/// Serves one connection until either side ends it.
async fn connection(sim: Arc<Sim>, stream: TcpStream, peer: Arc<Peer>) {
    // A stream's events must leave as soon as they are written.
    let _ = stream.set_nodelay(true);
    let tls = match sim.tls() {
        Some(tls) if tls::is_hello(&stream).await => Some(tls.clone()),
        _ => None,
    };
    let wire = Wire::new(stream, Arc::clone(&peer.line));
    match tls {
        None => serve(sim, wire, peer).await,
        Some(tls) => {
            // A failed handshake is the client's to report.
            if let Ok(wire) = tls.accept(wire).await {
                serve(sim, wire, peer).await;
            }
        }
    }
}

async fn serve(sim: Arc<Sim>, io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, peer: Arc<Peer>) {
    let line = Arc::clone(&peer.line);
    let service = service_fn(move |request| serve::handle(Arc::clone(&sim), Arc::clone(&peer), request));
    let mut builder = auto::Builder::new(TokioExecutor::new());
    // Events are small: copying them into one buffer costs less than a vectored write.
    builder.http1().writev(false);
    builder.http2().max_concurrent_streams(1024);
    tokio::select! {
        // A client that disconnects is recorded with its request, not here.
        _ = builder.serve_connection(TokioIo::new(io), service) => {}
        () = line.when_cut() => {}
    }
}
