//! `kifa recover`: goes on from a damaged store, beside it or in place.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{ArgGroup, Args};

use super::damage::{count, ranges};
use super::exit::{self, Command, Exit, Failure};
use super::output::{counted, escaped};
use super::query::output_failed;
use super::{logging, output, variable};
use crate::config::data_dir;
use crate::engine::{cannot_open, within};
use crate::error::Error;
use crate::format::Lsn;
use crate::io::Vfs;
use crate::io::fs::medium::MediumVfs;
use crate::io::lock::{StoreLock, writer_alive};
use crate::recover::accept::{self, Accepted};
use crate::recover::fresh::{Target, copy_to};
use crate::recover::{Plan, is_lasting, open_dir};
use crate::survey::log::Part;
use crate::survey::store::{How, StoreSurvey, take};

/// How long the lock is waited for: a killed daemon's last requests may still hold it.
const LOCK_WAIT: Duration = Duration::from_secs(2);

/// Goes on from a damaged store with everything that is still good
///
/// What cannot be read is listed by its numbers (LSNs) and recorded as a gap. Nothing is deleted. --to copies everything
/// good into a new store and does not touch the old one; that needs as much room as the entries take. --accept goes on in
/// place, for a small card: damaged files are moved to DATA_DIR/quarantine, what is good in them is kept in the store.
#[derive(Debug, Args)]
#[command(group(ArgGroup::new("way").required(true).args(["to", "accept"])))]
#[command(after_long_help = format!("{EXAMPLES}\n{}", exit::help(Some(Command::Recover))))]
pub(crate) struct RecoverArgs {
    /// Where the store is [env: KIFA_DATA_DIR]
    #[arg(short, long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Copy everything good into a new store in this directory, which must not exist
    #[arg(long, value_name = "NEW")]
    to: Option<PathBuf>,
    /// Accept what is lost and go on in place; the daemon must not run
    #[arg(long)]
    accept: bool,
    /// Say what would be done, and do nothing
    #[arg(long)]
    dry_run: bool,
}

const EXAMPLES: &str = "Examples:
  kifa recover -d ./data --to ./data-new --dry-run
  kifa recover -d ./data --to ./data-new && kifa verify -d ./data-new --deep
  kifa recover -d ./data --accept                      (unattended, in place)

Entries keep their numbers, times and sources; positions of tailed files and of
producers are kept, too. The log goes on behind the last number; no number is
given twice: where the end of the log is lost, the numbers that may have been
given are skipped. Single entries that were saved from damaged ranges by their
own checksums are listed. A power cut during --accept costs nothing: run it
again.
";

pub(crate) fn run(args: RecoverArgs) -> Result<Exit, Failure> {
    logging::start("warn").map_err(Failure::could_not_run)?;
    let dir = data_dir(args.data_dir, variable).map_err(|error| Failure::could_not_run(error.message))?;
    let medium = MediumVfs::open(&dir).map_err(|cause| Failure::could_not_run(cannot_open(&dir, cause)))?;
    let failed = |cause: Error| Failure::could_not_run(within(&dir, cause));
    let target = match &args.to {
        Some(path) => Some(Target::check(path, &dir, "recover").map_err(Failure::could_not_run)?),
        None => None,
    };
    // A directory that is no store gets no lock file, so it is looked at before, too.
    let _lock = match target.is_none() && !args.dry_run {
        true => {
            survey(&medium, &dir).map_err(failed)?;
            let lock = StoreLock::acquire(&dir, LOCK_WAIT).map_err(|cause| cause.into_error(&dir));
            Some(lock.map_err(Failure::could_not_run)?)
        }
        false => None,
    };
    let survey = survey(&medium, &dir).map_err(failed)?;
    let plan = Plan::of(&survey);
    let mut lines = found(&survey, &plan, &dir);
    let exit = if plan.missing.is_empty() { Exit::Done } else { Exit::Incomplete };
    match (target, args.dry_run) {
        (Some(_), true) => lines.push("Nothing was done. Without --dry-run all of this would be copied.".to_owned()),
        (Some(target), false) => {
            copy_to(survey, &plan, &medium, &target).map_err(failed)?;
            lines.push(format!("Done: {} is complete", escaped(&args.to.unwrap_or_default().display().to_string())));
        }
        (None, true) => lines.extend(would_accept(&survey, &medium)),
        (None, false) => lines.extend(accepted(&accept_in(&dir, survey, &plan).map_err(failed)?)),
    }
    lines.push(String::new());
    match output::print(lines.join("\n").as_bytes()) {
        Ok(()) => Ok(exit),
        Err(error) => output_failed(&error),
    }
}

