//! `kifa stats`: what the store holds, as text or JSON, and how the daemon that writes to it is, if one is running.

use std::path::Path;

use serde::Serialize;
use serde_json::Value;

use super::args::{StatsArgs, StatsFormat};
use super::exit::{Exit, Failure};
use super::scan::{clock_step, gap, gap_cause};
use super::status::Status;
use super::terminal::{Paint, print_report};
use super::time::TimeText;
use super::{logging, variable};
use crate::config::data_dir;
use crate::format::FlushMode;
use crate::format::manifest::Expired;
use crate::query::{Reader, StoreStats};

pub(crate) fn run(args: StatsArgs) -> Result<Exit, Failure> {
    logging::start("warn").map_err(Failure::read)?;
    let dir = data_dir(args.data_dir, variable).map_err(|error| Failure::read(error.message))?;
    let stats = Reader::open_what_is_left(&dir).and_then(|reader| reader.stats()).map_err(Failure::read)?;
    let daemon = if stats.writer_alive { ask_daemon(&dir) } else { None };
    let text = match args.format {
        StatsFormat::Text => text(&stats, daemon.as_ref().map(|daemon| &daemon.status)),
        StatsFormat::Json => json(&stats, daemon.as_ref()),
    };
    print_report(args.pager, args.format, &text, |line| {
        (!line.starts_with(' ') && line.ends_with(':')).then_some(Paint::Heading)
    })?;
    Ok(Exit::Done)
}

/// What the daemon says of itself: all of it, and the part that is understood.
struct Daemon {
    object: Value,
    status: Status,
}

/// A daemon that gives no answer is as none: the files tell what they can.
#[cfg(unix)]
fn ask_daemon(dir: &Path) -> Option<Daemon> {
    use super::status::STATUS_BYTES_MAX;
    const ANSWER_WITHIN: std::time::Duration = std::time::Duration::from_secs(1);
    let mut connection = crate::control::Connection::open_store(dir, ANSWER_WITHIN).ok()?;
    let answer = connection.request("STATUS", STATUS_BYTES_MAX, ANSWER_WITHIN).ok()?;
    let object: Value = serde_json::from_str(&answer).ok()?;
    let status = serde_json::from_value(object.clone()).ok()?;
    Some(Daemon { object, status })
}

#[cfg(not(unix))]
fn ask_daemon(_dir: &Path) -> Option<Daemon> {
    None
}

fn time(timestamp_ns: u64) -> String {
    TimeText::new().format(timestamp_ns).to_owned()
}

fn text(stats: &StoreStats, daemon: Option<&Status>) -> String {
    // The log tells the mode of its last group; a daemon knows the one in force.
    let mode = daemon.and_then(Status::mode).unwrap_or_else(|| format!("{:?}", stats.flush_mode));
    let mut lines = vec![
        "Storage:".to_owned(),
        format!("  Total entries: {}", stats.entries),
        format!("  SSTables: {} (checkpoint LSN: {})", stats.tables, stats.checkpoint_lsn),
        format!("  Memtable: {} entries", stats.memtable_entries),
        "WAL:".to_owned(),
        format!("  Flush mode: {mode}"),
        "Health:".to_owned(),
        match stats.timestamps_ns {
            Some((first, last)) => format!("  Time range: {} - {}", time(first), time(last)),
            None => "  Time range: none".to_owned(),
        },
        match stats.gaps.iter().map(|gap| gap.last.0 - gap.first.0 + 1).sum::<u64>() {
            0 => "  Gaps: none".to_owned(),
            lsns => format!("  Gaps: {} ({lsns} LSNs)", stats.gaps.len()),
        },
    ];
    if let Some(daemon) = daemon {
        lines.push("Daemon:".to_owned());
        lines.extend(daemon.process_lines());
        let sources = daemon.source_lines();
        if !sources.is_empty() {
            lines.push("Sources (since it started):".to_owned());
            lines.extend(sources);
        }
    }
    if stats.expired.tables > 0 {
        lines.push("Retention:".to_owned());
        lines.extend(retention_lines(stats));
    }
    lines.extend([
        "Details:".to_owned(),
        match stats.lsns {
            Some((first, last)) => format!("  LSN range: {first} - {last}"),
            None => "  LSN range: none".to_owned(),
        },
        format!("  Segments: {} (and {} prepared)", stats.wal_segments, stats.wal_spares),
        format!("  Bytes on disk: {}", stats.disk_bytes),
        format!("  I/O backend: {}", stats.io_backend),
        format!("  Sync method: {}", stats.sync_method),
        format!("  Direct I/O: {}", if stats.direct_io { "yes" } else { "no" }),
        format!("  Writer: {}", if stats.writer_alive { "running" } else { "none" }),
    ]);
    lines.extend(stats.gaps.iter().map(|found| format!("  Gap: LSN {}", gap(found))));
    lines.extend(stats.clock_steps.iter().map(|step| format!("  Clock step: {}", clock_step(step))));
    lines.push(String::new());
    lines.join("\n")
}

