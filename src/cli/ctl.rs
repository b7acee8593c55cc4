//! `kifa ctl`: requests to a running daemon, over its socket.
//!
//! Proof: `tests/it/ctl.rs`.

use clap::{Args, Subcommand};

use super::exit::{self, Command, Exit, Failure};
use super::remote::RemoteArgs;

/// Tells a running daemon what to do, or asks how it is
///
/// It talks to the socket kifa.sock in the daemon's data directory, and changes nothing by itself.
#[derive(Debug, Args)]
#[command(arg_required_else_help = true)]
#[command(after_long_help = format!("{EXAMPLES}\n{}", exit::help(Some(Command::Ctl))))]
pub(crate) struct CtlArgs {
    #[command(flatten)]
    remote: RemoteArgs,
    /// As text for people, or as one JSON object
    #[arg(short = 'o', long, value_enum, default_value = "text", global = true)]
    format: CtlFormat,
    #[command(subcommand)]
    request: Request,
}

/// How answers are printed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
enum CtlFormat {
    Text,
    Json,
}

#[derive(Debug, Subcommand)]
enum Request {
    /// Changes the flush mode; returns when the new one is in force and holds for everything before
    FlushMode {
        /// The mode from now on; default is the configured one
        #[arg(value_enum)]
        mode: Mode,
    },
    /// Forgets a numbering producer (HELLO) whose id is no longer used: its numbers may come again
    ForgetClient {
        /// Its id
        id: String,
    },
    /// Returns when everything that the daemon has accepted is durable
    Sync,
    /// Shows how the daemon is
    Status,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
enum Mode {
    Normal,
    Cautious,
    Emergency,
    Default,
}

const EXAMPLES: &str = "Examples:
  kifa ctl -d ./data status
  kifa ctl -d ./data flush-mode emergency
  kifa ctl -d ./data flush-mode default
  kifa ctl -d ./data sync && poweroff
  kifa ctl --socket /run/kifa/kifa.sock status --format json
";

pub(crate) fn run(args: CtlArgs) -> Result<Exit, Failure> {
    super::logging::start("warn").map_err(|message| Failure::new(Exit::Config, message))?;
    let remote = args.remote.remote()?;
    asking::run(&remote, &args.request, args.format)
}

#[cfg(not(unix))]
mod asking {
    use super::{CtlFormat, Exit, Failure, Request};
    use crate::cli::remote::Remote;

    pub(super) fn run(_remote: &Remote, _request: &Request, _format: CtlFormat) -> Result<Exit, Failure> {
        Err(Failure::new(Exit::Unavailable, "a daemon has no socket on this system, so nobody can be asked"))
    }
}

#[cfg(unix)]
mod asking {
    use std::time::Duration;

    use serde_json::json;

    use super::{CtlFormat, Exit, Failure, Mode, Request};
    use crate::cli::output;
    use crate::cli::remote::{Remote, failure};
    use crate::cli::status::{STATUS_BYTES_MAX, Status};
    use crate::control::{ControlError, REPLY_BYTES_MAX, printable};

    /// How long the daemon may take to accept.
    const ACCEPT_WITHIN: Duration = Duration::from_secs(5);
    /// How long an answer may take: a sync of a slow card, a mode change that waits for one.
    const ANSWER_WITHIN: Duration = Duration::from_secs(60);

    pub(super) fn run(remote: &Remote, request: &Request, format: CtlFormat) -> Result<Exit, Failure> {
        let line = line(request)?;
        let mut connection = remote.connect(ACCEPT_WITHIN).map_err(|error| failure(remote, &error, false))?;
        let bytes_max = if matches!(request, Request::Status) { STATUS_BYTES_MAX } else { REPLY_BYTES_MAX };
        let reply = connection.request(&line, bytes_max, ANSWER_WITHIN);
        let reply = reply.map_err(|error| failure(remote, &error, changes(request)))?;
        let text = show(request, format, &reply)
            .ok_or_else(|| failure(remote, &ControlError::Garbled(reply.clone()), changes(request)))?;
        output::print(format!("{text}\n").as_bytes()).map_err(|error| Failure::not_told(&error))?;
        Ok(Exit::Done)
    }

    /// Whether it matters if the request was carried out.
    fn changes(request: &Request) -> bool {
        !matches!(request, Request::Status)
    }

    fn line(request: &Request) -> Result<String, Failure> {
        Ok(match request {
            Request::FlushMode { mode } => format!(
                "FLUSH-MODE {}",
                match mode {
                    Mode::Normal => "normal",
                    Mode::Cautious => "cautious",
                    Mode::Emergency => "emergency",
                    Mode::Default => "default",
                }
            ),
            Request::ForgetClient { id } => {
                if id.is_empty() || id.chars().any(|c| c.is_whitespace() || c.is_control()) || id.len() > 1024 {
                    return Err(Failure::new(
                        Exit::Usage,
                        "a client id is a word without spaces, of at most 1024 bytes",
                    ));
                }
                format!("FORGET {id}")
            }
            Request::Sync => "SYNC".to_owned(),
            Request::Status => "STATUS".to_owned(),
        })
    }

    /// The answer as it is shown; `None` where it is not one.
    fn show(request: &Request, format: CtlFormat, reply: &str) -> Option<String> {
        let is_json = format == CtlFormat::Json;
        Some(match request {
            Request::FlushMode { .. } => {
                let (old, new) = reply.split_once(' ')?;
                match is_json {
                    true => json!({ "old": old, "new": new }).to_string(),
                    false if old == new => format!("flush mode: {} (as before)", printable(new)),
                    false => format!("flush mode: {} (before: {})", printable(new), printable(old)),
                }
            }
            Request::ForgetClient { .. } => match is_json {
                true => json!({ "forgotten": reply }).to_string(),
                false => format!("forgotten: {}", printable(reply)),
            },
            Request::Sync => {
                let lsn: u64 = reply.parse().ok()?;
                if is_json { json!({ "durable_lsn": lsn }).to_string() } else { format!("durable up to LSN {lsn}") }
            }
            Request::Status => {
                let value: serde_json::Value =
                    serde_json::from_str(reply).ok().filter(|value: &serde_json::Value| value.is_object())?;
                if is_json { value.to_string() } else { status(&serde_json::from_value(value).ok()?) }
            }
        })
    }

    fn status(status: &Status) -> String {
        let mut lines = vec!["Daemon:".to_owned()];
        lines.extend(status.mode().map(|mode| format!("  Flush mode: {mode}")));
        lines.extend(status.process_lines());
        let sources = status.source_lines();
        if !sources.is_empty() {
            lines.push("Sources (since it started):".to_owned());
            lines.extend(sources);
        }
        lines.join("\n")
    }
}
