//! Sockets that the service manager has opened for us: `LISTEN_FDS` descriptors from 3 on, if `LISTEN_PID` is this process or
//! not set.
//!
//! Which source each belongs to is told by its address, so `LISTEN_FDNAMES` is not needed: the configuration names the
//! address, and with it framing, confirmation and name.
//!
//! Proof: `tests/it/systemd.rs`.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use listenfd::ListenFd;

use crate::error::{Error, Result};

/// Number of the first descriptor that is passed.
const FIRST: usize = 3;

/// Takes the sockets over. To be called before this process opens anything: under a number that is promised and not passed
/// there would then be a file of its own.
///
/// # Errors
/// A descriptor that is not open, or no socket of a kind kifa listens on.
pub(super) fn descriptors() -> Result<Vec<OwnedFd>> {
    let mut passed = ListenFd::from_env();
    let is_missing = |index: &usize| !Path::new(&format!("/dev/fd/{}", FIRST + index)).exists();
    if let Some(index) = (0..passed.len()).find(is_missing) {
        let missing = FIRST + index;
        return Err(unusable(format!(
            "LISTEN_FDS promises descriptor {missing}, which is not open; start kifa by its unit, or unset it"
        )));
    }
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
    Err(unusable(format!(
        "descriptor {} is neither a listening TCP or Unix socket nor a UDP socket; look at the unit's [Socket] section",
        FIRST + index
    )))
}

fn unusable(what: String) -> Error {
    Error::io("use", "a socket that was passed to kifa", io::Error::new(io::ErrorKind::InvalidInput, what))
}
