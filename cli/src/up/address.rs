//! Claims the addresses at which Envoy is to listen. Envoy sets SO_REUSEPORT, so a second one would share an address
//! that is in use and take part of its requests.

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketType, bind, ipproto, socket, sockopt};
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr as UnixAddr, UnixListener};
use std::time::{Duration, Instant};

/// Holds off every other `up` of this machine that is to start on one of the same ports. Drop it once Envoy listens:
/// from then on, the others find the address in use.
pub struct Claim(#[expect(dead_code, reason = "held until it is dropped")] Vec<UnixListener>);

/// Why the addresses cannot be had.
pub enum NotClaimed {
    /// One line per address.
    Taken(Vec<String>),
    /// `stopped` became true meanwhile.
    Stopped,
}

/// Claims `addresses`, each with the flag that names it. Port 0 is always free. Waits for `limit` for other `up`s that
/// are starting.
///
/// # Errors
/// Every address that is in use.
pub fn claim(
    addresses: &[(&str, SocketAddr)],
    limit: Duration,
    stopped: &dyn Fn() -> bool,
) -> Result<Claim, NotClaimed> {
    // In one order, or two `up`s could each wait for the other.
    let ports: BTreeSet<u16> = addresses.iter().map(|(_, address)| address.port()).filter(|port| *port > 0).collect();
    let end = Instant::now() + limit;
    let mut held = Vec::new();
    for port in ports {
        loop {
            match lock(port) {
                Ok(socket) => {
                    held.push(socket);
                    break;
                }
                Err(e) if e.kind() != std::io::ErrorKind::AddrInUse => {
                    return Err(NotClaimed::Taken(vec![format!("port {port}: {e}")]));
                }
                Err(_) if stopped() => return Err(NotClaimed::Stopped),
                Err(_) if end <= Instant::now() => {
                    let line =
                        format!("port {port}: another `pointsman up` has been starting on this port for too long");
                    return Err(NotClaimed::Taken(vec![line]));
                }
                Err(_) => std::thread::sleep(Duration::from_millis(20)),
            }
        }
    }
    let taken: Vec<_> = addresses
        .iter()
        .filter(|(_, address)| address.port() > 0)
        .filter_map(|(flag, address)| Some(format!("{flag} {address}: {}", obstacle(*address)?)))
        .collect();
    if taken.is_empty() { Ok(Claim(held)) } else { Err(NotClaimed::Taken(taken)) }
}

/// Takes the lock of a port: an abstract Unix socket, which has the scope of the port (network namespace) and goes with
/// the process.
fn lock(port: u16) -> std::io::Result<UnixListener> {
    UnixListener::bind_addr(&UnixAddr::from_abstract_name(format!("pointsman-up/{port}"))?)
}

/// Returns why this program cannot listen at an address, if it cannot.
fn obstacle(address: SocketAddr) -> Option<&'static str> {
    match try_to_bind(address) {
        Err(Errno::ADDRINUSE) => {
            Some("address in use, possibly by another `pointsman up`; stop that process or choose another address")
        }
        Err(Errno::ADDRNOTAVAIL) => Some("not an address of this machine"),
        // What else hinders this process may not hinder Envoy: the program file can have capabilities of its own.
        Err(_) | Ok(_) => None,
    }
}

/// Binds as Envoy does, but without SO_REUSEPORT.
fn try_to_bind(address: SocketAddr) -> Result<OwnedFd, Errno> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = socket(family, SocketType::STREAM, Some(ipproto::TCP))?;
    // Connections of an Envoy that has just ended do not count.
    sockopt::set_socket_reuseaddr(&socket, true)?;
    if address.is_ipv6() {
        sockopt::set_ipv6_v6only(&socket, true)?;
    }
    bind(&socket, &address)?;
    Ok(socket)
}
