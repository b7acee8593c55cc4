//! Signals as requests that a thread in `poll` takes in.
//!
//! - Handlers only write a byte into a pipe of their signal; whoever waits for the pipes acts.
//! - None is lost but those that the kernel itself merges (two of a kind before the first is delivered). Signals of different
//!   kinds that come within the same moment have no order, neither here nor in POSIX; [`Signals::take`] gives them one.
//! - Once SIGINT or SIGTERM has come, a SIGINT ends the process at once, with code 130. The log recovers at its next start.
//! - Outside Unix nothing is caught: the process is killed, which costs nothing that was confirmed.
//!
//! Proof: the tests below, `tests/it/daemon.rs` and `tests/it/lifecycle.rs`.

use std::fmt;

/// A signal with a meaning.
#[cfg_attr(not(unix), allow(dead_code, reason = "nothing is caught there"))]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Signal {
    Hangup,
    Interrupt,
    Terminate,
    User1,
    User2,
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Signal::Hangup => "SIGHUP",
            Signal::Interrupt => "SIGINT",
            Signal::Terminate => "SIGTERM",
            Signal::User1 => "SIGUSR1",
            Signal::User2 => "SIGUSR2",
        })
    }
}

#[cfg(unix)]
pub(crate) use unix::{Signals, outlive_the_file_size_limit};

/// There is no such signal.
#[cfg(not(unix))]
pub(crate) fn outlive_the_file_size_limit() {}

#[cfg(unix)]
mod unix {
    use std::cell::Cell;
    use std::io::{self, Read as _};
    use std::os::fd::{AsFd as _, BorrowedFd};
    use std::os::unix::net::UnixStream;
    use std::sync::Arc;
    use std::sync::atomic::AtomicBool;

    use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGUSR2, SIGXFSZ};
    use signal_hook::{flag, low_level};

    use super::Signal;

    impl Signal {
        fn number(self) -> i32 {
            match self {
                Signal::Hangup => SIGHUP,
                Signal::Interrupt => SIGINT,
                Signal::Terminate => SIGTERM,
                Signal::User1 => SIGUSR1,
                Signal::User2 => SIGUSR2,
            }
        }
    }

    /// Makes a write beyond the limit on the size of files an error with a sentence, as any other; by default its signal
    /// kills. Where the handler cannot be had, it still does.
    pub(crate) fn outlive_the_file_size_limit() {
        let _ = flag::register(SIGXFSZ, Arc::new(AtomicBool::new(false)));
    }

    /// Caught signals. The handlers stay until the process ends.
    pub(crate) struct Signals {
        /// One for each signal, in the order in which [`Signals::take`] gives them.
        pipes: Vec<(Signal, UnixStream)>,
        /// The first that [`Signals::received`] has seen.
        first: Cell<Option<Signal>>,
    }

    impl Signals {
        /// For the daemon. Signals of the same moment are taken in this order: back to the configured mode before
        /// stricter, so that the stricter wins, and the end behind everything.
        pub(crate) fn install() -> io::Result<Signals> {
            let draining = Arc::new(AtomicBool::new(false));
            // Handlers run in the order they are registered: this one must look before the flag is set.
            flag::register_conditional_shutdown(SIGINT, 130, Arc::clone(&draining))?;
            for signal in [SIGINT, SIGTERM] {
                flag::register(signal, Arc::clone(&draining))?;
            }
            Signals::watch(&[Signal::Hangup, Signal::User2, Signal::User1, Signal::Terminate, Signal::Interrupt])
        }

        /// For a command that only has to clean up behind itself; also catches the end of its terminal.
        pub(crate) fn install_for_cleanup() -> io::Result<Signals> {
            Signals::watch(&[Signal::Hangup, Signal::Interrupt, Signal::Terminate])
        }

        fn watch(signals: &[Signal]) -> io::Result<Signals> {
            let mut pipes = Vec::new();
            for &signal in signals {
                let (read, write) = UnixStream::pair()?;
                read.set_nonblocking(true)?;
                low_level::pipe::register(signal.number(), write)?;
                pipes.push((signal, read));
            }
            Ok(Signals { pipes, first: Cell::new(None) })
        }

        /// What has arrived since the last look; each signal as often as it was delivered.
        pub(crate) fn take(&self) -> Vec<Signal> {
            let mut taken = Vec::new();
            for (signal, pipe) in &self.pipes {
                let mut bytes = [0; 64];
                while let Ok(count @ 1..) = (&mut &*pipe).read(&mut bytes) {
                    taken.extend(std::iter::repeat_n(*signal, count));
                }
            }
            taken
        }

        /// The first signal, once one has arrived; for who does nothing but end behind it.
        pub(crate) fn received(&self) -> Option<Signal> {
            if self.first.get().is_none() {
                self.first.set(self.take().first().copied());
            }
            self.first.get()
        }

        /// Readable from a signal until it is taken.
        pub(crate) fn fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
            self.pipes.iter().map(|(_, pipe)| pipe.as_fd())
        }
    }

    #[cfg(test)]
    mod tests {
        use super::*;
        use rustix::event::{PollFd, PollFlags, Timespec, poll};

        #[test]
        fn a_signal_is_taken_as_often_as_it_came_and_leaves_a_readable_descriptor() {
            let signals = Signals::watch(&[Signal::User2, Signal::User1]).unwrap();
            let is_awake = || {
                let now = Timespec { tv_sec: 0, tv_nsec: 0 };
                let mut fds: Vec<_> = signals.fds().map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)).collect();
                poll(&mut fds, Some(&now)).unwrap() > 0
            };
            assert_eq!((signals.take(), is_awake()), (vec![], false));
            low_level::raise(SIGUSR1).unwrap();
            low_level::raise(SIGUSR2).unwrap();
            low_level::raise(SIGUSR1).unwrap();
            assert!(is_awake());
            assert_eq!(signals.take(), [Signal::User2, Signal::User1, Signal::User1]);
            assert_eq!((signals.take(), is_awake()), (vec![], false));
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

    /// Nothing: nothing is caught.
    pub(crate) fn take(&self) -> Vec<Signal> {
        Vec::new()
    }

    /// Never: nothing is caught.
    pub(crate) fn received(&self) -> Option<Signal> {
        None
    }
}
