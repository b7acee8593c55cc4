//! What a daemon says of itself (`STATUS`), for `stats` and `ctl status`.
//!
//! All of it is somebody else's word: every key may be missing, and text is made harmless before it is shown.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

/// Longest status that is read, in bytes: 4096 sources with the longest names, and the numbers.
#[cfg(unix)]
pub(super) const STATUS_BYTES_MAX: usize = 4 << 20;

/// The part of the status that is shown to people.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub(super) struct Status {
    pub(super) pid: Option<u32>,
    pub(super) uptime_s: Option<u64>,
    pub(super) flush_mode: Option<String>,
    pub(super) configured_flush_mode: Option<String>,
    pub(super) durable_lsn: Option<u64>,
    pub(super) confirmed_lsn: Option<u64>,
    pub(super) connections: Option<u64>,
    pub(super) sources: Vec<SourceStatus>,
}

/// One source since the daemon started.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub(super) struct SourceStatus {
    pub(super) name: String,
    pub(super) stored: u64,
    pub(super) unconfirmed: u64,
    pub(super) refused: u64,
    pub(super) dropped: u64,
}

/// Text that cannot drive a terminal.
fn harmless(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c }).collect()
}

impl Status {
    /// `Cautious`, or `Emergency (configured: Cautious)`; `None` where the daemon does not say.
    pub(super) fn mode(&self) -> Option<String> {
        let name = |text: &str| {
            let mut chars = text.chars();
            harmless(
                &chars.next().map(|first| first.to_uppercase().chain(chars).collect::<String>()).unwrap_or_default(),
            )
        };
        let mode = self.flush_mode.as_deref()?;
        Some(match self.configured_flush_mode.as_deref().filter(|&configured| configured != mode) {
            Some(configured) => format!("{} (configured: {})", name(mode), name(configured)),
            None => name(mode),
        })
    }

    /// Lines about the process, indented.
    pub(super) fn process_lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        if let (Some(pid), Some(uptime_s)) = (self.pid, self.uptime_s) {
            lines.push(format!("  Process: {pid}, running for {}", duration(uptime_s)));
        }
        match (self.durable_lsn, self.confirmed_lsn) {
            (Some(durable), Some(confirmed)) if confirmed > durable => {
                let at_risk = confirmed - durable;
                lines.push(format!("  Durable up to LSN: {durable} ({at_risk} more confirmed)"));
            }
            (Some(durable), _) => lines.push(format!("  Durable up to LSN: {durable}")),
            (None, _) => {}
        }
        lines.extend(self.connections.map(|count| format!("  Connections: {count}")));
        lines
    }

    /// A table of the sources, indented; nothing without any.
    pub(super) fn source_lines(&self) -> Vec<String> {
        let names: Vec<String> = self.sources.iter().map(|source| harmless(&source.name)).collect();
        let width = names.iter().map(|name| name.chars().count()).max().unwrap_or(0).max("NAME".len());
        let mut lines = Vec::new();
        if !names.is_empty() {
            lines.push(format!(
                "  {:<width$}  {:>12}  {:>9}  {:>9}  {:>9}",
                "NAME", "STORED", "WAITING", "REFUSED", "DROPPED"
            ));
        }
        for (name, source) in names.iter().zip(&self.sources) {
            let SourceStatus { stored, unconfirmed, refused, dropped, .. } = source;
            lines.push(format!("  {name:<width$}  {stored:>12}  {unconfirmed:>9}  {refused:>9}  {dropped:>9}"));
        }
        lines
    }
}

/// `3 d 4 h`, `2 h 5 min`, `7 min 3 s` or `9 s`.
fn duration(seconds: u64) -> String {
    let units = [(86_400, "d"), (3600, "h"), (60, "min"), (1, "s")];
    let mut text = String::new();
    let mut rest = seconds;
    for (at, (unit, name)) in units.iter().enumerate() {
        let is_last = at + 1 == units.len();
        if rest >= *unit || is_last {
            let _ = write!(text, "{} {name}", rest / unit);
            rest %= unit;
            if let Some((next, name)) = units.get(at + 1).filter(|(next, _)| rest >= *next) {
                let _ = write!(text, " {} {name}", rest / next);
            }
            break;
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_shown_with_what_it_says_and_without_what_it_does_not() {
        let text = r#"{"pid":7,"uptime_s":7503,"flush_mode":"emergency","configured_flush_mode":"cautious","durable_lsn":10,
            "confirmed_lsn":12,"connections":3,"sources":[{"name":"tcp:1\u001b","stored":12}],"more":{"a":[1]}}"#;
        let status: Status = serde_json::from_str(text).unwrap();
        assert_eq!(status.mode().unwrap(), "Emergency (configured: Cautious)");
        let expected =
            ["  Process: 7, running for 2 h 5 min", "  Durable up to LSN: 10 (2 more confirmed)", "  Connections: 3"];
        assert_eq!(status.process_lines(), expected);
        let lines = status.source_lines();
        assert!(
            lines[0].contains("NAME") && lines[1].starts_with("  tcp:1\u{fffd}            12          0"),
            "{lines:?}"
        );
        let nothing: Status = serde_json::from_str("{}").unwrap();
        assert_eq!((nothing.mode(), nothing.process_lines(), nothing.source_lines()), (None, vec![], vec![]));
    }

    #[test]
    fn durations_have_two_units() {
        let cases = [
            (0, "0 s"),
            (59, "59 s"),
            (60, "1 min"),
            (423, "7 min 3 s"),
            (7200, "2 h"),
            (90_000, "1 d 1 h"),
            (86_460, "1 d"),
        ];
        for (seconds, expected) in cases {
            assert_eq!(duration(seconds), expected);
        }
    }
}
