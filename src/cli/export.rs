//! `kifa export`: entries to a file, completely or not at all.
//!
//! - The file is written under a temporary name beside its target, synced, renamed, and the directory is synced: after
//!   success it survives a power cut, and the target is never half written.
//! - Whatever stops it (a signal, a full disk, an error) removes the temporary file. SIGKILL and a power cut cannot be
//!   caught: they leave a hidden `.kifa-export-*.tmp`, never a target that is incomplete.
//! - It writes nothing inside the data directory, and replaces nothing but a regular file.
//!
//! Proof: `tests/it/export.rs`.
// What is exported is the user's file, not one of a store.
#![allow(clippy::disallowed_methods)]

use std::fs::{self, File, OpenOptions};
use std::io::{self, IsTerminal as _};
use std::path::{Path, PathBuf};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::args::ExportArgs;
use super::exit::{Exit, Failure};
use super::filter::Filter;
use super::output::{self, Printer, Shown};
use super::query::output_failed;
use super::scan::{self, Found, Stopped};
use super::{complain, logging, variable};
use crate::config::data_dir;
use crate::daemon::signals::Signals;
use crate::query::{EntryRef, Reader, Scan, ScanRange};

/// Entries between two looks at signals and progress.
const TICK_ENTRIES: u64 = 1024;

pub(crate) fn run(args: ExportArgs) -> Result<Exit, Failure> {
    logging::start("warn").map_err(Failure::read)?;
    let dir = data_dir(args.data_dir.clone(), variable).map_err(|error| Failure::read(error.message))?;
    let filters = &args.selection.filters;
    let (filter, shown) = (filters.filter()?, filters.shown(args.format)?);
    let range = scan::range(&args.selection)?;
    let reader = Reader::open_what_is_left(&dir).map_err(Failure::read)?;
    let scan = reader.scan(range).map_err(Failure::read)?;
    if args.output.as_os_str() == "-" {
        return to_stdout(scan, &args, filter, shown);
    }
    let target = Target::check(&args.output, &dir)?;
    let signals =
        Signals::install_for_cleanup().map_err(|error| Failure::read(format!("cannot catch signals: {error}")))?;
    let progress = progress(&reader, range);
    let outcome = to_file(scan, &args, (filter, shown), &target, (&signals, &progress));
    progress.finish_and_clear();
    outcome
}

fn to_stdout(mut scan: Scan, args: &ExportArgs, mut filter: Filter, shown: Shown) -> Result<Exit, Failure> {
    let mut printer = Printer::new(args.format, shown, output::stdout());
    let limit = args.selection.limit;
    let driven = scan::drive(&mut scan, &mut filter, limit, |entry, name| printer.entry(entry, name));
    let finished = printer.finish().map_err(Stopped::Output);
    match driven.and_then(|found| finished.map(|_| found)) {
        Ok(found) => Ok(exit(found)),
        Err(Stopped::Store(error)) => Err(Failure::read(error)),
        Err(Stopped::Output(error)) => output_failed(&error),
    }
}

fn to_file(
    mut scan: Scan,
    args: &ExportArgs,
    (mut filter, shown): (Filter, Shown),
    target: &Target,
    (signals, progress): (&Signals, &ProgressBar),
) -> Result<Exit, Failure> {
    let failed = |error: io::Error| Failure::read(format!("cannot write {}: {error}", target.path.display()));
    let temporary = Temporary::create(&target.parent).map_err(failed)?;
    let mut printer = Printer::new(args.format, shown, &temporary.file);
    let mut tick = 0;
    let driven = scan::drive(&mut scan, &mut filter, args.selection.limit, |entry: &EntryRef<'_>, name| {
        tick += 1;
        if tick % TICK_ENTRIES == 0 {
            progress.inc(TICK_ENTRIES);
            if signals.received().is_some() {
                return Err(io::ErrorKind::Interrupted.into());
            }
        }
        printer.entry(entry, name)
    });
    if let Some(signal) = signals.received() {
        return Ok(Exit::of_signal(signal));
    }
    let found = match driven.and_then(|found| printer.finish().map(|_| found).map_err(Stopped::Output)) {
        Ok(found) => found,
        Err(Stopped::Store(error)) => return Err(Failure::read(error)),
        Err(Stopped::Output(error)) => return Err(failed(error)),
    };
    temporary.file.sync_all().map_err(failed)?;
    // The last look: behind the rename the export is done, whatever comes.
    if let Some(signal) = signals.received() {
        return Ok(Exit::of_signal(signal));
    }
    temporary.publish(target).map_err(failed)?;
    if found.damaged > 0 {
        complain(format_args!("{} is written, but not complete: see above", target.path.display()));
    }
    Ok(exit(found))
}

