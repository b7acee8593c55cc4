//! Sockets that connections come from: opening them, and taking connections off them.

use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs as _};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use mio::net::{TcpListener, UnixListener};
use mio::{Interest, Registry, Token};
use tracing::{info, warn};

use super::intake::SourceIndex;
use super::stream::Stream;
use super::unix::{self, Found, SocketFile};
use crate::config::sources::Framing;
use crate::error::{Error, Result};
use crate::reactor::space::is_full;

/// How often a socket that found no room on the disk is tried again.
pub(super) const ROOM_LOOKED_FOR: Duration = Duration::from_secs(1);

/// What connections of a listener are for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Service {
    /// Entries of a source.
    Lines { source: SourceIndex, framing: Framing, confirm: bool },
    /// The control protocol; entries that come that way have this source.
    Control { source: SourceIndex },
}

#[derive(Debug)]
enum Socket {
    Tcp(TcpListener),
    Unix(UnixListener),
    /// The disk has no room for its file yet.
    Wanted(PathBuf),
    Closed,
}

/// A listening socket.
#[derive(Debug)]
pub(super) struct Listener {
    socket: Socket,
    pub(super) service: Service,
    /// As in the configuration: `tcp:127.0.0.1:7000`.
    pub(super) label: String,
    /// Connections may be waiting.
    pub(super) is_ready: bool,
    /// No connection is accepted before: descriptors, or the disk, had no room.
    pub(super) paused_until: Option<Instant>,
    /// Removed when the socket is closed.
    file: Option<SocketFile>,
}

/// Sockets that were opened by whoever started the daemon (systemd), each with its address.
#[derive(Debug, Default)]
pub(crate) struct Inherited {
    tcp: Vec<(SocketAddr, std::net::TcpListener)>,
    unix: Vec<(std::path::PathBuf, std::os::unix::net::UnixListener)>,
    udp: Vec<(SocketAddr, std::net::UdpSocket)>,
}

impl Inherited {
    /// Looks at what each descriptor is.
    ///
    /// # Errors
    /// Something that is not a listening stream socket or a datagram socket of a kind that is known.
    pub(crate) fn new(descriptors: Vec<OwnedFd>) -> Result<Inherited> {
        let mut inherited = Inherited::default();
        for descriptor in descriptors {
            inherited.add(descriptor).map_err(|cause| Error::io("use", "a socket that was passed to kifa", cause))?;
        }
        Ok(inherited)
    }

    fn add(&mut self, descriptor: OwnedFd) -> io::Result<()> {
        use rustix::net::{AddressFamily, SocketType, getpeername, getsockname, sockopt::socket_type};
        let kind = socket_type(&descriptor)?;
        let family = getsockname(&descriptor)?.address_family();
        let is_inet = matches!(family, AddressFamily::INET | AddressFamily::INET6);
        // One that listens has no other side.
        let is_connected = getpeername(&descriptor).is_ok();
        if is_inet && kind == SocketType::DGRAM {
            let socket = std::net::UdpSocket::from(descriptor);
            self.udp.push((socket.local_addr()?, socket));
            return Ok(());
        }
        if kind != SocketType::STREAM || is_connected || !(is_inet || family == AddressFamily::UNIX) {
            let what =
                "it is neither a listening stream socket nor a datagram socket; look at the unit's [Socket] section";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
        }
        if is_inet {
            let socket = std::net::TcpListener::from(descriptor);
            self.tcp.push((socket.local_addr()?, socket));
        } else {
            let socket = std::os::unix::net::UnixListener::from(descriptor);
            let path = socket.local_addr()?.as_pathname().unwrap_or(Path::new("")).to_owned();
            self.unix.push((path, socket));
        }
        Ok(())
    }

    fn take_tcp(&mut self, addresses: &[SocketAddr]) -> Option<std::net::TcpListener> {
        let at = self.tcp.iter().position(|(address, _)| addresses.contains(address))?;
        Some(self.tcp.swap_remove(at).1)
    }

    fn take_unix(&mut self, path: &Path) -> Option<std::os::unix::net::UnixListener> {
        let at = self.unix.iter().position(|(held, _)| held == path)?;
        Some(self.unix.swap_remove(at).1)
    }

    pub(super) fn take_udp(&mut self, addresses: &[SocketAddr]) -> Option<std::net::UdpSocket> {
        let at = self.udp.iter().position(|(address, _)| addresses.contains(address))?;
        Some(self.udp.swap_remove(at).1)
    }

