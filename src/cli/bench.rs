//! `kifa bench`: what a device will sustain, measured where the store is going to be.
//!
//! - Everything it writes lies in one directory of its own inside DIR, which is removed at the end, also by SIGINT, SIGTERM
//!   and SIGHUP. SIGKILL and a power cut leave it behind: `kifa-bench-` and sixteen digits.
//! - It never runs in a store or below one, and looks before each slice that the disk is not about to be full: a log
//!   waits for room, and a bench must not.
//! - What is measured and how is `crate::bench`'s, the same as in the project's own benches.
//!
//! Proof: `tests/it/bench.rs`; the recommendation has its tests in `report`.
// The directory to measure is looked at as it is; it is not a store.
#![allow(clippy::disallowed_methods)]

mod measure;
mod report;

use std::io::{self, IsTerminal as _};
use std::path::{Path, PathBuf};

use clap::Args;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::args::StatsFormat;
use super::exit::{self, Command, Exit, Failure};
use super::query::output_failed;
use super::{logging, output};
use crate::daemon::signals::Signals;
use crate::io::fs::{RealVfs, StoreDir};
use crate::reactor::open::{Ground, survey};
use measure::Stopped;

/// Measures a device: raw, and with the whole engine on it
///
/// Runs in a temporary directory inside DIR, which is removed at the end. DIR must be on the device that the store will
/// be on, and must not be a store itself. The device should have nothing else to do meanwhile.
#[derive(Debug, Args)]
#[command(after_long_help = format!("{EXAMPLES}\n{}", exit::help(Some(Command::Bench))))]
pub(crate) struct BenchArgs {
    /// A directory on the device; it must exist
    #[arg(short, long, value_name = "DIR")]
    data_dir: PathBuf,
    /// How long to measure, 5 to 300 seconds; preparing and removing files comes on top
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u64).range(5..=300))]
    seconds: u64,
    /// As text for people, or as one JSON object
    #[arg(short = 'o', long, value_enum, default_value = "text")]
    format: StatsFormat,
}

const EXAMPLES: &str = "Examples:
  kifa bench -d /var/lib
  kifa bench -d /mnt/card --seconds 60 --format json > card.json

R is the raw device's own figure: one 4 KiB write and one sync after another, per
second. Every figure of the engine is given as a multiple of R, too, measured in
turns with it, so that two devices, or two days, can be compared.

If it is killed by SIGKILL or a power cut, remove DIR/kifa-bench-* by hand.
";

pub(crate) fn run(args: BenchArgs) -> Result<Exit, Failure> {
    logging::start("error").map_err(Failure::read)?;
    refuse_stores(&args.data_dir)?;
    let signals =
        Signals::install_for_cleanup().map_err(|error| Failure::read(format!("cannot catch signals: {error}")))?;
    let scratch = Scratch::create(&args.data_dir)?;
    let progress = progress();
    let go_on = || signals.received().is_none();
    let outcome = measure::all(&scratch.path, args.seconds, &go_on, &progress);
    progress.finish_and_clear();
    drop(scratch);
    let found = match outcome {
        Ok(found) => found,
        Err(Stopped::Asked) => return Ok(signals.received().map_or(Exit::Interrupted, Exit::of_signal)),
        Err(Stopped::Failed(message)) => return Err(Failure::read(message)),
    };
    let text = match args.format {
        StatsFormat::Text => report::text(&found),
        StatsFormat::Json => report::json(&found),
    };
    output::print(text.as_bytes()).map_or_else(|error| output_failed(&error), |()| Ok(Exit::Done))
}

/// A store is nobody's scratch space, and neither is anything inside it.
fn refuse_stores(dir: &Path) -> Result<(), Failure> {
    let canonical = dir.canonicalize().map_err(|error| {
        Failure::read(format!("cannot open {}: {error}; name a directory that exists", dir.display()))
    })?;
    if !canonical.is_dir() {
        return Err(Failure::read(format!("{} is not a directory", dir.display())));
    }
    for above in canonical.ancestors() {
        // What cannot be looked into cannot be written to below either, or is none of ours.
        let is_store = RealVfs::open(above).is_ok_and(|vfs| matches!(survey(&vfs), Ok(Ground::Store)));
        if is_store {
            let message =
                format!("{} is a kifa store; name a directory beside it, on the same device", above.display());
            return Err(Failure::read(message));
        }
    }
    Ok(())
}

/// The directory that everything is written to; dropping it removes it.
struct Scratch {
    path: PathBuf,
}

impl Scratch {
    fn create(dir: &Path) -> Result<Scratch, Failure> {
        let failed = |error: io::Error| Failure::read(format!("cannot write to {}: {error}", dir.display()));
        let number = getrandom::u64().map_err(|error| failed(io::Error::other(error)))?;
        let name = format!("kifa-bench-{number:016x}");
        StoreDir::open(dir).and_then(|inside| inside.make_dir(&name)).map_err(failed)?;
        Ok(Scratch { path: dir.join(name) })
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.path) {
            super::complain(format_args!("cannot remove {}: {error}; remove it by hand", self.path.display()));
        }
    }
}

/// A line on a terminal's stderr; nothing anywhere else.
fn progress() -> ProgressBar {
    if !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stderr());
    let style = ProgressStyle::with_template("{bar:30} {percent}%  {msg}");
    bar.with_style(style.expect("the template is right"))
}
