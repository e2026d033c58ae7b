//! A port of this machine that stays the test's own, whether a program listens there or not.

use std::net::SocketAddr;
use tokio::net::TcpSocket;

/// A reserved port, for programs that cannot say which free port they were given, or that come back to theirs.
///
/// A socket is bound to it and never listens. So Linux gives the port to nobody who asks for a free one, and refuses
/// connections to it; yet a program that sets `SO_REUSEADDR`, as servers do, can listen there.
#[derive(Debug)]
pub struct Port {
    /// Where it is.
    pub address: SocketAddr,
    _held: TcpSocket,
}

impl Port {
    /// Reserves a free one.
    ///
    /// # Panics
    /// If there is none.
    pub fn reserve() -> Self {
        let held = TcpSocket::new_v4().expect("makes a socket");
        held.set_reuseaddr(true).expect("sets an option");
        held.bind(SocketAddr::from(([127, 0, 0, 1], 0))).expect("binds");
        Self { address: held.local_addr().expect("has an address"), _held: held }
    }

    /// Its number.
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
