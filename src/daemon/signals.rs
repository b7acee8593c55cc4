//! SIGINT and SIGTERM as a request to drain, noticed by a flag and by a file descriptor that becomes readable.
//!
//! - The first signal only sets the flag; whoever runs the loop drains and ends.
//! - A SIGINT that arrives while that goes on ends the process at once, with code 130. The log recovers at its next start.
//! - Outside Unix nothing is caught: the process is killed, which costs nothing that was confirmed.
//!
//! Proof: `tests/it/daemon.rs`.

use std::fmt;

/// A signal that asks the process to end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Signal {
    Hangup,
    Interrupt,
    Terminate,
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Signal::Hangup => "SIGHUP",
            Signal::Interrupt => "SIGINT",
            Signal::Terminate => "SIGTERM",
        })
    }
}

#[cfg(unix)]
pub(crate) use unix::Signals;

#[cfg(unix)]
mod unix {
    use std::io;
    use std::os::fd::{AsFd as _, BorrowedFd};
    use std::os::unix::net::UnixStream;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

    use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
    use signal_hook::{flag, low_level};

    use super::Signal;

    /// Caught signals. The handlers stay until the process ends.
    pub(crate) struct Signals {
        received: Arc<AtomicUsize>,
        wake: UnixStream,
    }

    impl Signals {
        /// For a command that drains: a second SIGINT ends the process at once.
        pub(crate) fn install() -> io::Result<Signals> {
            let draining = Arc::new(AtomicBool::new(false));
            // Handlers run in the order they are registered: this one must look before the flag is set.
            flag::register_conditional_shutdown(SIGINT, 130, Arc::clone(&draining))?;
            for signal in [SIGINT, SIGTERM] {
                flag::register(signal, Arc::clone(&draining))?;
            }
            Signals::watch(&[SIGINT, SIGTERM])
        }

        /// For a command that only has to clean up behind itself; also catches the end of its terminal.
        pub(crate) fn install_for_cleanup() -> io::Result<Signals> {
            Signals::watch(&[SIGHUP, SIGINT, SIGTERM])
        }

        fn watch(signals: &[i32]) -> io::Result<Signals> {
            let received = Arc::new(AtomicUsize::new(0));
            let (wake, waker) = UnixStream::pair()?;
            for &signal in signals {
                flag::register_usize(signal, Arc::clone(&received), signal as usize)?;
                low_level::pipe::register(signal, waker.try_clone()?)?;
            }
            Ok(Signals { received, wake })
        }

        /// The last signal, if one has arrived.
        pub(crate) fn received(&self) -> Option<Signal> {
            match self.received.load(Ordering::SeqCst) as i32 {
                SIGHUP => Some(Signal::Hangup),
                SIGINT => Some(Signal::Interrupt),
                SIGTERM => Some(Signal::Terminate),
                _ => None,
            }
        }

        /// Readable from the first signal on.
        pub(crate) fn wake(&self) -> BorrowedFd<'_> {
            self.wake.as_fd()
        }
    }

    #[cfg(test)]
    mod tests {
        use super::*;
        use rustix::event::{PollFd, PollFlags, Timespec, poll};

        #[test]
        fn a_signal_leaves_its_name_and_a_readable_descriptor() {
            let signals = Signals::watch(&[SIGHUP]).unwrap();
            let is_awake = || {
                let now = Timespec { tv_sec: 0, tv_nsec: 0 };
                poll(&mut [PollFd::from_borrowed_fd(signals.wake(), PollFlags::IN)], Some(&now)).unwrap() == 1
            };
            assert_eq!((signals.received(), is_awake()), (None, false));
            low_level::raise(SIGHUP).unwrap();
            assert_eq!((signals.received(), is_awake()), (Some(Signal::Hangup), true));
        }
    }
}

#[cfg(not(unix))]
pub(crate) struct Signals;

#[cfg(not(unix))]
impl Signals {
    pub(crate) fn install() -> std::io::Result<Signals> {
        Ok(Signals)
    }

    pub(crate) fn install_for_cleanup() -> std::io::Result<Signals> {
        Ok(Signals)
    }

    /// Never: nothing is caught.
    pub(crate) fn received(&self) -> Option<Signal> {
        None
    }
}
