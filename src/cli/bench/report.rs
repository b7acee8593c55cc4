//! What `kifa bench` says: the figures, what the device will sustain, and which settings fit it.

use std::fmt::Write as _;
use std::time::Duration;

use serde::Serialize;

use super::measure::{Candidate, Case, Found, Way};
use crate::bench::{FLUSH_TOO_FAST, Histogram, Measured};
use crate::cli::output::counted;
use crate::format::FlushMode;
use crate::io::SyncMethod;

/// How much better than `auto` a way must be before it is worth a setting: less is noise.
const WORTH_IT: f64 = 1.15;
/// A confirmation that may take longer than this is felt at the till.
const SLOW: Duration = Duration::from_millis(200);

/// Settings that fit the device, each with its reason.
struct Advice {
    flush_mode: FlushMode,
    flush_reason: String,
    io_backend: &'static str,
    sync_method: SyncMethod,
    way_reason: String,
    warning: Option<&'static str>,
}

fn advise(found: &Found) -> Advice {
    let auto = found.candidates.iter().find(|candidate| candidate.way == found.auto);
    let is_safe = |way: Way| way.method == SyncMethod::Linked || found.honours_dsync;
    let best = found.candidates.iter().find(|candidate| is_safe(candidate.way));
    // By throughput and by the usual latency: one of them alone may be an accident of the moment.
    let is_better = |best: &Candidate, auto: &Candidate| {
        let p50 = |candidate: &Candidate| candidate.latencies.quantile(0.5).as_secs_f64();
        best.measured.ratio > auto.measured.ratio * WORTH_IT && p50(best) * WORTH_IT < p50(auto)
    };
    let better = match (best, auto) {
        (Some(best), Some(auto)) if is_better(best, auto) => Some(best.way),
        _ => None,
    };
    let (io_backend, sync_method, way_reason) = match better {
        Some(way) => {
            let backend = if way.backend == "portable" { "portable" } else { "uring" };
            (backend, way.method, format!("{way} is the fastest here; auto would be {}", found.auto))
        }
        None => ("auto", SyncMethod::Auto, format!("auto is {} here, and nothing is clearly faster", found.auto)),
    };
    let used = better.unwrap_or(found.auto);
    let latencies = found.candidates.iter().find(|candidate| candidate.way == used).map(|found| &found.latencies);
    let p99 = latencies.map_or(Duration::ZERO, |latencies| latencies.quantile(0.99));
    let (flush_mode, flush_reason) = match p99 > SLOW {
        false => (
            FlushMode::Cautious,
            format!("99 of 100 confirmations take at most {}, and none of them can be lost", time(p99)),
        ),
        true => (
            FlushMode::Normal,
            format!(
                "one cautious confirmation in a hundred takes longer than {}; normal answers at once, but a power cut may \
                 take the last 49 entries (if none may be lost, stay with cautious)",
                time(p99)
            ),
        ),
    };
    let warning = (found.raw.quantile(0.5) < FLUSH_TOO_FAST).then_some(
        "this device answers a flush faster than any medium can write: it has a cache that keeps its power, or it does \
         not flush at all; in the second case nothing on it survives a power cut",
    );
    Advice { flush_mode, flush_reason, io_backend, sync_method, way_reason, warning }
}

fn mode(mode: FlushMode) -> &'static str {
    match mode {
        FlushMode::Normal => "normal",
        FlushMode::Cautious => "cautious",
        FlushMode::Emergency => "emergency",
    }
}

/// With three digits that carry meaning.
fn time(duration: Duration) -> String {
    let us = duration.as_secs_f64() * 1e6;
    match us {
        us if us >= 1e6 => format!("{:.2} s", us / 1e6),
        us if us >= 1e4 => format!("{:.0} ms", us / 1e3),
        us if us >= 1e3 => format!("{:.1} ms", us / 1e3),
        us if us >= 10.0 => format!("{us:.0} us"),
        us => format!("{us:.1} us"),
    }
}

fn case_name(case: &Case) -> String {
    let (producers, batch) = (case.load.producers, case.load.batch);
    let who = counted(producers as u64, "producer", "producers");
    let how = if batch == 1 { String::new() } else { format!(", batches of {batch}") };
    format!("{}, {who}{how}", mode(case.mode))
}