fn survey(vfs: &dyn Vfs, dir: &Path) -> Result<StoreSurvey, Error> {
    let is_writer_alive = || writer_alive(dir);
    take(vfs, &mut How { dir, is_writer_alive: &is_writer_alive, deep: true, progress: &mut |_, _| {} })
}

fn accept_in(dir: &Path, survey: StoreSurvey, plan: &Plan) -> Result<Accepted, Error> {
    let (ops, vfs) = open_dir(dir)?;
    accept::accept(&ops, &vfs, survey, plan)
}

/// What there is, what is missing, and where it goes on.
fn found(survey: &StoreSurvey, plan: &Plan, dir: &Path) -> Vec<String> {
    let lasting: Vec<_> = survey.wounds.iter().filter(|wound| is_lasting(wound)).collect();
    let mut lines = vec![format!("Store:   {}", escaped(&dir.display().to_string()))];
    let places = counted(lasting.len() as u64, "damaged place", "damaged places");
    lines.push(match lasting.is_empty() {
        true => "Damage:  none".to_owned(),
        false => format!("Damage:  {places}; kifa verify explains each"),
    });
    for wound in lasting {
        lines.push(format!("           {} at offset {}: {}", escaped(&wound.file), wound.offset, escaped(&wound.what)));
    }
    let single = single_entries(survey);
    lines.push(format!("Good:    {}", counted(survey.entries(), "entry", "entries")));
    if !single.is_empty() {
        let entries = counted(count(&single), "single entry", "single entries");
        lines.push(format!("           of these {entries} saved from damaged ranges: LSN {}", ranges(&single)));
    }
    lines.push(match plan.missing.is_empty() {
        true => "Missing: none".to_owned(),
        false => {
            let lsns = counted(count(&plan.missing), "LSN", "LSNs");
            format!("Missing: {lsns}, recorded as a gap: {}", all_ranges(&plan.missing))
        }
    });
    if let Some((first, last)) = plan.skipped {
        lines.push(format!(
            "Skipped: LSNs {first} to {last}; the end of the log is lost, and no more entries than these fitted into it"
        ));
    }
    lines.push(format!("Goes on: at LSN {}", plan.last_lsn.next()));
    lines
}

/// LSNs of single entries, as ranges.
fn single_entries(survey: &StoreSurvey) -> Vec<(Lsn, Lsn)> {
    let mut found: Vec<(Lsn, Lsn)> = Vec::new();
    for part in &survey.log.parts {
        let Part::Entry(entry) = part else { continue };
        match found.last_mut() {
            Some(last) if last.1.next() == entry.lsn => last.1 = entry.lsn,
            _ => found.push((entry.lsn, entry.lsn)),
        }
    }
    found
}

/// All of them: this list is what the user has to know.
fn all_ranges(missing: &[(Lsn, Lsn)]) -> String {
    let text: Vec<String> = missing.iter().map(|&range| super::damage::lsns(Some(range))).collect();
    text.join(", ")
}

fn would_accept(survey: &StoreSurvey, vfs: &dyn Vfs) -> Vec<String> {
    let mut lines: Vec<String> = accept::damaged_files(survey, vfs)
        .iter()
        .map(|file| format!("Would move {} to quarantine/ and keep what is good in it", escaped(file)))
        .collect();
    if accept::is_unfinished(vfs) {
        lines.push("Would move what an interrupted --accept has left to quarantine/".to_owned());
    }
    lines.push("Nothing was done (--dry-run).".to_owned());
    lines
}

fn accepted(done: &Accepted) -> Vec<String> {
    let mut lines: Vec<String> =
        done.quarantined.iter().map(|name| format!("Kept in quarantine/: {}", escaped(name))).collect();
    lines.push(match done.is_accepted {
        true => format!(
            "Done: the store is sound; {} written with what was good in damaged files",
            counted(done.tables_written as u64, "table was", "tables were")
        ),
        false => "Done: there was no damage to accept".to_owned(),
    });
    lines
}
