//! Sockets that the service manager has opened for us: `LISTEN_FDS` descriptors from 3 on, if `LISTEN_PID` is this process.
//!
//! Which source each belongs to is told by its address, so `LISTEN_FDNAMES` is not needed: the configuration names the
//! address, and with it framing, confirmation and name.
//!
//! It must be called once, before anything else opens descriptors by number: it takes them over.
//!
//! Proof: `tests/it/systemd.rs`.

use std::ffi::OsString;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use listenfd::ListenFd;

use crate::error::{Error, Result};

/// Looks whether what is promised is there, before this process opens anything under these numbers itself.
///
/// # Errors
/// A descriptor that is not open.
pub(super) fn check(variable: &impl Fn(&str) -> Option<OsString>) -> Result<()> {
    let number = |name| variable(name)?.to_str()?.parse::<u32>().ok();
    if number("LISTEN_PID") != Some(std::process::id()) {
        return Ok(());
    }
    let promised = 3..3 + u64::from(number("LISTEN_FDS").unwrap_or(0));
    let is_missing = |fd: &u64| !Path::new(&format!("/dev/fd/{fd}")).exists();
    let Some(missing) = promised.into_iter().find(is_missing) else { return Ok(()) };
    let what =
        format!("LISTEN_FDS promises descriptor {missing}, which is not open; start kifa by its unit, or unset it");
    Err(Error::io("use", "a socket that was passed to kifa", io::Error::new(io::ErrorKind::InvalidInput, what)))
}

/// Takes the sockets over.
///
/// # Errors
/// A descriptor that is no socket of a kind kifa listens on.
pub(super) fn descriptors() -> Result<Vec<OwnedFd>> {
    let mut passed = ListenFd::from_env();
    (0..passed.len()).map(|index| descriptor(&mut passed, index)).collect()
}

/// Each of these leaves the descriptor where it is if it is of another kind.
fn descriptor(passed: &mut ListenFd, index: usize) -> Result<OwnedFd> {
    if let Ok(Some(socket)) = passed.take_tcp_listener(index) {
        return Ok(socket.into());
    }
    if let Ok(Some(socket)) = passed.take_unix_listener(index) {
        return Ok(socket.into());
    }
    if let Ok(Some(socket)) = passed.take_udp_socket(index) {
        return Ok(socket.into());
    }
    let what = format!(
        "descriptor {} is neither a listening TCP or Unix socket nor a UDP socket; look at the unit's [Socket] section",
        index + 3
    );
    Err(Error::io("use", "a socket that was passed to kifa", io::Error::new(io::ErrorKind::InvalidInput, what)))
}
