//! All exit codes of the program, in one table; `--help` is rendered from it.
//!
//! The daemon and what writes or talks to it are run by supervisors and speak sysexits; the reading commands are run by
//! scripts and speak grep: 0 found, 1 nothing matched, 2 any error, whatever its kind (also a mistyped option). Verify
//! speaks cmp: 0 the same as it was written, 1 not, 2 trouble.

use std::fmt::Write as _;
use std::io;

use crate::daemon::signals::Signal;
use crate::error::Error;

/// How the program ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Exit {
    Done,
    NotFound,
    NotStored,
    Damaged,
    Incomplete,
    Refused,
    Problems,
    ReadFailed,
    CouldNotRun,
    Usage,
    Corrupt,
    NoStore,
    Unavailable,
    Full,
    CannotCreate,
    Io,
    NotWritten,
    Locked,
    Unknown,
    Permission,
    Config,
    Hangup,
    Interrupted,
    Terminated,
}

/// Who uses a code, for the table in `--help`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Command {
    Daemon,
    Query,
    Export,
    Stats,
    Verify,
    Recover,
    Tail,
    Append,
    Ctl,
    Bench,
    Config,
    Completions,
    Man,
    Doctor,
    Vacuum,
    Snapshot,
}

use Command::{
    Append, Bench, Completions, Config, Ctl, Daemon, Doctor, Export, Man, Query, Recover, Snapshot, Stats, Tail,
    Vacuum, Verify,
};

/// The table: outcome, code, who ends with it, meaning.
const TABLE: [(Exit, u8, &[Command], &str); 24] = [
    (
        Exit::Done,
        0,
        &[
            Daemon,
            Query,
            Export,
            Stats,
            Verify,
            Recover,
            Tail,
            Append,
            Ctl,
            Bench,
            Config,
            Completions,
            Man,
            Doctor,
            Vacuum,
            Snapshot,
        ],
        "done; for query: at least one entry matched; for append: everything is durable; for verify: no damage; for \
         recover: nothing is missing; for doctor: no problem",
    ),
    (Exit::NotFound, 1, &[Query, Tail], "nothing matched"),
    (Exit::NotStored, 1, &[Daemon, Append], "input ended, but some of it was refused; the count is on stderr"),
    (Exit::Refused, 1, &[Ctl, Vacuum], "the daemon refused; its reason is on stderr"),
    (Exit::Damaged, 1, &[Verify], "damage was found; it is listed on stdout"),
    (Exit::Incomplete, 1, &[Recover], "done, and some entries are missing; their LSNs are listed on stdout"),
    (Exit::Problems, 1, &[Doctor], "problems were found; they are listed on stdout"),
    (
        Exit::CouldNotRun,
        2,
        &[Verify, Recover, Snapshot, Doctor],
        "it could not run: not a store, in use, no room, wrong command line",
    ),
    (
        Exit::ReadFailed,
        2,
        &[Query, Export, Stats, Tail, Bench],
        "an error of any kind, or part of the range cannot be read",
    ),
    (Exit::Usage, 64, &[Daemon, Append, Ctl, Config, Completions, Man, Vacuum], "wrong command line"),
    (Exit::Corrupt, 65, &[Daemon, Append, Vacuum], "the store is damaged; nothing was changed"),
    (Exit::NoStore, 66, &[Vacuum], "the directory is no store"),
    (
        Exit::Unavailable,
        69,
        &[Append, Ctl, Vacuum],
        "no daemon is running there, or it gives no answer; nothing was sent to it",
    ),
    (Exit::Full, 71, &[Daemon, Append], "the disk is full, and some of the input was refused (on_full = \"refuse\")"),
    (Exit::CannotCreate, 73, &[Daemon, Append], "the store cannot be created there"),
    (Exit::Io, 74, &[Daemon, Append, Ctl, Vacuum], "reading or writing failed; the next start recovers"),
    (Exit::NotWritten, 74, &[Config, Completions, Man], "the output cannot be written"),
    (Exit::Locked, 75, &[Daemon, Append, Vacuum], "another process writes to the store"),
    (
        Exit::Unknown,
        76,
        &[Append, Ctl, Vacuum],
        "the connection broke before the answer: whether it was done is not known",
    ),
    (Exit::Permission, 77, &[Daemon, Append, Ctl, Vacuum], "permission denied"),
    (
        Exit::Config,
        78,
        &[Daemon, Append, Ctl, Config, Vacuum],
        "wrong setting in the configuration file or the environment",
    ),
    (Exit::Hangup, 129, &[Query, Export, Tail, Bench], "hung up (SIGHUP); an export or a bench leaves nothing behind"),
    (
        Exit::Interrupted,
        130,
        &[Daemon, Query, Export, Tail, Bench],
        "SIGINT; what a daemon accepted is durable (a second one stops it at once)",
    ),
    (Exit::Terminated, 143, &[Daemon, Query, Export, Tail, Bench], "SIGTERM; what a daemon accepted is durable"),
];

impl Exit {
    /// The code for the shell.
    pub(crate) fn code(self) -> u8 {
        TABLE.iter().find(|row| row.0 == self).expect("every outcome has its row in the table").1
    }

