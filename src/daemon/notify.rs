//! Word to the service manager (systemd's notification protocol): ready, reloading, stopping, status, watchdog.
//!
//! - The socket is named by `NOTIFY_SOCKET`, a path or (with a leading `@`) an abstract name. Without it everything here
//!   does nothing.
//! - One datagram for each message, never waited for: a service manager that does not listen must not hold the log up.
//!
//! Proof: `tests/it/systemd.rs`, with a socket of its own in the service manager's place.

use std::ffi::OsString;
use std::time::Duration;

/// Where to send to.
pub(crate) struct Notifier {
    #[cfg(unix)]
    socket: Option<(std::os::unix::net::UnixDatagram, std::os::unix::net::SocketAddr)>,
}

impl Notifier {
    /// Takes the socket from the environment. One that cannot be used is a warning: whoever set it waits for READY=1.
    #[cfg(unix)]
    pub(crate) fn from_environment(variable: impl Fn(&str) -> Option<OsString>) -> Notifier {
        let Some(name) = variable("NOTIFY_SOCKET").filter(|name| !name.is_empty()) else {
            return Notifier { socket: None };
        };
        let socket = connect(&name)
            .inspect_err(|cause| {
                tracing::warn!("NOTIFY_SOCKET {name:?} cannot be used: {cause}; the service manager is told nothing")
            })
            .ok();
        Notifier { socket }
    }

    /// There is no service manager to talk to here.
    #[cfg(not(unix))]
    pub(crate) fn from_environment(_variable: impl Fn(&str) -> Option<OsString>) -> Notifier {
        Notifier {}
    }

    /// Sources are open, the log is recovered.
    pub(crate) fn ready(&self, status: &str) {
        self.send(&format!("READY=1\nSTATUS={status}"));
    }

    /// The configuration is being read again; [`Notifier::ready`] ends it.
    pub(crate) fn reloading(&self) {
        self.send(&format!("RELOADING=1\nMONOTONIC_USEC={}\nSTATUS=Reading the configuration again", monotonic_us()));
    }

    pub(crate) fn stopping(&self, status: &str) {
        self.send(&format!("STOPPING=1\nSTATUS={status}"));
    }

    pub(crate) fn status(&self, status: &str) {
        self.send(&format!("STATUS={status}"));
    }

    pub(crate) fn watchdog(&self) {
        self.send("WATCHDOG=1");
    }

    #[cfg(unix)]
    fn send(&self, message: &str) {
        if let Some((socket, address)) = &self.socket {
            // A status has no line breaks but those between assignments; a full or closed socket is not our problem.
            let _ = socket.send_to_addr(message.as_bytes(), address);
        }
    }

    #[cfg(not(unix))]
    fn send(&self, _message: &str) {}
}

#[cfg(unix)]
fn connect(
    name: &std::ffi::OsStr,
) -> std::io::Result<(std::os::unix::net::UnixDatagram, std::os::unix::net::SocketAddr)> {
    use std::os::unix::ffi::OsStrExt as _;
    use std::os::unix::net::{SocketAddr, UnixDatagram};

    let address = match name.as_bytes() {
        #[cfg(target_os = "linux")]
        [b'@', name @ ..] => <SocketAddr as std::os::linux::net::SocketAddrExt>::from_abstract_name(name)?,
        [b'/', ..] => SocketAddr::from_pathname(name)?,
        _ => {
            let what = "it is neither a path nor an abstract name";
            return Err(std::io::Error::new(std::io::ErrorKind::InvalidInput, what));
        }
    };
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    Ok((socket, address))
}

/// The clock that systemd compares with, in microseconds.
fn monotonic_us() -> u64 {
    #[cfg(unix)]
    {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        now.tv_sec as u64 * 1_000_000 + now.tv_nsec as u64 / 1000
    }
    #[cfg(not(unix))]
    0
}

/// How often the service manager wants to hear from us at the least, if it does: `WATCHDOG_USEC`, unless `WATCHDOG_PID`
/// says that somebody else is meant.
pub(crate) fn watchdog_interval(variable: impl Fn(&str) -> Option<OsString>) -> Option<Duration> {
    let number = |name: &str| variable(name)?.to_str()?.parse::<u64>().ok();
    if variable("WATCHDOG_PID").is_some() && number("WATCHDOG_PID") != Some(u64::from(std::process::id())) {
        return None;
    }
    number("WATCHDOG_USEC").filter(|&interval_us| interval_us > 0).map(Duration::from_micros)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_watchdog_is_ours_only_if_its_process_is() {
        let interval = |pid: Option<String>, interval_us: &'static str| {
            watchdog_interval(|name| match name {
                "WATCHDOG_PID" => pid.clone().map(OsString::from),
                _ => Some(OsString::from(interval_us)),
            })
        };
        let ours = std::process::id().to_string();
        assert_eq!(interval(None, "2000000"), Some(Duration::from_secs(2)));
        assert_eq!(interval(Some(ours), "500"), Some(Duration::from_micros(500)));
        assert_eq!(interval(Some("1".to_owned()), "500"), None);
        assert_eq!(interval(Some("x".to_owned()), "500"), None);
        assert_eq!(interval(None, "0"), None);
        assert_eq!(interval(None, "soon"), None);
    }
}
