//! Which daemon a command talks to: that of a store, or whoever listens on a socket.

use std::path::PathBuf;

use clap::Args;

use super::exit::{Exit, Failure};
use super::variable;
use crate::config::data_dir;

/// Options that name a daemon.
#[derive(Clone, Debug, Args)]
pub(crate) struct RemoteArgs {
    /// Where the daemon's store is [env: KIFA_DATA_DIR]
    #[arg(short, long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// The daemon's socket itself, instead of a store's kifa.sock
    #[arg(long, value_name = "PATH", conflicts_with = "data_dir")]
    socket: Option<PathBuf>,
}

/// A daemon, named one way or the other.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Remote {
    Store(PathBuf),
    Socket(PathBuf),
}

impl RemoteArgs {
    /// The daemon that is meant.
    pub(crate) fn remote(self) -> Result<Remote, Failure> {
        match self.socket {
            Some(path) => Ok(Remote::Socket(path)),
            None => data_dir(self.data_dir, variable)
                .map(Remote::Store)
                .map_err(|error| Failure::new(Exit::Usage, error.message)),
        }
    }
}

#[cfg(unix)]
pub(crate) use unix::failure;

#[cfg(unix)]
mod unix {
    use std::fmt;
    use std::io;
    use std::path::Path;
    use std::time::Duration;

    use super::Remote;
    use crate::cli::exit::{Exit, Failure};
    use crate::control::{Connection, ControlError};

    impl Remote {
        /// Connects within `timeout`.
        pub(crate) fn connect(&self, timeout: Duration) -> Result<Connection, ControlError> {
            match self {
                Remote::Store(dir) => Connection::open_store(dir, timeout),
                Remote::Socket(path) => Connection::open(path, timeout),
            }
        }

        fn path(&self) -> &Path {
            match self {
                Remote::Store(path) | Remote::Socket(path) => path,
            }
        }
    }

    /// As part of a sentence.
    impl fmt::Display for Remote {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            match self {
                Remote::Store(dir) => write!(f, "the daemon of {}", dir.display()),
                Remote::Socket(path) => write!(f, "the daemon on {}", path.display()),
            }
        }
    }

    /// How a command ends that got no answer to a request that it may have sent.
    pub(crate) fn failure(remote: &Remote, error: &ControlError, was_sent: bool) -> Failure {
        let exit = match error {
            ControlError::Io(cause) if cause.kind() == io::ErrorKind::PermissionDenied => Exit::Permission,
            ControlError::Io(_) => Exit::Io,
            ControlError::Refused { .. } => Exit::Refused,
            ControlError::Broken | ControlError::TimedOut(_) if was_sent => Exit::Unknown,
            _ => Exit::Unavailable,
        };
        let path = remote.path().display();
        Failure::new(
            exit,
            match error {
                ControlError::Absent => {
                    format!("no daemon is running for {path}; start it with kifa daemon, or check the path")
                }
                error => format!("cannot talk to {remote}: {error}"),
            },
        )
    }
}
