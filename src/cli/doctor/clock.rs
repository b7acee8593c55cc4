//! The clock: against the newest entry, who keeps it right, and whether it goes on without power.

use std::path::Path;

use super::{Finding, Level};
use crate::cli::time::{TimeText, now_ns};
use crate::query::Reader;

/// 2025-01-01: no clock that is right shows less.
const BUILT_NS: u64 = 1_735_689_600 * SECOND_NS;
const SECOND_NS: u64 = 1_000_000_000;

pub(super) fn look(dir: &Path) -> Vec<Finding> {
    let newest = Reader::open(dir).and_then(|reader| reader.stats());
    let mut findings = match newest {
        Ok(stats) => vec![time(now_ns(), stats.timestamps_ns.map(|(_, newest)| newest))],
        // Whether it is a store is told elsewhere.
        Err(crate::Error::NotAStore { .. }) => vec![time(now_ns(), None)],
        Err(error) => vec![
            time(now_ns(), None),
            Finding::new(
                Level::Problem,
                "store",
                error.to_string(),
                format!("kifa verify -d {} says what is damaged", dir.display()),
            ),
        ],
    };
    if cfg!(target_os = "linux") {
        findings.push(keeper(Path::new("/run/systemd/timesync")));
        findings.extend(battery(Path::new("/sys/class/rtc")));
    }
    findings
}

/// `newest` is the latest time of an entry.
fn time(now: u64, newest: Option<u64>) -> Finding {
    const SUBJECT: &str = "clock";
    const REMEDY: &str = "set it (timedatectl set-time, chronyc makestep), and let NTP keep it right";
    let (mut now_text, mut newest_text) = (TimeText::new(), TimeText::new());
    let now_text = now_text.format(now);
    if now < BUILT_NS {
        return Finding::new(Level::Warning, SUBJECT, format!("it shows {now_text}: it was never set"), REMEDY);
    }
    match newest {
        Some(newest) if newest > now.saturating_add(SECOND_NS) => {
            let newest = newest_text.format(newest);
            let finding = format!("it shows {now_text}, before the newest entry ({newest}): it is wrong, or it was");
            Finding::new(Level::Warning, SUBJECT, finding, REMEDY)
        }
        _ => Finding::ok(SUBJECT, format!("it shows {now_text}")),
    }
}

/// Whether something keeps the clock right. `state` is where systemd-timesyncd tells of itself; asking the kernel
/// (adjtimex) takes a call that no safe library offers.
fn keeper(state: &Path) -> Finding {
    const SUBJECT: &str = "NTP";
    if state.join("synchronized").exists() {
        return Finding::ok(SUBJECT, "the clock is synchronised (systemd-timesyncd)");
    }
    match state.exists() {
        true => Finding::new(
            Level::Warning,
            SUBJECT,
            "systemd-timesyncd runs and has not set the clock since the start",
            "look at timedatectl timesync-status; without a network a clock drifts by seconds a day",
        ),
        false => Finding::new(
            Level::Note,
            SUBJECT,
            "systemd-timesyncd does not run, so nothing here tells who keeps the clock right",
            "ask who does: timedatectl, chronyc tracking, ntpq -p",
        ),
    }
}

/// Whether time goes on while there is no power; `rtc` is where the kernel lists such clocks.
fn battery(rtc: &Path) -> Option<Finding> {
    let has_clock = std::fs::read_dir(rtc).ok()?.next().is_some();
    (!has_clock).then(|| {
        Finding::new(
            Level::Note,
            "clock",
            "the machine has none that runs without power: after each cut time begins in the past, until NTP is there",
            "fit a real-time clock with a battery; kifa records each such step, and LSNs keep the order",
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_769_884_200 * SECOND_NS;

    #[test]
    fn a_clock_before_the_newest_entry_is_wrong() {
        assert_eq!(time(NOW, None).level, Level::Ok);
        assert_eq!(time(NOW, Some(NOW + SECOND_NS)).level, Level::Ok, "small steps are smoothed over");
        let finding = time(NOW, Some(NOW + 3600 * SECOND_NS));
        assert_eq!(
            (finding.level, finding.finding.as_str()),
            (
                Level::Warning,
                "it shows 2026-01-31 18:30:00 UTC, before the newest entry (2026-01-31 19:30:00 UTC): it is wrong, or it was"
            )
        );
        assert!(time(9, None).finding.contains("1970-01-01 00:00:00 UTC: it was never set"));
    }

    #[test]
    fn who_keeps_the_clock_is_told_by_their_files() {
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path().join("timesync");
        assert_eq!(keeper(&state).level, Level::Note);
        std::fs::create_dir(&state).unwrap();
        assert_eq!((keeper(&state).level, battery(&state).unwrap().level), (Level::Warning, Level::Note));
        std::fs::write(state.join("synchronized"), "").unwrap();
        assert_eq!((keeper(&state).level, battery(&state)), (Level::Ok, None));
        assert_eq!(battery(&dir.path().join("absent")), None);
    }
}