/// For people.
pub(super) fn text(found: &Found) -> String {
    let mut out = format!("{}\n", found.place);
    let direct = if found.is_direct { "direct I/O" } else { "through the page cache" };
    let _ = writeln!(out, "\nRaw device ({direct})");
    let (p50, p99) = (found.raw.quantile(0.5), found.raw.quantile(0.99));
    let rate = found.raw_per_second;
    let _ = writeln!(
        out,
        "  {:<34}{rate:>10.0} /s   p50 {:>8}  p99 {:>8}  = R",
        "4 KiB write and sync",
        time(p50),
        time(p99)
    );
    let _ = writeln!(out, "  {:<34}{:>8.0} MB/s", "1 MiB write and sync", found.write_bandwidth / 1e6);
    let _ = writeln!(out, "  {:<34}{:>8.0} MB/s", "1 MiB read", found.read_bandwidth / 1e6);
    let _ = writeln!(out, "\nEngine, entries of 200 bytes, confirmed one by one, cautious, 1 producer");
    for candidate in &found.candidates {
        line(&mut out, &candidate.way.to_string(), &candidate.measured, &candidate.latencies);
    }
    let _ = writeln!(out, "\nThis device sustains, over {}", found.candidates[0].way);
    for case in &found.cases {
        line(&mut out, &case_name(case), &case.measured, &case.latencies);
    }
    let Measured { value, ratio, .. } = found.pipelined;
    let _ = writeln!(out, "  {:<34}{value:>10.0} /s   {ratio:.2} of the raw write bandwidth", "cautious, pipelined");
    let advice = advise(found);
    let _ = writeln!(out, "\nRecommendation");
    let _ = writeln!(out, "  flush_mode = \"{}\": {}", mode(advice.flush_mode), advice.flush_reason);
    let _ = writeln!(
        out,
        "  io_backend = \"{}\", sync_method = \"{}\": {}",
        advice.io_backend, advice.sync_method, advice.way_reason
    );
    if let Some(warning) = advice.warning {
        let _ = writeln!(out, "  Beware: {warning}.");
    }
    out
}

fn line(out: &mut String, name: &str, measured: &Measured, latencies: &Histogram) {
    let (p50, p99) = (time(latencies.quantile(0.5)), time(latencies.quantile(0.99)));
    let Measured { value, ratio, .. } = measured;
    let _ = writeln!(out, "  {name:<34}{value:>10.0} /s   p50 {p50:>8}  p99 {p99:>8}  {ratio:.2} R");
}

/// The JSON object; its keys are a promise to scripts.
#[derive(Serialize)]
struct Json<'a> {
    device: &'a str,
    file_system: &'a str,
    kernel: &'a str,
    direct_io: bool,
    raw: JsonRaw,
    candidates: Vec<JsonCase>,
    cases: Vec<JsonCase>,
    recommendation: JsonAdvice,
}

#[derive(Serialize)]
struct JsonRaw {
    writes_per_second: f64,
    p50_us: f64,
    p99_us: f64,
    write_bytes_per_second: f64,
    read_bytes_per_second: f64,
}

#[derive(Serialize)]
struct JsonCase {
    io_backend: &'static str,
    sync_method: String,
    flush_mode: &'static str,
    producers: usize,
    batch: usize,
    pipelined: bool,
    entries_per_second: f64,
    /// Of [`JsonRaw::writes_per_second`]; of the write bandwidth where pipelined.
    ratio: f64,
    p50_us: Option<f64>,
    p99_us: Option<f64>,
}

#[derive(Serialize)]
struct JsonAdvice {
    flush_mode: &'static str,
    flush_mode_reason: String,
    io_backend: &'static str,
    sync_method: String,
    sync_method_reason: String,
    warning: Option<&'static str>,
}

