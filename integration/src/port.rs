//! A local port that stays reserved for the test, whether or not a program listens on it.

use std::net::SocketAddr;
use tokio::net::TcpSocket;

/// A reserved port, for programs that cannot report which free port they got, or that return to the same port.
///
/// A socket is bound to the port and never listens. Linux therefore never assigns the port as a free one, and refuses
/// connections to it. A program that sets `SO_REUSEADDR`, as servers do, can still listen on it.
#[derive(Debug)]
pub struct Port {
    /// The port's address.
    pub address: SocketAddr,
    _held: TcpSocket,
}

impl Port {
    /// Reserves a free port.
    ///
    /// # Panics
    /// If none is free.
    pub fn reserve() -> Self {
        let held = TcpSocket::new_v4().expect("makes a socket");
        held.set_reuseaddr(true).expect("sets an option");
        held.bind(SocketAddr::from(([127, 0, 0, 1], 0))).expect("binds");
        Self { address: held.local_addr().expect("has an address"), _held: held }
    }

    /// Returns the port number.
    pub fn number(&self) -> u16 {
        self.address.port()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};

    #[test]
    fn a_reserved_port_can_be_listened_at_again_and_again_and_is_given_to_nobody_else() {
        let port = Port::reserve();
        for _ in 0..3 {
            assert!(TcpStream::connect(port.address).is_err());
            let listener = TcpListener::bind(port.address).expect("listens");
            assert!(TcpStream::connect(port.address).is_ok());
            assert!(TcpListener::bind(port.address).is_err(), "one at a time");
            drop(listener);
        }
        let others: Vec<_> = (0..2000).map(|_| Port::reserve()).collect();
        assert!(others.iter().all(|other| other.address != port.address));
    }
}
