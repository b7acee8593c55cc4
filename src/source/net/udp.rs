//! Datagrams: one is one entry.
//!
//! - A trailing LF or CR LF is stripped; an empty datagram is nothing. The buffer holds the largest there can be, so that
//!   none is truncated here; what is longer than `line_bytes_max` is refused and counted.
//! - Nobody is answered. When the log has no room, datagrams stay in the kernel's buffer, which is asked to be large. What it
//!   drops is counted in two ways: with each datagram the kernel tells how many were dropped before it (`SO_RXQ_OVFL`), and
//!   for those behind the last one, which no datagram tells of, the table of sockets (`/proc/net/udp`) is read now and then.
//!   Elsewhere than on Linux nothing tells.
//!
//! Proof: the tests below, and `tests/it/net_udp.rs`.

use std::io;
use std::net::SocketAddr;

use mio::net::UdpSocket;
use mio::{Interest, Registry, Token};
use tracing::{info, warn};

use super::hub::Hub;
use super::intake::{Origin, SourceIndex};
use super::listen::{Inherited, bind_first, cannot_listen, resolve};
use super::notes::Kind;
use crate::config::sources::UdpSource;
use crate::error::Result;

/// More than the largest datagram has.
pub(super) const BUFFER_BYTES: usize = 64 << 10;
/// Datagrams taken in one turn of the loop.
const TURN_MAX: usize = 256;

/// A socket that datagrams come to.
#[derive(Debug)]
pub(super) struct Udp {
    socket: UdpSocket,
    address: SocketAddr,
    source: SourceIndex,
    /// Datagrams may be waiting.
    pub(super) is_ready: bool,
    /// Dropped by the kernel since the socket was opened, as last seen.
    drops: u32,
    /// Something has come since the table of sockets was read.
    is_suspect: bool,
}

impl Udp {
    pub(super) fn open(
        config: &UdpSource,
        source: SourceIndex,
        buffer_bytes: usize,
        inherited: &mut Inherited,
    ) -> Result<Udp> {
        let label = format!("udp:{}", config.address);
        let addresses = resolve(&label, &config.address)?;
        let mut open = || -> io::Result<UdpSocket> {
            if let Some(socket) = inherited.take_udp(&addresses) {
                socket.set_nonblocking(true)?;
                return Ok(UdpSocket::from_std(socket));
            }
            bind_first(&addresses, UdpSocket::bind)
        };
        let socket = open().map_err(|cause| cannot_listen(&label, cause))?;
        let address = socket.local_addr().map_err(|cause| cannot_listen(&label, cause))?;
        let granted = platform::prepare(&socket, buffer_bytes).map_err(|cause| cannot_listen(&label, cause))?;
        if granted < buffer_bytes {
            warn!(
                "udp:{address} has a receive buffer of {granted} bytes instead of {buffer_bytes}: a burst is dropped sooner; \
                 raise net.core.rmem_max"
            );
        }
        info!("listening on udp:{address}");
        Ok(Udp { socket, address, source, is_ready: true, drops: 0, is_suspect: false })
    }

    pub(super) fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        registry.register(&mut self.socket, token, Interest::READABLE)
    }

    /// Takes what has come, as long as there is room for it.
    pub(super) fn receive(&mut self, hub: &mut Hub<'_>, buf: &mut [u8]) -> Result<()> {
        for _ in 0..TURN_MAX {
            if !self.is_ready || hub.intake.is_blocked() {
                return Ok(());
            }
            match platform::receive(&self.socket, buf) {
                Ok(received) => {
                    self.is_suspect = true;
                    if let Some(drops) = received.drops {
                        self.count_drops(hub, drops);
                    }
                    self.take(hub, &buf[..received.bytes], received.is_truncated)?;
                }
                // Nothing is there. After any other error the next datagram is a reason to look again.
                Err(_) => self.is_ready = false,
            }
        }
        Ok(())
    }

    fn take(&mut self, hub: &mut Hub<'_>, datagram: &[u8], is_truncated: bool) -> Result<()> {
        let entry = datagram.strip_suffix(b"\n").unwrap_or(datagram);
        let entry = if entry.len() < datagram.len() { entry.strip_suffix(b"\r").unwrap_or(entry) } else { entry };
        let max = hub.limits.line_bytes_max;
        if is_truncated || entry.len() > max {
            hub.intake.counters(self.source).refuse();
            let name = hub.intake.name(self.source).to_owned();
            hub.warn(Kind::Datagram, || format!("{name}: a datagram of more than {max} bytes is refused"));
            return Ok(());
        }
        if entry.is_empty() {
            return Ok(());
        }
        if hub.log.is_refusing() {
            hub.intake.counters(self.source).refuse_full();
            return Ok(());
        }
        hub.intake.push(Origin { source: self.source, owner: None, client: None }, entry)
    }

    /// Whether something has come since drops were last looked for.
    pub(super) fn is_suspect(&self) -> bool {
        self.is_suspect
    }

    /// Looks for drops behind the last datagram.
    pub(super) fn look_for_drops(&mut self, hub: &mut Hub<'_>) {
        if std::mem::take(&mut self.is_suspect)
            && let Some(drops) = platform::drops(&self.socket, self.address)
        {
            self.count_drops(hub, drops);
        }
    }

    /// `drops` is a counter of the kernel, which starts anew behind its largest value.
    fn count_drops(&mut self, hub: &mut Hub<'_>, drops: u32) {
        let new = drops.wrapping_sub(self.drops);
        // Of two ways to the same counter one may be behind the other.
        if new == 0 || new > u32::MAX / 2 {
            return;
        }
        self.drops = drops;
        hub.intake.counters(self.source).drop_entries(u64::from(new));
        let name = hub.intake.name(self.source).to_owned();
        hub.warn(Kind::KernelDrops, || {
            format!(
                "{name}: the kernel has dropped {new} datagrams, because they came faster than they could be stored"
            )
        });
    }
}

