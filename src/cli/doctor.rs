//! `kifa doctor`: whether a place and its machine keep what the promise rests on, and what to do where they do not.
//!
//! - It changes nothing: what it measures is written to a file without a name (where the file system has none, to one that
//!   is removed at the end), never to a file of the store. It works beside a running daemon.
//! - Each look gives findings; none ends the others. What the system does not tell is a finding, too.
//!
//! Proof: the tests of the parts, and `tests/it/doctor.rs`.
// It looks at the machine itself: its files, its clock.
#![allow(clippy::disallowed_methods)]

mod clock;
mod disk;
mod latency;
mod place;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use clap::Args;
use serde::Serialize;

use super::args::StatsFormat;
use super::exit::{self, Command, Exit, Failure};
use super::output::{counted, escaped};
use super::terminal::{PagerArgs, Paint, print_report};
use super::{logging, variable};
use crate::config::data_dir;

/// Says whether a place is fit for a store, and what to do where it is not
///
/// Looks at the directory, its file system, the disk and its cache, direct I/O, io_uring, free space and the clock, and
/// measures for a second how long a sync takes. Works beside a running daemon and changes nothing. DIR may be absent if the
/// directory above it is there.
#[derive(Debug, Args)]
#[command(after_long_help = format!("{EXAMPLES}\n{}", exit::help(Some(Command::Doctor))))]
pub(crate) struct DoctorArgs {
    /// Where the store is, or is going to be [env: KIFA_DATA_DIR]
    #[arg(short, long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// As text for people, or as one JSON object
    #[arg(short = 'o', long, value_enum, default_value = "text")]
    format: StatsFormat,
    #[command(flatten)]
    pager: PagerArgs,
}

const EXAMPLES: &str = "Examples:
  kifa doctor -d /var/lib/kifa
  kifa doctor -d ./data --format json | jq '.findings[] | select(.level == \"problem\")'

ok: as it should be. note: worth knowing. warning: it works, and something is worse
than it should be. problem: the promise does not hold there, or nothing can be
stored. Behind each but ok stands what to do.
";

/// How much a finding matters, least first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
enum Level {
    Ok,
    Note,
    Warning,
    Problem,
}

impl Level {
    fn name(self) -> &'static str {
        match self {
            Level::Ok => "ok",
            Level::Note => "note",
            Level::Warning => "warning",
            Level::Problem => "problem",
        }
    }
}

/// Something that was looked at.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
struct Finding {
    level: Level,
    /// What was looked at, in a word or two.
    subject: &'static str,
    /// What was found.
    finding: String,
    /// What to do; `None` where there is nothing.
    remedy: Option<String>,
}

impl Finding {
    fn ok(subject: &'static str, finding: impl Into<String>) -> Finding {
        Finding { level: Level::Ok, subject, finding: finding.into(), remedy: None }
    }

    fn new(level: Level, subject: &'static str, finding: impl Into<String>, remedy: impl Into<String>) -> Finding {
        Finding { level, subject, finding: finding.into(), remedy: Some(remedy.into()) }
    }
}

pub(crate) fn run(args: DoctorArgs) -> Result<Exit, Failure> {
    logging::start("error").map_err(Failure::could_not_run)?;
    let dir = data_dir(args.data_dir, variable).map_err(|error| Failure::could_not_run(error.message))?;
    let report = Report { dir: dir.display().to_string(), findings: examine(&dir)? };
    let text = match args.format {
        StatsFormat::Text => report.to_string(),
        StatsFormat::Json => report.json(),
    };
    print_report(args.pager, args.format, &text, paint)?;
    Ok(if report.count(Level::Problem) == 0 { Exit::Done } else { Exit::Problems })
}

/// Looks at everything.
fn examine(dir: &Path) -> Result<Vec<Finding>, Failure> {
    let ground = place::Ground::find(dir)?;
    let mut findings = place::look(dir, &ground);
    findings.extend(disk::look(&ground.dir));
    findings.extend(latency::look(&ground.dir));
    findings.extend(clock::look(dir));
    Ok(findings)
}

fn paint(line: &str) -> Option<Paint> {
    match line.split(' ').next() {
        Some("ok") => Some(Paint::Good),
        Some("warning") => Some(Paint::Warning),
        Some("problem") => Some(Paint::Bad),
        _ => None,
    }
}

#[derive(Serialize)]
struct Report {
    dir: String,
    findings: Vec<Finding>,
}

impl Report {
    fn count(&self, level: Level) -> usize {
        self.findings.iter().filter(|finding| finding.level == level).count()
    }

    fn json(&self) -> String {
        let mut text = serde_json::to_string(self).expect("text always serialises");
        text.push('\n');
        text
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Finding { level, subject, finding, remedy } in &self.findings {
            writeln!(f, "{:<8} {subject:<13} {}", level.name(), escaped(finding))?;
            if let Some(remedy) = remedy {
                writeln!(f, "{:<8} {:<13} > {}", "", "", escaped(remedy))?;
            }
        }
        let found = |level, one, many| counted(self.count(level) as u64, one, many);
        let problems = found(Level::Problem, "problem", "problems");
        let warnings = found(Level::Warning, "warning", "warnings");
        writeln!(f, "\n{}: {problems}, {warnings}, {}", escaped(&self.dir), found(Level::Note, "note", "notes"))
    }
}

/// An error of the system, as a finding that the rest could not be looked at.
fn unknown(subject: &'static str, what: &str, error: &io::Error) -> Finding {
    Finding::new(Level::Note, subject, format!("{what}: {error}"), "look at it by hand")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_shows_each_finding_with_its_remedy_and_counts_them() {
        let findings = vec![
            Finding::ok("directory", "a store"),
            Finding::new(Level::Problem, "file system", "tmpfs\x1b[2J", "use a disk"),
            Finding::new(Level::Note, "clock", "no RTC", "fit one"),
        ];
        let report = Report { dir: "/data".into(), findings };
        let expected = "ok       directory     a store\n\
            problem  file system   tmpfs\\u{1b}[2J\n\
            \u{20}                      > use a disk\n\
            note     clock         no RTC\n\
            \u{20}                      > fit one\n\
            \n/data: 1 problem, 0 warnings, 1 note\n";
        assert_eq!(report.to_string(), expected);
        let value: serde_json::Value = serde_json::from_str(&report.json()).unwrap();
        assert_eq!(value["findings"][1]["level"], "problem");
        assert!(value["findings"][0]["remedy"].is_null());
    }
}
