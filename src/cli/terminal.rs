//! What is different on a terminal: colour, and a pager for what may be long.
//!
//! - Colour is for people: on a terminal, unless `NO_COLOR` is set, `TERM` is `dumb` or `CLICOLOR` is 0; elsewhere with
//!   `CLICOLOR_FORCE`; and as `--color` says, which wins over all of them. Only the formats for people have any.
//! - Output into a pipe or a file has neither, so that scripts see the same bytes everywhere.
//!
//! Proof: `tests/it/terminal.rs`.

mod pager;

use std::borrow::Cow;
use std::io::{self, IsTerminal};
use std::sync::OnceLock;

use clap::{Args, ValueEnum};

use super::args::StatsFormat;
use super::exit::Failure;
use super::query::output_failed;
use super::variable;
pub(crate) use pager::{Screen, hold};

/// When there is colour.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, ValueEnum)]
pub(crate) enum Color {
    /// On a terminal
    #[default]
    Auto,
    Always,
    Never,
}

/// Options of commands whose output may be long.
#[derive(Clone, Copy, Debug, Default, Args)]
pub(crate) struct PagerArgs {
    /// Print to the terminal itself: without it, output goes through $KIFA_PAGER, $PAGER or less
    #[arg(long)]
    pub(super) no_pager: bool,
}

/// What `--color` said; one for the process.
static CHOICE: OnceLock<Color> = OnceLock::new();

/// Remembers what `--color` said. Called once, before anything is printed.
pub(crate) fn choose(color: Color) {
    let _ = CHOICE.set(color);
}

/// Whether this stream gets colour.
pub(crate) fn has_color(stream: &impl IsTerminal) -> bool {
    let is_set = |name: &str| variable(name).is_some_and(|value| !value.is_empty());
    let is = |name: &str, value: &str| variable(name).is_some_and(|found| found == value);
    match CHOICE.get().copied().unwrap_or_default() {
        Color::Always => true,
        Color::Never => false,
        Color::Auto if is_set("NO_COLOR") => false,
        Color::Auto if is_set("CLICOLOR_FORCE") && !is("CLICOLOR_FORCE", "0") => true,
        Color::Auto => stream.is_terminal() && !is_dumb() && !is("CLICOLOR", "0"),
    }
}

/// A terminal that can do nothing but print.
fn is_dumb() -> bool {
    cfg!(unix) && variable("TERM").is_none_or(|term| term.is_empty() || term == "dumb")
}

/// What something is, for people who see colours.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Paint {
    Heading,
    Good,
    Warning,
    Bad,
    /// What the eye may pass over.
    Faint,
    /// What was looked for.
    Match,
}

impl Paint {
    /// The control sequence that begins it.
    pub(crate) fn begin(self) -> &'static str {
        match self {
            Paint::Heading => "\x1b[1m",
            Paint::Good => "\x1b[32m",
            Paint::Warning => "\x1b[33m",
            Paint::Bad | Paint::Match => "\x1b[1;31m",
            Paint::Faint => "\x1b[2m",
        }
    }

    /// The control sequence that ends any.
    pub(crate) const END: &'static str = "\x1b[0m";

    /// Text of ours, painted. Not for text from outside, unless it is escaped.
    pub(crate) fn text(self, text: &str) -> String {
        format!("{}{text}{}", self.begin(), Paint::END)
    }
}

/// Prints a report, the text format with its lines painted by `kind`. That its reader has left is no error.
pub(crate) fn print_report(
    pager: PagerArgs,
    format: StatsFormat,
    text: &str,
    kind: impl Fn(&str) -> Option<Paint>,
) -> Result<(), Failure> {
    let text = match format {
        StatsFormat::Text => painted(text, kind),
        StatsFormat::Json => text.into(),
    };
    Screen::print(pager, &text).or_else(|error| output_failed(&error).map(drop))
}

/// A report whose lines are painted by `kind`, if it is for a terminal.
pub(crate) fn painted(text: &str, kind: impl Fn(&str) -> Option<Paint>) -> Cow<'_, str> {
    if !has_color(&io::stdout()) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 256);
    for line in text.split_inclusive('\n') {
        let (line, end) = line.strip_suffix('\n').map_or((line, ""), |line| (line, "\n"));
        match kind(line) {
            Some(paint) => out.push_str(&paint.text(line)),
            None => out.push_str(line),
        }
        out.push_str(end);
    }
    Cow::Owned(out)
}
