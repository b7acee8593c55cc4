//! What the supervisor sleeps on: anybody may ring, signals ring by themselves.
//!
//! A ring that comes before the wait ends it at once; rings of the same moment are one. Look at everything after each.

use std::io;
use std::time::Duration;

use super::signals::Signals;
use crate::io::Waker;

#[cfg(unix)]
pub(crate) use unix::Bell;

#[cfg(unix)]
mod unix {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};

    use super::{Duration, Signals, Waker, io};
    use crate::daemon::wake::WakePipe;

    /// See the module's page.
    pub(crate) struct Bell(WakePipe);

    impl Bell {
        pub(crate) fn new() -> io::Result<Bell> {
            WakePipe::new().map(Bell)
        }

        pub(crate) fn ringer(&self) -> Waker {
            self.0.waker()
        }

        /// Waits for a ring, a signal or the end of `timeout`, whichever is first.
        pub(crate) fn wait(&self, signals: &Signals, timeout: Option<Duration>) -> io::Result<()> {
            let fds = std::iter::once(self.0.fd()).chain(signals.fds());
            let mut fds: Vec<PollFd<'_>> = fds.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)).collect();
            let timeout = timeout.and_then(|timeout| Timespec::try_from(timeout).ok());
            match poll(&mut fds, timeout.as_ref()) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
            self.0.drain();
            Ok(())
        }
    }
}

#[cfg(not(unix))]
pub(crate) use other::Bell;

#[cfg(not(unix))]
mod other {
    use std::sync::{Arc, Condvar, Mutex};

    use super::{Duration, Signals, Waker, io};

    const LOCK: &str = "nothing panics while it holds this lock";

    /// See the module's page.
    pub(crate) struct Bell(Arc<(Mutex<bool>, Condvar)>);

    impl Bell {
        pub(crate) fn new() -> io::Result<Bell> {
            Ok(Bell(Arc::default()))
        }

        pub(crate) fn ringer(&self) -> Waker {
            let bell = Arc::clone(&self.0);
            Arc::new(move || {
                *bell.0.lock().expect(LOCK) = true;
                bell.1.notify_all();
            })
        }

        /// Waits for a ring or the end of `timeout`, whichever is first.
        pub(crate) fn wait(&self, _signals: &Signals, timeout: Option<Duration>) -> io::Result<()> {
            let has_rung = self.0.0.lock().expect(LOCK);
            let mut has_rung = match timeout {
                Some(timeout) => self.0.1.wait_timeout_while(has_rung, timeout, |rung| !*rung).expect(LOCK).0,
                None => self.0.1.wait_while(has_rung, |rung| !*rung).expect(LOCK),
            };
            *has_rung = false;
            Ok(())
        }
    }
}
