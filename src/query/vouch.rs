//! What a reader learns of the writer beside it: whether one is alive, and how far the log is durable by its word.
//!
//! A daemon answers on the socket in the store's directory. Its word only moves the end of what a reader returns, and
//! never beyond groups that were found on disk, in their chain, with every checksum right: a hostile or foreign socket can
//! make a reader return entries that are written and not proven durable (what it returns, with a notice, when no writer is
//! alive), and nothing else.
//!
//! - Without an answer (no socket, no permission, another protocol, too slow) a reader falls back to what is provable.
//! - An answer may take [`ANSWER_WITHIN`]; behind a failure of that kind nobody is asked for [`SILENT_FOR`], so that a
//!   stopped daemon costs a reader that wait once and not at each look.
//! - Asking creates nothing.
//!
//! Proof: `tests`, and `tests/it/vouch.rs` beside real and false daemons.
// A reader waits for another process, on the machine's own clock.
#![allow(clippy::disallowed_methods)]

use std::path::Path;
#[cfg(unix)]
use std::{
    path::PathBuf,
    sync::Mutex,
    time::{Duration, Instant},
};

#[cfg(unix)]
use crate::control::{Connection, ControlError, REPLY_BYTES_MAX};
use crate::format::Lsn;
use crate::io::lock::writer_alive;

/// How long connecting, and then the answer, may take.
#[cfg(unix)]
const ANSWER_WITHIN: Duration = Duration::from_secs(1);
/// How long a socket that gave no answer is left alone.
#[cfg(unix)]
const SILENT_FOR: Duration = Duration::from_secs(5);

/// See the module's page.
pub(super) struct Writer {
    is_alive: Box<dyn Fn() -> bool + Send + Sync>,
    durable_lsn: Box<dyn Fn() -> Option<Lsn> + Send + Sync>,
}

impl Writer {
    pub(super) fn new(
        is_alive: impl Fn() -> bool + Send + Sync + 'static,
        durable_lsn: impl Fn() -> Option<Lsn> + Send + Sync + 'static,
    ) -> Writer {
        Writer { is_alive: Box::new(is_alive), durable_lsn: Box::new(durable_lsn) }
    }

    /// Whoever writes to the store in `dir`.
    pub(super) fn of_store(dir: &Path) -> Writer {
        let lock_dir = dir.to_owned();
        let is_alive = move || writer_alive(&lock_dir);
        #[cfg(unix)]
        {
            let daemon = Daemon { dir: dir.to_owned(), silent_until: Mutex::new(None) };
            Writer::new(is_alive, move || daemon.durable_lsn())
        }
        #[cfg(not(unix))]
        Writer::new(is_alive, || None)
    }

    /// Whether a process has the store open for writing.
    pub(super) fn is_alive(&self) -> bool {
        (self.is_alive)()
    }

    /// Up to where the log is durable, if the writer says it.
    pub(super) fn durable_lsn(&self) -> Option<Lsn> {
        (self.durable_lsn)()
    }
}

/// A daemon that may answer on the socket of its store.
#[cfg(unix)]
struct Daemon {
    dir: PathBuf,
    silent_until: Mutex<Option<Instant>>,
}

#[cfg(unix)]
impl Daemon {
    fn durable_lsn(&self) -> Option<Lsn> {
        let mut silent_until = self.silent_until.lock().expect("nothing panics while it holds this lock");
        if silent_until.is_some_and(|until| Instant::now() < until) {
            return None;
        }
        match self.ask() {
            Ok(lsn) => Some(lsn),
            // That costs no time, and may be otherwise the next time.
            Err(ControlError::Absent) => None,
            Err(_) => {
                *silent_until = Some(Instant::now() + SILENT_FOR);
                None
            }
        }
    }

    fn ask(&self) -> Result<Lsn, ControlError> {
        let mut connection = Connection::open_store(&self.dir, ANSWER_WITHIN)?;
        let answer = connection.request("DURABLE", REPLY_BYTES_MAX, ANSWER_WITHIN)?;
        answer.parse().map(Lsn).map_err(|_| ControlError::Garbled(answer))
    }
}