fn exit(found: Found) -> Exit {
    if found.damaged > 0 { Exit::ReadFailed } else { Exit::Done }
}

/// A bar on a terminal, nothing elsewhere. Its length is the LSNs in the range, an upper bound of the entries.
fn progress(reader: &Reader, range: ScanRange) -> ProgressBar {
    if !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let Some((first, last)) = reader.stats().ok().and_then(|stats| stats.lsns) else { return ProgressBar::hidden() };
    let (first, last) = (first.max(range.from_lsn), last.min(range.to_lsn));
    let length = (last.0 + 1).saturating_sub(first.0);
    let style = ProgressStyle::with_template("{bar:40} {percent}% {human_pos} entries, {eta} left");
    let bar = ProgressBar::with_draw_target(Some(length), ProgressDrawTarget::stderr());
    match style {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

/// Where the export goes.
struct Target {
    path: PathBuf,
    parent: PathBuf,
}

impl Target {
    /// Follows a symbolic link to the file that it means, and refuses what must not be replaced.
    fn check(output: &Path, data_dir: &Path) -> Result<Target, Failure> {
        let refuse = |why: &str| Err(Failure::read(format!("cannot export to {}: {why}", output.display())));
        let path = match fs::canonicalize(output) {
            Ok(path) if path.is_dir() => return refuse("it is a directory; name a file"),
            Ok(path) if path.is_file() => path,
            Ok(_) => return refuse("it is not a regular file; use -o - and redirect"),
            Err(error) if error.kind() == io::ErrorKind::NotFound => output.to_owned(),
            Err(error) => return refuse(&error.to_string()),
        };
        let Some(name) = path.file_name() else { return refuse("it names no file") };
        let parent = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        let parent = match fs::canonicalize(parent) {
            Ok(parent) => parent,
            Err(error) => return refuse(&format!("its directory cannot be used: {error}")),
        };
        if fs::canonicalize(data_dir).is_ok_and(|store| parent.starts_with(store)) {
            return refuse("it lies inside the data directory; choose a place outside");
        }
        Ok(Target { path: parent.join(name), parent })
    }
}

/// A file that is gone again unless it is published.
struct Temporary {
    file: File,
    path: PathBuf,
    published: bool,
}

impl Temporary {
    fn create(parent: &Path) -> io::Result<Temporary> {
        let mut options = OpenOptions::new();
        options.write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let mut number = 0;
        loop {
            let path = parent.join(format!(".kifa-export-{}-{number}.tmp", std::process::id()));
            match options.open(&path) {
                Ok(file) => return Ok(Temporary { file, path, published: false }),
                // Left by a killed export whose process id has come round.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists && number < 100 => number += 1,
                Err(error) => return Err(error),
            }
        }
    }

    /// Gives the synced file its name, durably.
    fn publish(mut self, target: &Target) -> io::Result<()> {
        fs::rename(&self.path, &target.path)?;
        self.published = true;
        #[cfg(unix)]
        File::open(&target.parent)?.sync_all()?;
        Ok(())
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if !self.published {
            let _ = fs::remove_file(&self.path);
        }
    }
}
