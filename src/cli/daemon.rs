//! `kifa daemon`: configuration in, exit code out.

use tracing::warn;

use super::args::{DaemonArgs, SettingArgs};
use super::exit::{Exit, Failure};
use super::output::counted;
use super::{logging, variable};
use crate::config::{Config, ConfigError, data_dir};
use crate::daemon::signals::Signal;
use crate::daemon::{self, End, Outcome};

pub(crate) fn run(args: DaemonArgs) -> Result<Exit, Failure> {
    let config = load(&args.settings).map_err(not_loaded)?;
    logging::start("info").map_err(|message| Failure::new(Exit::Config, message))?;
    for name in &config.unknown_variables {
        warn!("the environment variable {name} is not a setting of kifa and has no effect");
    }
    conclude(&daemon::run(&config, &|| load(&args.settings), variable))
}

/// What the daemon says of a configuration that it cannot run with.
pub(super) fn not_loaded(error: ConfigError) -> Failure {
    Failure::new(if error.is_usage { Exit::Usage } else { Exit::Config }, error.message)
}

/// The configuration that these flags, the environment and the file make.
pub(super) fn load(args: &SettingArgs) -> Result<Config, ConfigError> {
    let dir = data_dir(args.data_dir.clone(), variable)?;
    let variables: Vec<_> = std::env::vars_os().collect();
    Config::load(dir, args.config.as_deref(), &variables, args.settings())
}

/// The exit code, and the sentence where something was not stored. A signal's code stands even then: it is not 0.
fn conclude(outcome: &Outcome) -> Result<Exit, Failure> {
    let totals = outcome.totals;
    let refused = match totals.refused {
        0 => String::new(),
        count => {
            let full = match totals.refused_full {
                0 => String::new(),
                full => format!(" ({full} of them because the disk was full)"),
            };
            let (lines, entries) = (counted(count, "line", "lines"), counted(totals.stored, "entry", "entries"));
            format!("{lines} refused{full}, {entries} stored")
        }
    };
    match &outcome.end {
        Err(error) if totals.unconfirmed > 0 => {
            let lost = counted(totals.unconfirmed, "entry", "entries");
            Err(Failure::new(Exit::of_daemon_error(error), format!("{lost} that had been read not confirmed: {error}")))
        }
        Err(error) => Err(Failure::new(Exit::of_daemon_error(error), error.to_string())),
        Ok(end) => {
            let exit = match end {
                End::Signal(Signal::Interrupt) => Exit::Interrupted,
                End::Signal(_) => Exit::Terminated,
                End::Input if totals.refused_full > 0 => Exit::Full,
                End::Input if totals.refused > 0 => Exit::NotStored,
                End::Input => Exit::Done,
            };
            if refused.is_empty() { Ok(exit) } else { Err(Failure::new(exit, refused)) }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;
    use crate::error::Error;
    use crate::source::counters::Totals;

    fn outcome(end: crate::error::Result<End>, unconfirmed: u64, refused: u64) -> Outcome {
        Outcome { end, totals: Totals { stored: 5, unconfirmed, refused, ..Totals::default() } }
    }

    #[test]
    fn a_refused_line_never_ends_with_0() {
        assert_eq!(conclude(&outcome(Ok(End::Input), 0, 0)).unwrap(), Exit::Done);
        let failure = conclude(&outcome(Ok(End::Input), 0, 1)).unwrap_err();
        assert_eq!((failure.exit, failure.message.as_str()), (Exit::NotStored, "1 line refused, 5 entries stored"));
        let failure = conclude(&outcome(Ok(End::Signal(Signal::Terminate)), 0, 2)).unwrap_err();
        assert_eq!(failure.exit, Exit::Terminated);
        assert_eq!(conclude(&outcome(Ok(End::Signal(Signal::Interrupt)), 0, 0)).unwrap(), Exit::Interrupted);
    }

    #[test]
    fn a_failure_counts_what_was_not_confirmed() {
        let failed = Error::io("sync", "wal/1.wal", io::Error::other("no"));
        let failure = conclude(&outcome(Err(failed), 3, 0)).unwrap_err();
        assert_eq!(failure.exit, Exit::Io);
        assert_eq!(failure.message, "3 entries that had been read not confirmed: cannot sync wal/1.wal: no");
    }
}