    /// How a command ends that this signal has stopped.
    pub(crate) fn of_signal(signal: Signal) -> Exit {
        match signal {
            Signal::Hangup => Exit::Hangup,
            Signal::Interrupt => Exit::Interrupted,
            // The last two are the daemon's, and end nothing.
            Signal::Terminate | Signal::User1 | Signal::User2 => Exit::Terminated,
        }
    }

    /// How the daemon ends after an error of the engine.
    pub(crate) fn of_daemon_error(error: &Error) -> Exit {
        match error {
            Error::Locked { .. } => Exit::Locked,
            Error::NotAStore { .. } => Exit::CannotCreate,
            Error::Corrupt(_) => Exit::Corrupt,
            Error::Io { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => Exit::Permission,
            Error::Io { op: "create", .. } => Exit::CannotCreate,
            Error::Full => Exit::Full,
            Error::InvalidOption(_) => Exit::Config,
            // The store was there: what could not be created was a file of it.
            Error::Stopped(cause) => match Exit::of_daemon_error(cause) {
                Exit::CannotCreate => Exit::Io,
                code => code,
            },
            Error::Io { .. } | Error::TooLarge { .. } | Error::Closed => Exit::Io,
        }
    }
}

/// The rows of one command, or the whole table, as text for `--help`.
pub(crate) fn help(command: Option<Command>) -> String {
    let mut text = String::from("Exit codes:\n");
    for (_, code, commands, meaning) in TABLE {
        if command.is_some_and(|command| !commands.contains(&command)) {
            continue;
        }
        let _ = match command {
            Some(_) => writeln!(text, "  {code:>3}  {meaning}"),
            None => {
                let names: Vec<&str> = commands.iter().map(|command| command.name()).collect();
                writeln!(text, "  {code:>3}  {meaning} [{}]", names.join(", "))
            }
        };
    }
    text
}

impl Command {
    fn name(self) -> &'static str {
        match self {
            Daemon => "daemon",
            Query => "query",
            Export => "export",
            Stats => "stats",
            Verify => "verify",
            Recover => "recover",
            Tail => "tail",
            Append => "append",
            Ctl => "ctl",
            Bench => "bench",
            Config => "config",
            Completions => "completions",
            Man => "man",
            Doctor => "doctor",
            Vacuum => "vacuum",
            Snapshot => "snapshot",
        }
    }
}

/// An error on its way to the user: one sentence and the exit code.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) exit: Exit,
    pub(crate) message: String,
}

impl Failure {
    pub(crate) fn new(exit: Exit, message: impl Into<String>) -> Failure {
        Failure { exit, message: message.into() }
    }

    /// Why a command that judges a store could not do so.
    pub(crate) fn could_not_run(message: impl ToString) -> Failure {
        Failure { exit: Exit::CouldNotRun, message: message.to_string() }
    }

    /// Why what a command made could not be handed over.
    pub(crate) fn not_written(error: &io::Error) -> Failure {
        Failure { exit: Exit::NotWritten, message: format!("cannot write to standard output: {error}") }
    }

    /// Why the outcome of what was done could not be told.
    pub(crate) fn not_told(error: &io::Error) -> Failure {
        Failure::new(Exit::Io, format!("it is done, but cannot be told on standard output: {error}"))
    }

    /// Any error of a reading command.
    pub(crate) fn read(message: impl ToString) -> Failure {
        Failure { exit: Exit::ReadFailed, message: message.to_string() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_outcome_has_one_row_and_no_command_has_a_code_twice() {
        for (exit, code, commands, _) in TABLE {
            assert_eq!(TABLE.iter().filter(|row| row.0 == exit).count(), 1);
            for command in commands {
                let same = TABLE.iter().filter(|row| row.1 == code && row.2.contains(command)).count();
                assert_eq!(same, 1, "{command:?} uses {code} twice");
            }
        }
        assert_eq!(Exit::Terminated.code(), 143);
        assert_eq!(Exit::Config.code(), 78);
    }

    #[test]
    fn a_stopped_log_ends_with_the_code_of_its_cause() {
        let denied = Error::io("write", "wal/1.wal", io::ErrorKind::PermissionDenied.into());
        assert_eq!(Exit::of_daemon_error(&Error::Stopped(denied.into())), Exit::Permission);
        let full = Error::io("create", "LOCK", io::ErrorKind::StorageFull.into());
        assert_eq!(Exit::of_daemon_error(&full), Exit::CannotCreate);
        let full = Error::io("create", "sst/1.sst", io::ErrorKind::ReadOnlyFilesystem.into());
        assert_eq!(Exit::of_daemon_error(&Error::Stopped(full.into())), Exit::Io);
        let failed = Error::io("sync", "wal/1.wal", io::ErrorKind::Other.into());
        assert_eq!(Exit::of_daemon_error(&Error::Stopped(failed.into())), Exit::Io);
    }

    #[test]
    fn help_shows_a_command_only_its_own_codes() {
        assert!(help(Some(Query)).contains("nothing matched"));
        assert!(!help(Some(Stats)).contains("SIGTERM"));
        assert!(help(None).contains("[query, export, tail, bench]"));
    }
}
