//! `kifa snapshot`: a copy of a store, running or not, that opens as a store of its own.
//!
//! Proof: `tests/it/snapshot.rs`.

use std::path::PathBuf;

use clap::Args;
use serde::Serialize;

use super::exit::{self, Command, Exit, Failure};
use super::{logging, output, variable};
use crate::config::data_dir;
use crate::recover::fresh::Target;
use crate::snapshot::take;

/// Copies the store as it is now, also beside a running daemon
///
/// The copy holds every entry that is durable, and opens as a store of its own. It appears completely or not at all. On the
/// same file system it costs almost no time and no space: files that never change are cloned (btrfs, XFS), or linked.
#[derive(Debug, Args)]
#[command(after_long_help = format!("{EXAMPLES}\n{}", exit::help(Some(Command::Snapshot))))]
pub(crate) struct SnapshotArgs {
    /// Where the store is [env: KIFA_DATA_DIR]
    #[arg(short, long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Where the copy goes: a directory that does not exist, outside of the store
    #[arg(long, value_name = "NEW")]
    to: PathBuf,
    /// As text for people, or as one JSON object
    #[arg(short = 'o', long, value_enum, default_value = "text")]
    format: SnapshotFormat,
}

/// How the outcome is printed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
enum SnapshotFormat {
    Text,
    Json,
}

const EXAMPLES: &str = "Examples:
  kifa snapshot -d ./data --to ./backup-2026-01-29
  kifa snapshot -d ./data --to /mnt/usb/till-7 && sync
  kifa query -d ./backup-2026-01-29 -n 10 -r

The configuration (kifa.toml) is not copied. A linked copy shares its files with the
store: it protects against mistakes, not against a card that fails; for that name a
place on another disk. A snapshot that was interrupted leaves a hidden directory
(.NAME.kifa-snapshot.tmp) beside the target; remove it and try again.
";

/// The outcome; its keys are a promise to scripts.
#[derive(Serialize)]
struct Json {
    entries: u64,
    last_lsn: u64,
    bytes: u64,
    tables_cloned: u64,
    tables_linked: u64,
    tables_copied: u64,
}

pub(crate) fn run(args: SnapshotArgs) -> Result<Exit, Failure> {
    logging::start("warn").map_err(Failure::could_not_run)?;
    let dir = data_dir(args.data_dir, variable).map_err(|error| Failure::could_not_run(error.message))?;
    let target = Target::check(&args.to, &dir, "snapshot").map_err(Failure::could_not_run)?;
    let taken = take(&dir, &target).map_err(Failure::could_not_run)?;
    let text = match args.format {
        SnapshotFormat::Text => format!(
            "{} entries up to LSN {} in {} bytes of tables: {} cloned, {} linked, {} copied",
            taken.entries, taken.last_lsn, taken.bytes, taken.cloned, taken.linked, taken.copied
        ),
        SnapshotFormat::Json => serde_json::to_string(&Json {
            entries: taken.entries,
            last_lsn: taken.last_lsn.0,
            bytes: taken.bytes,
            tables_cloned: taken.cloned,
            tables_linked: taken.linked,
            tables_copied: taken.copied,
        })
        .expect("numbers always serialise"),
    };
    output::print(format!("{text}\n").as_bytes()).map_err(|error| {
        Failure::could_not_run(format!("the copy is complete, but cannot be told on standard output: {error}"))
    })?;
    Ok(Exit::Done)
}