/// For scripts.
pub(super) fn json(found: &Found) -> String {
    let us = |latencies: &Histogram, quantile: f64| latencies.quantile(quantile).as_secs_f64() * 1e6;
    let best = found.candidates[0].way;
    let case =
        |way: Way, mode: &'static str, (producers, batch), measured: &Measured, latencies: Option<&Histogram>| {
            JsonCase {
                io_backend: way.backend,
                sync_method: way.method.to_string(),
                flush_mode: mode,
                producers,
                batch,
                pipelined: latencies.is_none(),
                entries_per_second: measured.value,
                ratio: measured.ratio,
                p50_us: latencies.map(|latencies| us(latencies, 0.5)),
                p99_us: latencies.map(|latencies| us(latencies, 0.99)),
            }
        };
    let candidates = found.candidates.iter();
    let cases = found.cases.iter().map(|found| {
        let load = (found.load.producers, found.load.batch);
        case(best, mode(found.mode), load, &found.measured, Some(&found.latencies))
    });
    let advice = advise(found);
    let object = Json {
        device: &found.place.device,
        file_system: &found.place.file_system,
        kernel: &found.place.kernel,
        direct_io: found.is_direct,
        raw: JsonRaw {
            writes_per_second: found.raw_per_second,
            p50_us: us(&found.raw, 0.5),
            p99_us: us(&found.raw, 0.99),
            write_bytes_per_second: found.write_bandwidth,
            read_bytes_per_second: found.read_bandwidth,
        },
        candidates: candidates
            .map(|found| case(found.way, "cautious", (1, 1), &found.measured, Some(&found.latencies)))
            .collect(),
        cases: cases.chain([case(best, "cautious", (1, 100), &found.pipelined, None)]).collect(),
        recommendation: JsonAdvice {
            flush_mode: mode(advice.flush_mode),
            flush_mode_reason: advice.flush_reason,
            io_backend: advice.io_backend,
            sync_method: advice.sync_method.to_string(),
            sync_method_reason: advice.way_reason,
            warning: advice.warning,
        },
    };
    let mut text = serde_json::to_string(&object).expect("numbers and text always serialise");
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::Place;

    const DSYNC: Way = Way { backend: "io_uring", method: SyncMethod::Dsync };
    const LINKED: Way = Way { backend: "io_uring", method: SyncMethod::Linked };
    const PORTABLE: Way = Way { backend: "portable", method: SyncMethod::Linked };

    fn candidate(way: Way, ratio: f64, us: u64) -> Candidate {
        let mut latencies = Histogram::default();
        latencies.add(Duration::from_micros(us));
        Candidate { way, measured: Measured { value: 1e6 / us as f64, raw: 5000.0, ratio }, latencies }
    }

    /// A device on which these ways were measured, the best one first, and `auto` is the first of the settings.
    fn found(auto: Way, candidates: Vec<Candidate>) -> Found {
        let mut raw = Histogram::default();
        raw.add(Duration::from_micros(200));
        Found {
            place: Place {
                device: "mmcblk0".to_owned(),
                file_system: "ext4".to_owned(),
                kernel: "linux".to_owned(),
                cpus: 4,
            },
            is_direct: true,
            honours_dsync: true,
            raw,
            raw_per_second: 5000.0,
            write_bandwidth: 40e6,
            read_bandwidth: 90e6,
            auto,
            candidates,
            cases: Vec::new(),
            pipelined: Measured { value: 1e5, raw: 40e6, ratio: 0.5 },
        }
    }

    #[test]
    fn nothing_is_set_for_the_sake_of_noise() {
        let advice = advise(&found(DSYNC, vec![candidate(PORTABLE, 0.99, 200), candidate(DSYNC, 0.90, 220)]));
        assert_eq!((advice.io_backend, advice.sync_method), ("auto", SyncMethod::Auto));
        assert_eq!(advice.flush_mode, FlushMode::Cautious);
        assert!(advice.warning.is_none());
    }

    #[test]
    fn what_is_clearly_faster_is_named() {
        let advice = advise(&found(DSYNC, vec![candidate(PORTABLE, 0.99, 200), candidate(DSYNC, 0.60, 350)]));
        assert_eq!((advice.io_backend, advice.sync_method), ("portable", SyncMethod::Linked));
        assert!(advice.way_reason.contains("auto would be io_uring, dsync"), "{}", advice.way_reason);
    }

    #[test]
    fn a_flag_that_may_be_ignored_is_never_recommended() {
        let mut found = found(LINKED, vec![candidate(DSYNC, 3.0, 60), candidate(LINKED, 0.7, 300)]);
        found.honours_dsync = false;
        assert_eq!(advise(&found).sync_method, SyncMethod::Auto);
    }

    #[test]
    fn a_slow_card_is_told_what_normal_mode_costs() {
        let advice = advise(&found(LINKED, vec![candidate(LINKED, 0.9, 450_000)]));
        assert_eq!(advice.flush_mode, FlushMode::Normal);
        assert!(advice.flush_reason.contains("the last 49 entries"), "{}", advice.flush_reason);
    }

    #[test]
    fn a_flush_that_is_too_fast_is_pointed_out() {
        let mut found = found(DSYNC, vec![candidate(DSYNC, 0.9, 9)]);
        found.raw = Histogram::default();
        found.raw.add(Duration::from_micros(4));
        assert!(advise(&found).warning.is_some());
        assert!(text(&found).contains("Beware: this device answers a flush faster"));
    }

    #[test]
    fn json_has_every_case() {
        let object = json(&found(DSYNC, vec![candidate(DSYNC, 0.9, 220)]));
        let value: serde_json::Value = serde_json::from_str(&object).unwrap();
        assert_eq!(value["candidates"][0]["sync_method"], "dsync");
        assert_eq!(value["cases"][0]["pipelined"], true);
        assert!(value["cases"][0]["p50_us"].is_null());
        assert_eq!(value["recommendation"]["io_backend"], "auto");
    }
}
