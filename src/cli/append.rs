//! `kifa append`: entries from the command line or standard input, through the running daemon or, without one, directly.
//!
//! - An LSN is printed when its entry is durable, in every flush mode, and exit code 0 means that all are.
//! - Nothing is sent twice. Until the daemon has answered once on a connection nothing is sent on it, so a daemon that
//!   stops or starts in that moment costs another try, not an entry. A connection that breaks later leaves entries of
//!   which nobody knows; they are counted, and the exit code says so.
//! - Memory is bounded: a chunk of input, what the socket does not take yet, and the answers outstanding.
//! - Without a daemon the store is opened as the daemon opens it (and created as it would be, in a directory that is absent
//!   or empty), with the settings of file and environment, in cautious mode; it waits for a daemon that is just starting.
//!
//! Proof: `tests/it/append.rs`.
// It waits for a daemon that starts or stops, before there is a log, on the machine's own clock.
#![allow(clippy::disallowed_methods)]

mod direct;
mod input;
#[cfg(unix)]
mod through;

use std::ffi::OsString;
use std::fmt;
use std::io::{self, Write as _};
use std::time::{Duration, Instant};

use clap::Args;

use super::exit::{self, Command, Exit, Failure};
use super::remote::{Remote, RemoteArgs};
use super::{complain, logging};
use crate::error::Error;
use crate::format::Lsn;
use crate::io::lock::{LOCK_NAME, writer_alive};
use input::Input;

/// Name of the source of such entries.
const SOURCE_NAME: &str = "append";
/// How long to wait before the daemon is looked for again.
const RETRY_EVERY: Duration = Duration::from_millis(20);

/// Stores an entry, or one per line of standard input
///
/// Through the running daemon if there is one, else directly, creating the store if need be. Prints the number (LSN) of each
/// entry when it is durable: exit code 0 means that everything is.
#[derive(Debug, Args)]
#[command(after_long_help = format!("{EXAMPLES}\n{}", exit::help(Some(Command::Append))))]
pub(crate) struct AppendArgs {
    #[command(flatten)]
    remote: RemoteArgs,
    /// How long to wait for a daemon that is just starting or stopping, in seconds
    #[arg(long, value_name = "SECONDS", default_value = "10", value_parser = clap::value_parser!(u64).range(0..=86_400))]
    wait: u64,
    /// The entry, any bytes; - reads standard input, one entry per line. In front of a text that begins with - write --
    #[arg(value_name = "TEXT")]
    text: OsString,
}

