//! `kifa vacuum`: deletes the oldest entries by hand, through the running daemon or, without one, under the lock.
//!
//! - Whole tables, oldest first; what is not in a table yet and the newest table stay.
//! - It deletes nothing unless it is told what: without `--older-than` or `--to-size` it is a wrong command line.
//! - It never creates a store.
//!
//! Proof: `tests/it/vacuum.rs`.

use std::path::{Path, PathBuf};

use clap::Args;

use super::exit::{self, Command, Exit, Failure};
use super::time::TimeText;
use super::{args, logging, output, variable};
use crate::config::{Config, data_dir};
use crate::daemon::vacuum::Outcome;
use crate::engine::Log;
use crate::error::Error;
use crate::query::Reader;
use crate::reactor::retain::Vacuum;
use crate::retention::Deleted;

const MIB: u64 = 1 << 20;

/// Deletes the oldest entries
///
/// Works beside a running daemon (which does it then) and on a disk without a free byte. Queries below what is left say
/// that it has expired; kifa stats shows where the store begins.
#[derive(Debug, Args)]
#[command(after_long_help = format!("{EXAMPLES}\n{}", exit::help(Some(Command::Vacuum))))]
#[command(group = clap::ArgGroup::new("goal").required(true).multiple(true).args(["older_than", "to_size"]))]
pub(crate) struct VacuumArgs {
    /// Where the store is [env: KIFA_DATA_DIR]
    #[arg(short, long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Tables whose newest entry is older than this: 30d, 12h, 1d12h (ago), or a time as for kifa query --since
    #[arg(long, value_name = "TIME", value_parser = args::from_time)]
    older_than: Option<u64>,
    /// The oldest tables, until the store has no more than this
    #[arg(long, value_name = "MIB")]
    to_size: Option<u64>,
    /// Only tell what would be deleted
    #[arg(long)]
    dry_run: bool,
    /// As text for people, or as one JSON object
    #[arg(short = 'o', long, value_enum, default_value = "text")]
    format: VacuumFormat,
}

/// How the outcome is printed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
enum VacuumFormat {
    Text,
    Json,
}

const EXAMPLES: &str = "Examples:
  kifa vacuum -d ./data --older-than 30d --dry-run
  kifa vacuum -d ./data --older-than 400d
  kifa vacuum -d ./data --to-size 2048
  kifa vacuum -d ./data --older-than 2026-01-01 -o json

Entries are deleted in whole tables, from the oldest on; the newest table and what
is not in a table yet stay. So a little more may be left than asked for. With both
--older-than and --to-size, each is reached. The size is that of all tables and
segments. To delete by itself, set [retention] (see kifa daemon --help).
";

/// The outcome as a sentence.
fn sentence(outcome: &Outcome) -> String {
    let Some(until_ms) = outcome.expired_until_ms else {
        return "nothing to delete: only whole tables are, and the newest one never is".to_owned();
    };
    let mut until = TimeText::new();
    let until = until.format(until_ms.saturating_mul(1_000_000));
    let Outcome { deleted_tables, deleted_entries, deleted_bytes, floor_lsn, .. } = outcome;
    let what = format!("{deleted_entries} entries in {deleted_tables} tables ({deleted_bytes} bytes)");
    match outcome.dry_run {
        true => format!("would delete {what}, taken until {until}; LSN {floor_lsn} would be the oldest"),
        false => format!("deleted {what}, taken until {until}; LSN {floor_lsn} is the oldest now"),
    }
}

