//! `kifa query`: entries to stdout, or how many there are.

use std::io::{self, Write as _};

use super::args::{QueryArgs, Selection};
use super::exit::{Exit, Failure};
use super::follow::{self, Plan};
use super::output::Printer;
use super::scan::{self, Found, Stopped, Told};
use super::terminal::Screen;
use super::{logging, variable};
use crate::config::data_dir;
use crate::query::Reader;

pub(crate) fn run(args: QueryArgs) -> Result<Exit, Failure> {
    logging::start("warn").map_err(Failure::read)?;
    let dir = data_dir(args.data_dir, variable).map_err(|error| Failure::read(error.message))?;
    let Selection { limit, filters, .. } = &args.selection;
    let (mut filter, shown) = (filters.filter()?, filters.shown(args.format)?);
    let range = scan::range(&args.selection)?;
    let signals = if args.follow { Some(follow::signals()?) } else { None };
    let reader = Reader::open_what_is_left(&dir).map_err(Failure::read)?;
    if let Some(signals) = signals {
        let plan = Plan { reader: &reader, dir: &dir, range, limit: *limit, filter, shown, format: args.format };
        return follow::run(plan, &signals, Told::default(), 0);
    }
    let mut scan = reader.scan(range).map_err(Failure::read)?;
    if args.count {
        let found = scan::drive(&mut scan, &mut filter, *limit, |_, _| Ok(()));
        return conclude(found.and_then(|found| {
            let mut stdout = io::stdout().lock();
            let printed = writeln!(stdout, "{}", found.entries).and_then(|()| stdout.flush());
            printed.map(|()| found).map_err(Stopped::Output)
        }));
    }
    let mut printer = Printer::new(args.format, shown, Screen::open(args.pager));
    let driven = scan::drive(&mut scan, &mut filter, *limit, |entry, name| printer.entry(entry, name));
    // What was found before a failure is printed all the same.
    let finished = printer.finish().map_err(Stopped::Output);
    conclude(driven.and_then(|found| finished.map(|_| found)))
}

fn conclude(outcome: Result<Found, Stopped>) -> Result<Exit, Failure> {
    match outcome {
        Ok(found) if found.damaged > 0 => Ok(Exit::ReadFailed),
        Ok(found) if found.entries == 0 => Ok(Exit::NotFound),
        Ok(_) => Ok(Exit::Done),
        Err(Stopped::Store(error)) => Err(Failure::read(error)),
        Err(Stopped::Output(error)) => output_failed(&error),
    }
}

/// A pipe that its reader has closed is what `| head` does; everything else is an error.
pub(crate) fn output_failed(error: &io::Error) -> Result<Exit, Failure> {
    match error.kind() {
        io::ErrorKind::BrokenPipe => Ok(Exit::Done),
        _ => Err(Failure::read(format!("cannot write to standard output: {error}"))),
    }
}
