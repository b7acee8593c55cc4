//! `kifa config`: what the daemon would run with, and where each setting came from.
//!
//! Nothing is opened and nothing is created; the data directory need not exist.
//!
//! Proof: `tests/it/config.rs`; the text is `crate::config::text`'s.

use std::io;

use clap::{Args, Subcommand};

use super::args::SettingArgs;
use super::daemon::{load, not_loaded};
use super::exit::{self, Command, Exit, Failure};
use super::output::counted;
use super::terminal::{PagerArgs, Paint, Screen, painted};
use super::{complain, logging, variable};
use crate::config::{Config, data_dir, text};

/// Checks and shows the configuration
///
/// With the same flags, variables and file as the daemon, from the same places.
#[derive(Debug, Args)]
#[command(arg_required_else_help = true)]
#[command(after_long_help = format!("{EXAMPLES}\n{}", exit::help(Some(Command::Config))))]
pub(crate) struct ConfigArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Says whether the daemon would start with this configuration
    ///
    /// If not, with the sentence and the exit code that the daemon would end with.
    #[command(after_long_help = format!("{EXAMPLES}\n{}", exit::help(Some(Command::Config))))]
    Check(SettingArgs),
    /// Prints the settings in force, as a file that sets them
    #[command(after_long_help = format!("{EXAMPLES}\n{}", exit::help(Some(Command::Config))))]
    Show {
        /// With where each came from: the default, a file and its line, a variable, a flag
        #[arg(long)]
        origin: bool,
        #[command(flatten)]
        pager: PagerArgs,
        #[command(flatten)]
        settings: SettingArgs,
    },
    /// Prints a file of every setting with its range, its variable and its default
    #[command(after_long_help = format!("{EXAMPLES}\n{}", exit::help(Some(Command::Config))))]
    Default {
        #[command(flatten)]
        pager: PagerArgs,
    },
}

const EXAMPLES: &str = "Examples:
  kifa config check -d /var/lib/kifa && systemctl reload kifa
  kifa config show --origin -d ./data --flush-mode normal
  kifa config default > kifa.toml
";

pub(crate) fn run(args: ConfigArgs) -> Result<Exit, Failure> {
    match args.what {
        What::Check(settings) => {
            let config = load(&settings).map_err(not_loaded)?;
            logging::start("info").map_err(|message| Failure::new(Exit::Config, message))?;
            tell_unknown(&config);
            let sources = counted(config.sources.count() as u64, "source", "sources");
            print(PagerArgs::default(), &format!("The configuration is good: {sources}.\n"))
        }
        What::Show { origin, pager, settings } => {
            let dir = data_dir(settings.data_dir.clone(), variable).map_err(not_loaded)?;
            let variables: Vec<_> = std::env::vars_os().collect();
            let config = Config::put_together(dir, settings.config.as_deref(), &variables, &settings.settings())
                .map_err(not_loaded)?;
            tell_unknown(&config);
            print(pager, &text::effective(&config, origin))
        }
        What::Default { pager } => print(pager, &text::defaults()),
    }
}

fn tell_unknown(config: &Config) {
    for name in &config.unknown_variables {
        complain(format_args!("note: the environment variable {name} is not a setting of kifa and has no effect"));
    }
}

fn print(pager: PagerArgs, text: &str) -> Result<Exit, Failure> {
    let text = painted(text, |line| match line.as_bytes() {
        [b'[', ..] => Some(Paint::Heading),
        [b'#', ..] => Some(Paint::Faint),
        _ => None,
    });
    match Screen::print(pager, &text) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(Failure::not_written(&error)),
        _ => Ok(Exit::Done),
    }
}
