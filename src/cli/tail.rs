//! `kifa tail`: the newest entries, oldest of them first, and with `-f` what comes behind them.
//!
//! The place of the last N is found by a scan backward that keeps nothing; then they are read forward. So memory does not
//! depend on N, and the filters count.
//!
//! Proof: `tests/it/follow.rs`.

use std::path::PathBuf;

use clap::Args;

use super::args::from_time;
use super::exit::{self, Command, Exit, Failure};
use super::filter::{Filter, FilterArgs};
use super::follow::{self, Plan};
use super::output::{Format, Printer};
use super::query::output_failed;
use super::scan::{self, Stopped, Told};
use super::terminal::{PagerArgs, Screen};
use super::{logging, variable};
use crate::config::data_dir;
use crate::daemon::signals::Signals;
use crate::error::Error;
use crate::format::Lsn;
use crate::query::{EntryRef, Reader, ScanRange};

/// How many entries are shown where nothing else is said.
const LINES_DEFAULT: u64 = 10;
/// Entries between two looks at signals.
const TICK_ENTRIES: u64 = 1024;

/// Prints the newest entries, and goes on with -f
///
/// Works beside a running daemon and without one, also while it stops and comes back. With -f each entry is printed once,
/// in order, when it is durable.
#[derive(Debug, Args)]
#[command(after_long_help = format!("{EXAMPLES}\n{}", exit::help(Some(Command::Tail))))]
pub(crate) struct TailArgs {
    /// Where the store is [env: KIFA_DATA_DIR]
    #[arg(short, long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Go on with new entries as they become durable, until a signal comes
    #[arg(short, long)]
    follow: bool,
    /// How many of the newest entries (default: 10; with --after-lsn: all)
    #[arg(short = 'n', long, value_name = "N")]
    lines: Option<u64>,
    /// Only what comes behind this LSN: how a reader goes on where it stopped
    #[arg(long, value_name = "LSN")]
    after_lsn: Option<u64>,
    /// Not before this time (UTC); see kifa query --help
    #[arg(long, short = 'S', value_name = "TIME", visible_aliases = ["since", "from"], value_parser = from_time)]
    from_time: Option<u64>,
    #[command(flatten)]
    filters: FilterArgs,
    /// How entries are printed
    #[arg(short = 'o', long, value_enum, default_value = "text")]
    format: Format,
    #[command(flatten)]
    pager: PagerArgs,
}

const EXAMPLES: &str = "Examples:
  kifa tail -d ./data                              the ten newest
  kifa tail -d ./data -f -n 0                      only what is new
  kifa tail -d ./data -f --source 'tcp:*' --show-source
  kifa tail -d ./data -f -o json --after-lsn 4711  go on where a reader stopped
  kifa tail -d ./data -f --where 'amount>=100000'  large payments as they come

Formats and filters are those of kifa query (see kifa query --help). Entries that were
found on disk and are not proven durable are shown without -f, with a note; with
-f they come when a daemon has started and decided about them.
";

pub(crate) fn run(args: TailArgs) -> Result<Exit, Failure> {
    logging::start("warn").map_err(Failure::read)?;
    let dir = data_dir(args.data_dir.clone(), variable).map_err(|error| Failure::read(error.message))?;
    let (filter, shown) = (args.filters.filter()?, args.filters.shown(args.format)?);
    // Without -f a signal may end it at once, as it does by itself.
    let signals = if args.follow { Some(follow::signals()?) } else { None };
    let reader = Reader::open_what_is_left(&dir).map_err(Failure::read)?;
    let mut range = ScanRange { from_ns: args.from_time.unwrap_or(0), ..ScanRange::default() };
    range.from_lsn = Lsn(args.after_lsn.map_or(0, |after| after.saturating_add(1)));
    let lines = args.lines.or(args.after_lsn.is_none().then_some(LINES_DEFAULT));
    let mut told = Told::default();
    let mut part = Part { range, damaged: 0 };
    if let Some(lines) = lines {
        part = match find(&reader, range, lines, args.filters.filter()?, signals.as_ref(), &mut told)? {
            Some(part) => part,
            None => return Ok(signals.and_then(|signals| signals.received()).map_or(Exit::Done, Exit::of_signal)),
        };
    }
    match signals {
        Some(signals) => {
            let range = ScanRange { to_lsn: Lsn(u64::MAX), ..part.range };
            let plan = Plan { reader: &reader, dir: &dir, range, limit: None, filter, shown, format: args.format };
            follow::run(plan, &signals, told, part.damaged)
        }
        None => {
            let printer = Printer::new(args.format, shown, Screen::open(args.pager));
            print(&reader, &part, lines.is_some(), filter, printer, &mut told)
        }
    }
}

/// What to print, and how many places were met that cannot be read.
struct Part {
    range: ScanRange,
    damaged: u64,
}

/// The part of `range` that holds its last `lines` wanted entries; `None` if a signal came meanwhile.
fn find(
    reader: &Reader,
    range: ScanRange,
    lines: u64,
    mut filter: Filter,
    signals: Option<&Signals>,
    told: &mut Told,
) -> Result<Option<Part>, Failure> {
    let mut scan = reader.scan(ScanRange { reverse: true, ..range }).map_err(Failure::read)?;
    let end = scan.end_lsn();
    let mut first = Lsn(end.0.saturating_add(1).max(range.from_lsn.0));
    let (mut left, mut met, mut damaged) = (lines, 0u64, 0);
    while left > 0 {
        met += 1;
        if met % TICK_ENTRIES == 0 && signals.is_some_and(|signals| signals.received().is_some()) {
            return Ok(None);
        }
        match scan.next_named() {
            Ok(Some((entry, name))) => {
                if filter.wants(&entry, name) {
                    first = entry.lsn;
                    left -= 1;
                }
            }
            Ok(None) => {
                first = range.from_lsn;
                break;
            }
            Err(error @ (Error::Corrupt(_) | Error::Io { .. })) => {
                damaged += 1;
                told.tell(error);
            }
            Err(error) => return Err(Failure::read(error)),
        }
    }
    Ok(Some(Part { range: ScanRange { from_lsn: first, to_lsn: end, ..range }, damaged }))
}

/// Prints the part. What of it cannot be read has been told already if it was found by scanning it backward.
fn print(
    reader: &Reader,
    part: &Part,
    is_told: bool,
    mut filter: Filter,
    mut printer: Printer<Screen>,
    told: &mut Told,
) -> Result<Exit, Failure> {
    let mut found = scan::Found { damaged: part.damaged, ..scan::Found::default() };
    let mut driven = Ok(());
    if part.range.from_lsn <= part.range.to_lsn {
        let mut scan = reader.scan(part.range).map_err(Failure::read)?;
        let each = |entry: &EntryRef<'_>, name: Option<&str>| printer.entry(entry, name);
        driven = scan::drive_telling(&mut scan, &mut filter, None, each, told).map(|there| {
            found.entries = there.entries;
            found.damaged += if is_told { 0 } else { there.damaged };
        });
    }
    let finished = printer.finish().map_err(Stopped::Output);
    match driven.and(finished.map(drop)) {
        Ok(()) if found.damaged > 0 => Ok(Exit::ReadFailed),
        Ok(()) if found.entries == 0 => Ok(Exit::NotFound),
        Ok(()) => Ok(Exit::Done),
        Err(Stopped::Store(error)) => Err(Failure::read(error)),
        Err(Stopped::Output(error)) => output_failed(&error),
    }
}
