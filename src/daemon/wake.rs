//! A descriptor that another thread makes readable: how a thread in `poll` is woken.

use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use crate::io::Waker;

/// Readable from the first call of its waker until it is drained.
pub(crate) struct WakePipe {
    read: UnixStream,
    write: Arc<UnixStream>,
}

impl WakePipe {
    pub(crate) fn new() -> io::Result<WakePipe> {
        let (read, write) = UnixStream::pair()?;
        read.set_nonblocking(true)?;
        write.set_nonblocking(true)?;
        Ok(WakePipe { read, write: Arc::new(write) })
    }

    /// Makes the descriptor readable; never blocks.
    pub(crate) fn waker(&self) -> Waker {
        let write = Arc::clone(&self.write);
        Arc::new(move || {
            // A full pipe is readable already.
            let _ = (&*write).write(&[1]);
        })
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.read.as_fd()
    }

    /// Takes the wake-ups that have come. Drain first, then look at what may have caused them.
    pub(crate) fn drain(&self) {
        let mut bytes = [0; 64];
        while matches!((&self.read).read(&mut bytes), Ok(read) if read > 0) {}
    }
}