/// What was deleted, and where the store begins now.
fn retention_lines(stats: &StoreStats) -> [String; 3] {
    let Expired { tables, entries, bytes, until_ns, at_ns, .. } = stats.expired;
    [
        format!("  Floor: LSN {} (what came until {} has expired)", stats.floor_lsn, time(until_ns)),
        format!("  Deleted: {entries} entries in {tables} tables, {bytes} bytes"),
        format!("  Last deleted: {}", time(at_ns)),
    ]
}

/// The JSON object; its keys are a promise to scripts.
#[derive(Serialize)]
struct Json<'a> {
    entries: u64,
    tables: usize,
    checkpoint_lsn: u64,
    memtable_entries: u64,
    flush_mode: &'a str,
    first_lsn: Option<u64>,
    last_lsn: Option<u64>,
    first_timestamp: Option<String>,
    first_timestamp_ms: Option<u64>,
    last_timestamp: Option<String>,
    last_timestamp_ms: Option<u64>,
    wal_segments: usize,
    wal_spares: usize,
    disk_bytes: u64,
    io_backend: &'a str,
    sync_method: &'a str,
    direct_io: bool,
    writer_alive: bool,
    retention: JsonRetention,
    gaps: Vec<JsonGap>,
    clock_steps: Vec<JsonClockStep>,
    /// What the running daemon says of itself, or null.
    daemon: Option<&'a Value>,
}

/// Times are null while nothing was deleted.
#[derive(Serialize)]
struct JsonRetention {
    floor_lsn: u64,
    expired_until: Option<String>,
    expired_until_ms: Option<u64>,
    deleted_tables: u64,
    deleted_entries: u64,
    deleted_bytes: u64,
    last_deleted: Option<String>,
    last_deleted_ms: Option<u64>,
}

#[derive(Serialize)]
struct JsonGap {
    first_lsn: u64,
    last_lsn: u64,
    cause: &'static str,
}

#[derive(Serialize)]
struct JsonClockStep {
    lsn: u64,
    from_ms: u64,
    to_ms: u64,
}