pub(crate) fn run(args: VacuumArgs) -> Result<Exit, Failure> {
    logging::start("warn").map_err(|message| Failure::new(Exit::Config, message))?;
    let dir = data_dir(args.data_dir, variable).map_err(|error| Failure::new(Exit::Usage, error.message))?;
    // Opening a log for writing creates a store where there is none.
    Reader::open(&dir).map_err(|error| failed(&error))?;
    let vacuum = Vacuum {
        not_before_ns: args.older_than,
        to_bytes: args.to_size.map(|mib| mib.saturating_mul(MIB)),
        dry_run: args.dry_run,
    };
    let outcome = match through(&dir, &vacuum)? {
        Some(outcome) => outcome,
        None => Outcome::new(&directly(&dir, vacuum)?, args.dry_run),
    };
    let text = match args.format {
        VacuumFormat::Text => sentence(&outcome),
        VacuumFormat::Json => serde_json::to_string(&outcome).expect("numbers always serialise"),
    };
    output::print(format!("{text}\n").as_bytes()).map_err(|error| Failure::not_told(&error))?;
    Ok(Exit::Done)
}

fn failed(error: &Error) -> Failure {
    let exit = match error {
        Error::NotAStore { .. } => Exit::NoStore,
        error => Exit::of_daemon_error(error),
    };
    Failure::new(exit, error.to_string())
}

/// Has the running daemon do it; `None` if there is none.
#[cfg(unix)]
fn through(dir: &Path, vacuum: &Vacuum) -> Result<Option<Outcome>, Failure> {
    use super::remote::{Remote, failure};
    use crate::control::{ControlError, REPLY_BYTES_MAX};
    use crate::daemon::vacuum::request;
    use std::time::Duration;

    const ACCEPT_WITHIN: Duration = Duration::from_secs(5);
    /// Thousands of files on a slow card.
    const ANSWER_WITHIN: Duration = Duration::from_secs(600);

    let remote = Remote::Store(dir.to_owned());
    let mut connection = match remote.connect(ACCEPT_WITHIN) {
        Ok(connection) => connection,
        Err(ControlError::Absent) => return Ok(None),
        Err(error) => return Err(failure(&remote, &error, false)),
    };
    let reply = connection.request(&request(vacuum), REPLY_BYTES_MAX, ANSWER_WITHIN);
    let reply = reply.map_err(|error| failure(&remote, &error, !vacuum.dry_run))?;
    let outcome = serde_json::from_str(&reply)
        .map_err(|_| failure(&remote, &ControlError::Garbled(reply.clone()), !vacuum.dry_run))?;
    Ok(Some(outcome))
}

#[cfg(not(unix))]
fn through(_dir: &Path, _vacuum: &Vacuum) -> Result<Option<Outcome>, Failure> {
    Ok(None)
}

/// Opens the store as the daemon would, and closes it again.
fn directly(dir: &Path, vacuum: Vacuum) -> Result<Deleted, Failure> {
    let variables: Vec<_> = std::env::vars_os().collect();
    let config = Config::load_without_sources(dir.to_owned(), &variables)
        .map_err(|error| Failure::new(Exit::Config, error.message))?;
    let log = Log::open(dir, config.options).map_err(|error| failed(&error))?;
    let deleted = log.vacuum(vacuum);
    let closed = log.close();
    let deleted = deleted.map_err(|error| failed(&error))?;
    closed.map_err(|error| failed(&error))?;
    Ok(deleted)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::Lsn;

    #[test]
    fn the_outcome_is_told_in_a_sentence_and_as_numbers() {
        let deleted =
            Deleted { tables: 2, entries: 9, bytes: 8192, floor_lsn: Lsn(10), until_ns: 1_769_884_200_000_000_000 };
        assert_eq!(
            sentence(&Outcome::new(&deleted, false)),
            "deleted 9 entries in 2 tables (8192 bytes), taken until 2026-01-31 18:30:00 UTC; LSN 10 is the oldest now"
        );
        assert!(sentence(&Outcome::new(&deleted, true)).starts_with("would delete 9 entries"));
        let none = Outcome::new(&Deleted { floor_lsn: Lsn(1), ..Deleted::default() }, false);
        assert!(sentence(&none).starts_with("nothing to delete"));
        let json = serde_json::to_value(&none).unwrap();
        assert!(json["expired_until_ms"].is_null() && json["floor_lsn"] == 1);
    }
}