    /// # Errors
    /// Names a socket that no configured listener has asked for: its entries would go nowhere.
    pub(super) fn expect_none_left(&self) -> Result<()> {
        let tcp = self.tcp.iter().map(|(address, _)| format!("tcp:{address}"));
        let udp = self.udp.iter().map(|(address, _)| format!("udp:{address}"));
        let unix = self.unix.iter().map(|(path, _)| format!("unix:{}", path.display()));
        match tcp.chain(udp).chain(unix).next() {
            None => Ok(()),
            Some(label) => Err(Error::InvalidOption(format!(
                "the socket {label} was passed to kifa, but nothing is configured for it; add it to [sources], or remove it \
                 from the socket unit"
            ))),
        }
    }
}

/// The addresses behind `HOST:PORT`, and a warning where others than this machine can reach them.
pub(crate) fn resolve(label: &str, address: &str) -> Result<Vec<SocketAddr>> {
    let addresses: Vec<SocketAddr> = match address.to_socket_addrs() {
        Ok(addresses) => addresses.collect(),
        Err(cause) => return Err(Error::io("find the address of", label, cause)),
    };
    if addresses.iter().any(|address| !address.ip().to_canonical().is_loopback()) {
        warn!("{label} can be reached from other machines, and kifa knows neither encryption nor passwords: shield it");
    }
    Ok(addresses)
}

/// A socket at the first of these addresses that can be had.
pub(super) fn bind_first<T>(addresses: &[SocketAddr], bind: impl Fn(SocketAddr) -> io::Result<T>) -> io::Result<T> {
    let mut failure = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for &address in addresses {
        match bind(address) {
            Ok(socket) => return Ok(socket),
            Err(cause) => failure = cause,
        }
    }
    Err(failure)
}

/// The error of a socket that cannot be opened, with what to do about it.
pub(crate) fn cannot_listen(label: &str, cause: io::Error) -> Error {
    let help = match cause.kind() {
        io::ErrorKind::AddrInUse if cause.raw_os_error().is_some() => {
            "the address is in use; stop the program that has it (ss -lp shows it), or choose another"
        }
        io::ErrorKind::AddrNotAvailable => "this machine has no such address; choose one of its own, or 127.0.0.1",
        io::ErrorKind::PermissionDenied => {
            "permission denied; ports below 1024 and foreign directories need a privilege"
        }
        _ => return Error::io("listen on", label, cause),
    };
    Error::io("listen on", label, io::Error::new(cause.kind(), help))
}

impl Listener {
    /// Listens on the first of the addresses behind `HOST:PORT` that can be had.
    pub(super) fn tcp(address: &str, service: Service, inherited: &mut Inherited) -> Result<Listener> {
        let label = format!("tcp:{address}");
        let addresses = resolve(&label, address)?;
        let mut open = || -> io::Result<TcpListener> {
            if let Some(socket) = inherited.take_tcp(&addresses) {
                socket.set_nonblocking(true)?;
                return Ok(TcpListener::from_std(socket));
            }
            // This sets SO_REUSEADDR: a restart need not wait for the connections of the run before it.
            bind_first(&addresses, TcpListener::bind)
        };
        let socket = open().map_err(|cause| cannot_listen(&label, cause))?;
        let bound = socket.local_addr().map_err(|cause| cannot_listen(&label, cause))?;
        info!("listening on tcp:{bound}");
        Ok(Listener::new(Socket::Tcp(socket), service, label, None))
    }

    /// Listens at a path. A stale socket there is replaced.
    pub(super) fn unix(path: &Path, service: Service, inherited: &mut Inherited) -> Result<Listener> {
        let label = format!("unix:{}", path.display());
        let found = if matches!(service, Service::Control { .. }) { Found::Replace } else { Found::Ask };
        let mut open = || -> io::Result<(UnixListener, Option<SocketFile>)> {
            let (socket, file) = match inherited.take_unix(path) {
                Some(socket) => (socket, None),
                None => unix::listen(path, found).map(|(socket, file)| (socket, Some(file)))?,
            };
            socket.set_nonblocking(true)?;
            Ok((UnixListener::from_std(socket), file))
        };
        let (socket, file) = open().map_err(|cause| cannot_listen(&label, cause))?;
        info!("listening on {label}");
        Ok(Listener::new(Socket::Unix(socket), service, label, file))
    }