const EXAMPLES: &str = "Examples:
  kifa append -d ./data 'printer out of paper'
  lsn=$(kifa append -d ./data \"$receipt\") && echo \"stored as $lsn\"
  journal | kifa append -d ./data -
  kifa append --socket /run/kifa/kifa.sock -- '-3 degrees'

Lines are framed as by kifa daemon --stdin: LF or CR LF, empty lines skipped, up
to 1 MiB each; a longer one is refused, the rest goes on, and the exit code is 1.
With --socket the store is never opened directly.
";

pub(crate) fn run(args: AppendArgs) -> Result<Exit, Failure> {
    logging::start("warn").map_err(|message| Failure::new(Exit::Config, message))?;
    let input = Input::new(args.text)?;
    let remote = args.remote.remote()?;
    let mut tally = Tally::default();
    let outcome = deliver(&remote, Duration::from_secs(args.wait), input, &mut tally);
    tally.conclude(outcome)
}

/// What has become of the entries.
#[derive(Debug, Default)]
struct Tally {
    /// Entries that are durable, and the last of them.
    durable: u64,
    last: Lsn,
    /// Entries that were refused, each reported when it was met.
    refused: u64,
    /// Those of them that were refused because the disk is full.
    refused_full: u64,
    /// LSNs to be printed.
    lines: Vec<u8>,
    /// Why LSNs are no longer printed.
    mute: Option<io::Error>,
}

/// How a delivery ends early.
enum Ended {
    /// Nothing is in doubt.
    Failed(Failure),
    /// So many entries were handed over, and nobody knows of them.
    Unknown { entries: u64, why: String },
}

impl Tally {
    /// This entry is durable.
    fn settle(&mut self, lsn: Lsn) {
        self.durable += 1;
        self.last = lsn;
        if self.mute.is_none() {
            // Writing to memory does not fail.
            let _ = writeln!(self.lines, "{lsn}");
        }
    }

    fn refuse(&mut self, what: impl fmt::Display, why: impl fmt::Display) {
        self.refused += 1;
        complain(format_args!("{what} is refused: {why}"));
    }

    /// Prints what has been settled. An output that takes nothing more does not keep entries from being stored.
    fn print(&mut self) {
        if self.lines.is_empty() {
            return;
        }
        let mut stdout = io::stdout().lock();
        if let Err(error) = stdout.write_all(&self.lines).and_then(|()| stdout.flush()) {
            self.mute = Some(error);
        }
        self.lines.clear();
    }

    fn conclude(mut self, outcome: Result<(), Ended>) -> Result<Exit, Failure> {
        self.print();
        let stored = match self.durable {
            0 => "nothing was stored".to_owned(),
            1 => format!("1 entry is durable, LSN {}", self.last),
            durable => format!("{durable} entries are durable, the last as LSN {}", self.last),
        };
        match outcome {
            Err(Ended::Failed(failure)) if self.durable == 0 => Err(failure),
            Err(Ended::Failed(failure)) => Err(Failure::new(failure.exit, format!("{}; {stored}", failure.message))),
            Err(Ended::Unknown { entries, why }) => {
                let behind = format!("look behind that with kifa query --after-lsn {}", self.last);
                let which = if entries == 1 { "whether 1 more is" } else { &format!("whether {entries} more are") };
                Err(Failure::new(Exit::Unknown, format!("{why}; {stored}, {which} stored is not known: {behind}")))
            }
            Ok(()) => match self.mute {
                Some(error) if error.kind() != io::ErrorKind::BrokenPipe => {
                    Err(Failure::new(Exit::Io, format!("{stored}, but standard output takes no LSNs: {error}")))
                }
                _ if self.refused > 0 => {
                    let exit = if self.refused_full > 0 { Exit::Full } else { Exit::NotStored };
                    Err(Failure::new(exit, format!("{} refused; {stored}", self.refused)))
                }
                _ => Ok(Exit::Done),
            },
        }
    }
}

/// Finds a way to the log and takes it to the end of the input; looks again until `wait` is over while there is none.
fn deliver(remote: &Remote, wait: Duration, mut input: Input, tally: &mut Tally) -> Result<(), Ended> {
    let end = Instant::now() + wait;
    loop {
        let failure = match attempt(remote, &mut input, tally)? {
            None => return Ok(()),
            Some(failure) => failure,
        };
        if Instant::now() >= end {
            return Err(Ended::Failed(failure));
        }
        std::thread::sleep(RETRY_EVERY);
    }
}

/// One try: `None` when everything is delivered, or why there is no way now although there may be one soon.
fn attempt(remote: &Remote, input: &mut Input, tally: &mut Tally) -> Result<Option<Failure>, Ended> {
    #[cfg(unix)]
    let absent = match through::connect(remote) {
        Ok(connection) => return through::deliver(connection, input, tally).map(|()| None),
        Err(through::NoWay::Absent(failure)) => failure,
        Err(through::NoWay::NotNow(failure)) => return Ok(Some(failure)),
        Err(through::NoWay::Never(failure)) => return Err(Ended::Failed(failure)),
    };
    #[cfg(not(unix))]
    let absent = Failure::new(Exit::Unavailable, "a daemon has no socket on this system; name its store with -d");
    let Remote::Store(dir) = remote else { return Ok(Some(absent)) };
    // Where there can be no lock, opening says what is wrong.
    let has_lock = dir.join(LOCK_NAME).symlink_metadata().is_ok_and(|found| found.is_file());
    if has_lock && writer_alive(dir) {
        // A daemon that has no socket yet, or no more; or another append.
        let locked = Error::Locked { dir: dir.clone(), pid: None };
        return Ok(Some(Failure::new(Exit::Locked, locked.to_string())));
    }
    match direct::open(dir)? {
        Ok(log) => direct::deliver(log, input, tally).map(|()| None),
        Err(locked) => Ok(Some(locked)),
    }
}
