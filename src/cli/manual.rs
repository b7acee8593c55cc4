//! `kifa man` and `kifa completions`: both made from the command line's own description, so that they cannot go stale.
//!
//! Proof: `tests/it/manual.rs`.
// Manual pages are files of the user's, not of a store.
#![allow(clippy::disallowed_methods)]

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use clap::{Args, CommandFactory as _};
use clap_complete::Shell;
use clap_mangen::Man;

use super::args::Cli;
use super::exit::{self, Command, Exit, Failure};
use super::output;

/// Prints a completion script for a shell
///
/// Load it from the shell's start-up file, or put it where the shell looks for such scripts.
#[derive(Debug, Args)]
#[command(after_long_help = format!("{COMPLETIONS_EXAMPLES}\n{}", exit::help(Some(Command::Completions))))]
pub(crate) struct CompletionsArgs {
    /// For which shell
    #[arg(value_enum)]
    shell: Shell,
}

const COMPLETIONS_EXAMPLES: &str = "Examples:
  kifa completions bash > /etc/bash_completion.d/kifa
  kifa completions zsh > ~/.zfunc/_kifa
  kifa completions fish > ~/.config/fish/completions/kifa.fish
  kifa completions powershell >> $PROFILE
  kifa completions elvish >> ~/.config/elvish/rc.elv
";

/// Writes the manual pages
///
/// With DIR, kifa.1 and a page for every subcommand into that directory, which is made if it is not there; without, one
/// page to standard output.
#[derive(Debug, Args)]
#[command(after_long_help = format!("{MAN_EXAMPLES}\n{}", exit::help(Some(Command::Man))))]
pub(crate) struct ManArgs {
    /// Where to write all pages
    dir: Option<PathBuf>,
    /// Which page to print, as kifa-query
    #[arg(long, value_name = "NAME", default_value = "kifa", conflicts_with = "dir")]
    page: String,
}

const MAN_EXAMPLES: &str = "Examples:
  kifa man /usr/local/share/man/man1
  kifa man --page kifa-query | man -l -
";

pub(crate) fn completions(args: &CompletionsArgs) -> Result<Exit, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "kifa", &mut script);
    print(&script)
}

pub(crate) fn man(args: ManArgs) -> Result<Exit, Failure> {
    let mut pages = Vec::new();
    let mut command = Cli::command().disable_help_subcommand(true);
    command.build();
    collect(&command, &mut pages).map_err(|error| Failure::not_written(&error))?;
    match args.dir {
        Some(dir) => {
            write_all(&dir, &pages).map_err(|error| {
                Failure::new(Exit::NotWritten, format!("cannot write to {}: {error}", dir.display()))
            })?;
            Ok(Exit::Done)
        }
        None => match pages.iter().find(|(name, _)| *name == args.page) {
            Some((_, page)) => print(page),
            None => {
                let names: Vec<&str> = pages.iter().map(|(name, _)| name.as_str()).collect();
                let message = format!("there is no page \"{}\"; there are: {}", args.page, names.join(", "));
                Err(Failure::new(Exit::Usage, message))
            }
        },
    }
}

/// The page of a command and those of the commands below it, each with its name.
fn collect(command: &clap::Command, pages: &mut Vec<(String, Vec<u8>)>) -> io::Result<()> {
    let name = command.get_display_name().unwrap_or_else(|| command.get_name()).to_owned();
    let mut page = Vec::new();
    // Without a date: the same source gives the same page.
    Man::new(command.clone()).title(name.as_str()).manual("Kifa Manual").render(&mut page)?;
    pages.push((name, page));
    command.get_subcommands().filter(|below| !below.is_hide_set()).try_for_each(|below| collect(below, pages))
}

fn write_all(dir: &Path, pages: &[(String, Vec<u8>)]) -> io::Result<()> {
    fs::create_dir_all(dir)?;
    pages.iter().try_for_each(|(name, page)| fs::write(dir.join(format!("{name}.1")), page))
}

fn print(bytes: &[u8]) -> Result<Exit, Failure> {
    output::print(bytes).map_err(|error| Failure::not_written(&error))?;
    Ok(Exit::Done)
}