fn json(stats: &StoreStats, daemon: Option<&Daemon>) -> String {
    let ms = |ns: u64| ns / 1_000_000;
    let (first_ns, last_ns) = stats.timestamps_ns.unzip();
    let (first_lsn, last_lsn) = stats.lsns.unzip();
    let expired = (stats.expired.tables > 0).then_some(stats.expired);
    let object = Json {
        entries: stats.entries,
        tables: stats.tables,
        checkpoint_lsn: stats.checkpoint_lsn.0,
        memtable_entries: stats.memtable_entries,
        flush_mode: daemon.and_then(|daemon| daemon.status.flush_mode.as_deref()).unwrap_or(match stats.flush_mode {
            FlushMode::Normal => "normal",
            FlushMode::Cautious => "cautious",
            FlushMode::Emergency => "emergency",
        }),
        first_lsn: first_lsn.map(|lsn| lsn.0),
        last_lsn: last_lsn.map(|lsn| lsn.0),
        first_timestamp: first_ns.map(time),
        first_timestamp_ms: first_ns.map(ms),
        last_timestamp: last_ns.map(time),
        last_timestamp_ms: last_ns.map(ms),
        wal_segments: stats.wal_segments,
        wal_spares: stats.wal_spares,
        disk_bytes: stats.disk_bytes,
        io_backend: stats.io_backend,
        sync_method: stats.sync_method,
        direct_io: stats.direct_io,
        writer_alive: stats.writer_alive,
        retention: JsonRetention {
            floor_lsn: stats.floor_lsn.0,
            expired_until: expired.map(|expired| time(expired.until_ns)),
            expired_until_ms: expired.map(|expired| ms(expired.until_ns)),
            deleted_tables: stats.expired.tables,
            deleted_entries: stats.expired.entries,
            deleted_bytes: stats.expired.bytes,
            last_deleted: expired.map(|expired| time(expired.at_ns)),
            last_deleted_ms: expired.map(|expired| ms(expired.at_ns)),
        },
        gaps: stats
            .gaps
            .iter()
            .map(|gap| JsonGap { first_lsn: gap.first.0, last_lsn: gap.last.0, cause: gap_cause(gap.cause) })
            .collect(),
        clock_steps: stats
            .clock_steps
            .iter()
            .map(|step| JsonClockStep { lsn: step.lsn.0, from_ms: ms(step.from_ns), to_ms: ms(step.to_ns) })
            .collect(),
        daemon: daemon.map(|daemon| &daemon.object),
    };
    let mut text = serde_json::to_string(&object).expect("numbers and text always serialise");
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::{ClockStep, Gap, GapCause, Lsn};

    const NS: u64 = 1_769_884_200_000_000_000;

    fn one_entry() -> StoreStats {
        StoreStats {
            entries: 1,
            memtable_entries: 1,
            lsns: Some((Lsn(1), Lsn(1))),
            timestamps_ns: Some((NS, NS)),
            wal_segments: 1,
            io_backend: "io_uring",
            sync_method: "dsync",
            ..StoreStats::default()
        }
    }

    #[test]
    fn the_block_of_the_documentation_comes_first() {
        let expected = "Storage:\n  Total entries: 1\n  SSTables: 0 (checkpoint LSN: 0)\n  Memtable: 1 entries\nWAL:\n  \
            Flush mode: Cautious\nHealth:\n  Time range: 2026-01-31 18:30:00 UTC - 2026-01-31 18:30:00 UTC\n  Gaps: none\n";
        assert!(text(&one_entry(), None).starts_with(expected), "{}", text(&one_entry(), None));
        assert!(text(&one_entry(), None).contains("  Sync method: dsync\n"));
        assert!(text(&StoreStats::default(), None).contains("  Time range: none\n"));
    }

    #[test]
    fn gaps_and_clock_steps_are_listed_with_their_cause() {
        let mut stats = one_entry();
        stats.gaps.push(Gap { first: Lsn(51), last: Lsn(99), cause: GapCause::UncleanNormal });
        stats.clock_steps.push(ClockStep { lsn: Lsn(7), from_ns: 0, to_ns: NS });
        let text = text(&stats, None);
        assert!(text.contains("  Gaps: 1 (49 LSNs)\n"), "{text}");
        assert!(text.contains("  Gap: LSN 51 to 99: an unclean end in normal mode"), "{text}");
        assert!(
            text.contains("  Clock step: at LSN 7 from 1970-01-01 00:00:00 UTC to 2026-01-31 18:30:00 UTC\n"),
            "{text}"
        );
        let value: serde_json::Value = serde_json::from_str(&json(&stats, None)).unwrap();
        assert_eq!(value["gaps"][0]["last_lsn"], 99);
        assert_eq!(value["last_timestamp_ms"], 1_769_884_200_000u64);
        assert_eq!(value["flush_mode"], "cautious");
        assert!(value["daemon"].is_null());
    }

    #[test]
    fn the_mode_in_force_is_the_daemons_to_tell() {
        let object: Value = serde_json::from_str(
            r#"{"pid":7,"uptime_s":61,"flush_mode":"emergency","configured_flush_mode":"cautious","sources":[{"name":"stdin"}]}"#,
        )
        .unwrap();
        let daemon = Daemon { status: serde_json::from_value(object.clone()).unwrap(), object };
        let text = text(&one_entry(), Some(&daemon.status));
        assert!(text.contains("\n  Flush mode: Emergency (configured: Cautious)\nHealth:"), "{text}");
        assert!(
            text.contains("\nDaemon:\n  Process: 7, running for 1 min 1 s\nSources (since it started):\n  NAME "),
            "{text}"
        );
        let value: Value = serde_json::from_str(&json(&one_entry(), Some(&daemon))).unwrap();
        assert_eq!((&value["flush_mode"], &value["daemon"]["pid"]), (&Value::from("emergency"), &Value::from(7)));
    }
}