/// What came of a receive.
struct Received {
    bytes: usize,
    is_truncated: bool,
    /// The kernel's counter, where it tells.
    drops: Option<u32>,
}

#[cfg(target_os = "linux")]
mod platform {
    use std::io::{self, IoSliceMut};
    use std::net::SocketAddr;
    use std::os::fd::{AsFd as _, AsRawFd as _};

    use mio::net::UdpSocket;
    use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg, setsockopt, sockopt};

    use super::Received;

    /// Asks for a large buffer and for the counter of drops; returns the size of the buffer.
    pub(super) fn prepare(socket: &UdpSocket, buffer_bytes: usize) -> io::Result<usize> {
        use rustix::net::sockopt as ask;
        setsockopt(socket, sockopt::RxqOvfl, &1)?;
        // The first needs a privilege; the second stops at net.core.rmem_max.
        if ask::set_socket_recv_buffer_size_force(socket, buffer_bytes).is_err() {
            ask::set_socket_recv_buffer_size(socket, buffer_bytes)?;
        }
        // The kernel doubles it for its own use.
        Ok(ask::socket_recv_buffer_size(socket)? / 2)
    }

    pub(super) fn receive(socket: &UdpSocket, buf: &mut [u8]) -> io::Result<Received> {
        let mut control = nix::cmsg_space!(u32);
        let mut parts = [IoSliceMut::new(buf)];
        let fd = socket.as_fd().as_raw_fd();
        let message = recvmsg::<()>(fd, &mut parts, Some(&mut control), MsgFlags::MSG_DONTWAIT)?;
        let drops = message.cmsgs()?.find_map(|part| match part {
            ControlMessageOwned::RxqOvfl(drops) => Some(drops),
            _ => None,
        });
        Ok(Received { bytes: message.bytes, is_truncated: message.flags.contains(MsgFlags::MSG_TRUNC), drops })
    }

    /// The last column of the socket's line in the system's table, found by its inode.
    pub(super) fn drops(socket: &UdpSocket, address: SocketAddr) -> Option<u32> {
        let inode = rustix::fs::fstat(socket).ok()?.st_ino;
        let table = if address.is_ipv4() { "/proc/net/udp" } else { "/proc/net/udp6" };
        super::drops_in(&std::fs::read_to_string(table).ok()?, inode)
    }
}

#[cfg(not(target_os = "linux"))]
mod platform {
    use std::io;
    use std::net::SocketAddr;

    use mio::net::UdpSocket;
    use rustix::net::sockopt;

    use super::Received;

    pub(super) fn prepare(socket: &UdpSocket, buffer_bytes: usize) -> io::Result<usize> {
        // More than the system allows is an error here, not less than was asked for.
        let _ = sockopt::set_socket_recv_buffer_size(socket, buffer_bytes);
        Ok(sockopt::socket_recv_buffer_size(socket)?)
    }

    pub(super) fn receive(socket: &UdpSocket, buf: &mut [u8]) -> io::Result<Received> {
        let bytes = socket.recv(buf)?;
        Ok(Received { bytes, is_truncated: false, drops: None })
    }

    pub(super) fn drops(_socket: &UdpSocket, _address: SocketAddr) -> Option<u32> {
        None
    }
}

/// The drops of the socket with this inode in the text of `/proc/net/udp`.
#[cfg(any(test, target_os = "linux"))]
fn drops_in(table: &str, inode: u64) -> Option<u32> {
    table.lines().skip(1).find_map(|line| {
        let mut columns = line.split_ascii_whitespace();
        let is_it = columns.nth(9)?.parse() == Ok(inode);
        is_it.then(|| columns.next_back()?.parse().ok()).flatten()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_of_sockets_is_read_by_inode() {
        let table = "   sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops\n\
            40: 0100007F:0202 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 5252 2 0000000000000000 7\n\
            41: 0100007F:0203 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 5253 2 0000000000000000 91\n";
        assert_eq!(drops_in(table, 5253), Some(91));
        assert_eq!(drops_in(table, 525), None);
    }
}