    /// Listens at the store's control socket. On a disk that has no room for another file it is opened later: the entries of
    /// other sources need no new file, and must not wait for this one.
    pub(super) fn control(path: &Path, service: Service, now: Instant) -> Result<Listener> {
        match Listener::unix(path, service, &mut Inherited::default()) {
            Err(cause) if is_full(&cause) => {
                let label = format!("unix:{}", path.display());
                let mut wanted = Listener::new(Socket::Wanted(path.to_owned()), service, label, None);
                wanted.paused_until = Some(now + ROOM_LOOKED_FOR);
                Ok(wanted)
            }
            opened => opened,
        }
    }

    /// Whether it waits for room on the disk.
    pub(super) fn is_wanted(&self) -> bool {
        matches!(self.socket, Socket::Wanted(_))
    }

    /// Looks once more whether there is room for it.
    pub(super) fn open_again(&mut self, registry: &Registry, token: Token, now: Instant) -> Result<()> {
        let Socket::Wanted(path) = &self.socket else { return Ok(()) };
        let mut opened = Listener::control(path, self.service, now)?;
        opened.register(registry, token).map_err(|cause| cannot_listen(&self.label, cause))?;
        *self = opened;
        Ok(())
    }

    fn new(socket: Socket, service: Service, label: String, file: Option<SocketFile>) -> Listener {
        Listener { socket, service, label, is_ready: true, paused_until: None, file }
    }

    pub(super) fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        match &mut self.socket {
            Socket::Tcp(socket) => registry.register(socket, token, Interest::READABLE),
            Socket::Unix(socket) => registry.register(socket, token, Interest::READABLE),
            Socket::Wanted(_) | Socket::Closed => Ok(()),
        }
    }

    /// Who connects from now on is refused by the system.
    pub(super) fn close(&mut self) {
        self.socket = Socket::Closed;
        self.file = None;
        self.is_ready = false;
    }

    /// The next connection, and where it comes from.
    pub(super) fn accept(&self) -> io::Result<(Stream, Option<SocketAddr>)> {
        match &self.socket {
            Socket::Tcp(socket) => {
                let (stream, peer) = socket.accept()?;
                // Answers are small and waited for. A connection that is gone by now is found out by reading.
                let _ = stream.set_nodelay(true);
                Ok((Stream::Tcp(stream), Some(peer)))
            }
            Socket::Unix(socket) => Ok((Stream::Unix(socket.accept()?.0), None)),
            Socket::Wanted(_) | Socket::Closed => Err(io::ErrorKind::WouldBlock.into()),
        }
    }
}

/// The address that connections are counted by.
pub(super) fn host(peer: SocketAddr) -> IpAddr {
    peer.ip().to_canonical()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SERVICE: Service = Service::Lines { source: 0, framing: Framing::Newline, confirm: false };

    fn sentence(outcome: Result<impl Sized>) -> String {
        outcome.err().expect("it is refused").to_string()
    }

    #[test]
    fn a_socket_that_was_passed_is_used_and_one_that_nobody_asked_for_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let tcp = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = tcp.local_addr().unwrap();
        let unix = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let udp = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let udp_address = udp.local_addr().unwrap();
        let mut inherited = Inherited::new(vec![tcp.into(), unix.into(), udp.into()]).unwrap();

        let listener = Listener::tcp(&address.to_string(), SERVICE, &mut inherited).unwrap();
        let waiting = std::net::TcpStream::connect(address).unwrap();
        let (_, peer) = listener.accept().unwrap();
        assert_eq!(peer, Some(waiting.local_addr().unwrap()));

        let listener = Listener::unix(&path, SERVICE, &mut inherited).unwrap();
        std::os::unix::net::UnixStream::connect(&path).unwrap();
        listener.accept().unwrap();
        drop(listener);
        assert!(path.exists(), "whoever made it removes it");

        let left = sentence(inherited.expect_none_left());
        assert!(left.starts_with(&format!("the socket udp:{udp_address} was passed")), "{left}");
        assert!(inherited.take_udp(&[udp_address]).is_some());
        inherited.expect_none_left().unwrap();
        let connected = std::os::unix::net::UnixStream::pair().unwrap().0;
        assert!(sentence(Inherited::new(vec![connected.into()])).contains("neither a listening"));
    }

    #[test]
    fn an_address_in_use_is_an_error_with_a_way_out() {
        let other = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = other.local_addr().unwrap().to_string();
        let error = sentence(Listener::tcp(&address, SERVICE, &mut Inherited::default()));
        assert!(error.starts_with(&format!("cannot listen on tcp:{address}: the address is in use; ")), "{error}");
    }
}
