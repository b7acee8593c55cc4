//! The log on stderr: plain under systemd (the journal has its own times), colour only on a terminal that wants it.

use std::io;

use tracing_subscriber::EnvFilter;

use super::terminal::has_color;
use super::variable;

/// Starts the log. `level` holds where `KIFA_LOG` says nothing; a filter that cannot be read is an error sentence.
pub(crate) fn start(level: &str) -> Result<(), String> {
    let filter = match variable("KIFA_LOG").filter(|text| !text.is_empty()) {
        None => EnvFilter::new(level),
        Some(text) => {
            let text = text.to_string_lossy().into_owned();
            EnvFilter::try_new(&text).map_err(|error| {
                format!("KIFA_LOG is \"{text}\", not a filter ({error}); use error, warn, info, debug or kifa=debug")
            })?
        }
    };
    let under_systemd = variable("JOURNAL_STREAM").is_some();
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_target(false)
        .with_ansi(!under_systemd && has_color(&io::stderr()))
        // A full stderr would make it panic while it reports that it cannot report.
        .log_internal_errors(false);
    // A second start in one process (tests) keeps the first log.
    let _ = if under_systemd { log.without_time().try_init() } else { log.try_init() };
    Ok(())
}
