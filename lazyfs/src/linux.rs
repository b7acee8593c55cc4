//! The program: arguments, the mount, and what ends it.
// A program of its own around a real machine: its threads are not those of the simulator.
#![allow(clippy::disallowed_methods)]

use std::io::{self, Read};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::mpsc::{Sender, channel};
use std::thread;
use std::time::Duration;

use clap::Parser;
use kifa_lazyfs::control::Control;
use kifa_lazyfs::{Mount, Settings, Volume};
use rustix::process::{Resource, getrlimit, setrlimit};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

/// How often it is looked whether somebody else has unmounted.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Mounts a directory so that what was not synced can be lost on command.
///
/// Prints "mounted" when it is ready, and serves until SIGTERM, SIGINT, SIGHUP or an unmount; everything is durable then.
/// Killing it is a power cut that loses everything volatile. Commands and their answers go by FIFO, LazyFS's own and more:
/// write "lazyfs::help" to it.
#[derive(Parser, Debug)]
#[command(version)]
struct Arguments {
    /// Directory that holds what is durable; nothing else may use it meanwhile
    #[arg(long, value_name = "DIR")]
    root: PathBuf,
    /// Where to mount
    #[arg(long, value_name = "DIR")]
    mount: PathBuf,
    /// FIFO for commands; made if missing
    #[arg(long, value_name = "PATH")]
    fifo: Option<PathBuf>,
    /// FIFO for answers; made if missing
    #[arg(long, value_name = "PATH", requires = "fifo")]
    fifo_completed: Option<PathBuf>,
    /// Bytes of memory for volatile pages (from 4096); more is written back early, which the report counts
    #[arg(long, value_name = "BYTES", default_value_t = Settings::default().volatile_bytes_max)]
    #[arg(value_parser = clap::value_parser!(u64).range(4096..))]
    volatile_max: u64,
    /// Print every operation to stderr, with its number
    #[arg(long)]
    log_operations: bool,
    /// End when standard input ends, so that nothing is left when whoever started it is gone
    #[arg(long)]
    until_stdin_ends: bool,
}

pub(crate) fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("kifa-lazyfs: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> io::Result<()> {
    let named = |what: &str, error: io::Error| io::Error::new(error.kind(), format!("{what}: {error}"));
    // Every file is kept open.
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit)?;

    let settings = Settings { volatile_bytes_max: arguments.volatile_max, ..Settings::default() };
    let volume = Volume::open(&arguments.root, settings, arguments.log_operations)
        .map_err(|error| named(&format!("cannot take over {}", arguments.root.display()), error))?;
    let mount = Mount::new(volume, &arguments.mount).map_err(|error| {
        named(&format!("cannot mount at {} (needs root and /dev/fuse)", arguments.mount.display()), error)
    })?;
    let (stop, stopped) = channel();
    on_signals(stop.clone())?;
    if arguments.until_stdin_ends {
        thread::spawn(move || {
            // An input that cannot be read has ended, too.
            drop(io::copy(&mut io::stdin().lock().by_ref(), &mut io::sink()));
            stop.send(()).ok();
        });
    }
    if let Some(fifo) = &arguments.fifo {
        let control = Control::open(fifo, arguments.fifo_completed.as_deref())
            .map_err(|error| named(&format!("cannot open {}", fifo.display()), error))?;
        let volume = mount.share();
        thread::spawn(move || {
            if let Err(error) = control.serve(&volume) {
                eprintln!("kifa-lazyfs: no more commands: {error}");
            }
        });
    }
    println!("mounted");
    while stopped.recv_timeout(LOOK_EVERY).is_err() && !mount.has_ended() {}
    mount.end()
}

fn on_signals(stop: Sender<()>) -> io::Result<()> {
    let mut signals = Signals::new([SIGHUP, SIGINT, SIGTERM])?;
    thread::spawn(move || {
        if signals.forever().next().is_some() {
            stop.send(()).ok();
        }
    });
    Ok(())
}
