//! The program: arguments in, exit code out.
//!
//! - Results go to stdout, everything else to stderr. An error is one sentence that starts with `kifa: `.
//! - Every exit code is in the table of `exit`. A pipe that its reader has closed is a quiet success.
//! - Nothing here panics because of what it is given, a closed or full stderr included.
//!
//! It is public for `main.rs` only and promises nothing to anybody else.
//!
//! Proof: `tests/it/` runs the program.

mod allocator;
mod append;
mod args;
mod bench;
mod config;
mod ctl;
mod daemon;
mod damage;
mod doctor;
mod exit;
mod export;
mod filter;
mod follow;
mod logging;
mod manual;
mod output;
mod query;
mod recover;
mod remote;
mod scan;
mod snapshot;
mod sources;
mod stats;
mod status;
mod tail;
mod terminal;
pub(crate) mod time;
pub(crate) mod vacuum;
mod verify;

use std::ffi::OsString;
use std::fmt;
use std::io::{self, Write};
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{ColorChoice, CommandFactory as _, FromArgMatches as _};

use args::{Cli, Subcommands};
use exit::{Exit, Failure};

/// Runs the program with these arguments, its own name first.
pub fn run(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    allocator::hold_little();
    crate::daemon::signals::outlive_the_file_size_limit();
    let args: Vec<OsString> = args.into_iter().collect();
    let outcome = match parse(&args) {
        Ok(cli) => {
            terminal::choose(cli.color);
            dispatch(cli)
        }
        Err(error) => usage(&error, &args),
    };
    let exit = outcome.unwrap_or_else(|failure| {
        complain(&failure.message);
        failure.exit
    });
    ExitCode::from(exit.code())
}

/// Reads the arguments. Help has colour as anything else does, so `--color` is looked for first.
fn parse(args: &[OsString]) -> Result<Cli, clap::Error> {
    let texts = args.iter().take_while(|arg| *arg != "--").map(|arg| arg.to_string_lossy());
    let said = texts.collect::<Vec<_>>().join("\n");
    let is_said =
        |choice: &str| said.contains(&format!("\n--color={choice}")) || said.contains(&format!("\n--color\n{choice}"));
    let choice = match () {
        () if is_said("always") => ColorChoice::Always,
        () if is_said("never") => ColorChoice::Never,
        () => ColorChoice::Auto,
    };
    let mut matches = Cli::command().color(choice).try_get_matches_from(args)?;
    Cli::from_arg_matches_mut(&mut matches)
}

fn dispatch(cli: Cli) -> Result<Exit, Failure> {
    match cli.command {
        Subcommands::Daemon(args) => daemon::run(*args),
        Subcommands::Query(args) => query::run(args),
        Subcommands::Append(args) => append::run(args),
        Subcommands::Tail(args) => tail::run(args),
        Subcommands::Export(args) => export::run(args),
        Subcommands::Stats(args) => stats::run(args),
        Subcommands::Verify(args) => verify::run(args),
        Subcommands::Recover(args) => recover::run(args),
        Subcommands::Ctl(args) => ctl::run(args),
        Subcommands::Snapshot(args) => snapshot::run(args),
        Subcommands::Vacuum(args) => vacuum::run(args),
        Subcommands::Bench(args) => bench::run(args),
        Subcommands::Doctor(args) => doctor::run(args),
        Subcommands::Config(args) => config::run(args),
        Subcommands::Completions(args) => manual::completions(&args),
        Subcommands::Man(args) => manual::man(args),
    }
}

/// What the parser did not take: a request for help, or a mistake.
fn usage(error: &clap::Error, args: &[OsString]) -> Result<Exit, Failure> {
    if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
        // Nobody is left to tell if the help cannot be printed.
        let _ = error.print();
        return Ok(Exit::Done);
    }
    let readers = ["query", "export", "stats", "verify", "recover", "tail", "bench", "doctor", "snapshot"];
    // Options may stand in front of the subcommand.
    let commands = Cli::command();
    let is_name = |arg: &&OsString| {
        let mut names =
            commands.get_subcommands().flat_map(|command| command.get_all_aliases().chain([command.get_name()]));
        names.any(|name| ***arg == *name)
    };
    let name = args.iter().skip(1).find(is_name);
    let reads = name.is_some_and(|name| readers.iter().any(|command| name == command));
    let exit = if reads { Exit::ReadFailed } else { Exit::Usage };
    if error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        let _ = error.print();
        return Ok(exit);
    }
    let text = error.render().to_string();
    Err(Failure::new(exit, text.strip_prefix("error: ").unwrap_or(&text).trim_end()))
}

/// One line on stderr, behind a pager if there is one. That it cannot be printed must not end the program.
fn complain(message: impl fmt::Display) {
    let message = message.to_string();
    if !terminal::hold(&message) {
        let _ = writeln!(io::stderr().lock(), "kifa: {message}");
    }
}

/// An environment variable of this process.
fn variable(name: &str) -> Option<OsString> {
    std::env::var_os(name)
}
