//! What a producer holds of a batch that is on its way.

use std::fmt;
use std::sync::Arc;

use crate::batch::LsnRange;
use crate::error::Result;
use crate::reactor::stage::Shared;

/// A batch on its way. Dropping it does not take the batch back.
///
/// ```
/// # let temporary = tempfile::tempdir()?;
/// # let dir = temporary.path().join("till-1");
/// use kifa::{Batch, Log, Options};
///
/// let log = Log::open(&dir, Options::default())?;
/// let mut batch = Batch::new();
/// batch.push(b"TXN-001")?;
/// batch.push(b"TXN-002")?;
/// let ticket = log.submit(&batch)?;
/// // ... something else meanwhile ...
/// let lsns = ticket.wait()?;
/// assert_eq!((lsns.first.0, lsns.last.0), (1, 2));
/// assert!(ticket.is_done());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Ticket {
    pub(super) shared: Arc<Shared>,
    pub(super) seq: u64,
    pub(super) lsns: LsnRange,
}

impl Ticket {
    /// Waits until the batch is confirmed; returns its LSNs.
    ///
    /// # Errors
    /// [`Error::Stopped`](crate::Error::Stopped): the log failed before it could be confirmed. Whether it is stored is known
    /// after reopening.
    pub fn wait(&self) -> Result<LsnRange> {
        self.shared.wait_confirmed(self.seq, self.lsns.last)?;
        Ok(self.lsns)
    }

    /// How many entries it has.
    #[cfg(feature = "cli")]
    pub(crate) fn entries(&self) -> u64 {
        self.lsns.last.0 + 1 - self.lsns.first.0
    }

    /// Whether [`Ticket::wait`] would return at once.
    pub fn is_done(&self) -> bool {
        !matches!(self.shared.is_confirmed(self.seq, self.lsns.last), Ok(false))
    }
}

impl fmt::Debug for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ticket").field("lsns", &self.lsns).finish_non_exhaustive()
    }
}
