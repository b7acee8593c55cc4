//! What every case needs: how large to be, where to write, the table of results, and the lines for scripts.

pub(crate) mod store;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use criterion::Criterion;
use kifa::bench::{Histogram, Measured, PAYLOAD_BYTES, Payloads, Place, Raw};
use kifa::{FlushMode, IoBackend, Log, Options};
use tempfile::TempDir;

/// Bytes of the file that the raw loops write to: a segment's.
const RAW_BLOCKS_BYTES: u64 = 16 << 20;

/// The backends, in the order of the table's columns.
pub(crate) const BACKENDS: [(&str, IoBackend); 2] = [("io_uring", IoBackend::Uring), ("portable", IoBackend::Portable)];

/// What a case is held against: the least that is acceptable, and the aim. Lower is better where `is_ceiling`.
#[derive(Clone, Copy)]
pub(crate) struct Target {
    pub(crate) at_least: f64,
    pub(crate) aim: f64,
    pub(crate) is_ceiling: bool,
}

/// A target that is to be reached.
pub(crate) fn floor(at_least: f64, aim: f64) -> Option<Target> {
    Some(Target { at_least, aim, is_ceiling: false })
}

/// A target that is not to be exceeded.
pub(crate) fn ceiling(at_most: f64, aim: f64) -> Option<Target> {
    Some(Target { at_least: at_most, aim, is_ceiling: true })
}

/// One line of the table.
struct Row {
    case: String,
    unit: &'static str,
    /// One for each backend, or one alone where the backend makes no difference.
    values: Vec<f64>,
    target: Option<Target>,
    note: String,
}

/// A run of the benches.
pub(crate) struct Bench {
    pub(crate) is_quick: bool,
    words: Vec<String>,
    dir: TempDir,
    pub(crate) payloads: Payloads,
    rows: Vec<Row>,
    begin: Instant,
}

impl Bench {
    /// Reads the command line and says where this is.
    pub(crate) fn start() -> Bench {
        let args: Vec<String> = std::env::args().skip(1).collect();
        let asked = |name: &str| args.iter().any(|arg| arg == name);
        // `cargo test --benches` leaves `--bench` out: then it is only to be shown that everything runs.
        let is_quick =
            asked("--quick") || !asked("--bench") || std::env::var_os("KIFA_BENCH_QUICK").is_some_and(|on| on == "1");
        let words = args.into_iter().filter(|arg| !arg.starts_with('-')).collect();
        // The build directory: a /tmp may be memory.
        let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("the build directory can be written to");
        let bench = Bench {
            is_quick,
            words,
            dir,
            payloads: Payloads::new(PAYLOAD_BYTES),
            rows: Vec::new(),
            begin: Instant::now(),
        };
        println!("kifa {}, {} mode", env!("CARGO_PKG_VERSION"), if is_quick { "quick" } else { "full" });
        println!("{}", Place::of(bench.dir()));
        for (name, backend) in BACKENDS {
            println!("{name:<12} {}", bench.describe(backend));
        }
        println!("entries:     {PAYLOAD_BYTES} bytes\n");
        bench
    }

    /// Sync method and kind of I/O that a backend comes to here.
    fn describe(&self, backend: IoBackend) -> String {
        let dir = self.subdir("describe");
        let described = Log::open(&dir, options(backend, FlushMode::Cautious)).and_then(|log| log.stats());
        remove(&dir);
        match described {
            Ok(stats) => {
                format!("{} syncs, {} I/O", stats.sync_method, if stats.direct_io { "direct" } else { "buffered" })
            }
            Err(error) => format!("not to be had here: {error}"),
        }
    }

    /// Where this run writes; removed at its end.
    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// A directory of this run; what an earlier case left under that name is removed.
    pub(crate) fn subdir(&self, name: &str) -> PathBuf {
        let dir = self.dir().join(name);
        remove(&dir);
        dir
    }

    /// Whether a case is to be run.
    pub(crate) fn wants(&self, case: &str) -> bool {
        self.words.is_empty() || self.words.iter().any(|word| case.contains(word.as_str()))
    }

    /// Whether one of these cases is.
    pub(crate) fn wants_any(&self, cases: &[&str]) -> bool {
        cases.iter().any(|case| self.wants(case))
    }

    /// The quick or the full figure.
    pub(crate) fn pick<T>(&self, quick: T, full: T) -> T {
        if self.is_quick { quick } else { full }
    }

    /// Criterion, as small or as large as this run; it reads its own options from the command line.
    pub(crate) fn criterion(&self) -> Criterion {
        let milliseconds = Duration::from_millis;
        let criterion = Criterion::default()
            .sample_size(self.pick(10, 40))
            .warm_up_time(milliseconds(self.pick(50, 1000)))
            .measurement_time(milliseconds(self.pick(300, 4000)));
        criterion.configure_from_args().without_plots()
    }

    /// A file for the raw loops.
    pub(crate) fn raw(&self, name: &str, bytes: u64) -> Raw {
        let path = self.dir().join(name);
        let _ = std::fs::remove_file(path);
        Raw::create(self.dir(), name, bytes, &|| true).expect("the build directory can be written to")
    }

    /// A file for the raw loop of single blocks.
    pub(crate) fn raw_blocks(&self) -> Raw {
        self.raw("raw-blocks", RAW_BLOCKS_BYTES)
    }

    /// Notes a result for each backend, and prints its lines for scripts.
    pub(crate) fn report(
        &mut self,
        case: &str,
        unit: &'static str,
        target: Option<Target>,
        values: &[f64],
        note: String,
    ) {
        match values {
            [value] => println!("ratio {case} {} {unit}", figure(*value)),
            values => {
                for ((backend, _), value) in BACKENDS.iter().zip(values) {
                    println!("ratio {case}/{backend} {} {unit}", figure(*value));
                }
            }
        }
        self.rows.push(Row { case: case.to_owned(), unit, values: values.to_vec(), target, note });
    }

    /// As [`Bench::report`], of ratios to the raw device; the note gives the figures themselves.
    pub(crate) fn report_ratios(
        &mut self,
        case: &str,
        unit: &'static str,
        target: Option<Target>,
        measured: &[Measured],
        more: &str,
        show: fn(f64) -> String,
    ) {
        let ratios: Vec<f64> = measured.iter().map(|measured| measured.ratio).collect();
        let values: Vec<String> = measured.iter().map(|measured| show(measured.value)).collect();
        let raw = measured.first().map_or(0.0, |measured| measured.raw);
        let note = format!("{}; raw {}{more}", values.join(", "), show(raw));
        self.report(case, unit, target, &ratios, note);
    }

    /// Prints the table.
    pub(crate) fn finish(self) {
        println!(
            "\n{:<22} {:>10} {:>10} {:<10} {:>8} {:>8}  ",
            "case", BACKENDS[0].0, BACKENDS[1].0, "unit", "target", "aim"
        );
        for row in &self.rows {
            let value = |at: usize| row.values.get(at).map_or_else(|| "=".to_owned(), |value| figure(*value));
            let (target, aim) = match row.target {
                Some(target) => {
                    let sign = if target.is_ceiling { "<=" } else { ">=" };
                    (format!("{sign} {}", target.at_least), format!("{}", target.aim))
                }
                None => (String::new(), String::new()),
            };
            let verdict = row.verdict();
            println!(
                "{:<22} {:>10} {:>10} {:<10} {target:>8} {aim:>8}  {verdict:<6} {}",
                row.case,
                value(0),
                value(1),
                row.unit,
                row.note
            );
        }
        println!("\n= : no backend takes part. The run took {:.0} s.", self.begin.elapsed().as_secs_f64());
    }
}

impl Row {
    /// How the first column, whose backend the targets are for, stands to the target.
    fn verdict(&self) -> &'static str {
        let (Some(target), Some(&value)) = (self.target, self.values.first()) else { return "" };
        let reaches = |bound: f64| if target.is_ceiling { value <= bound } else { value >= bound };
        match (reaches(target.aim), reaches(target.at_least)) {
            (true, _) => "aim",
            (false, true) => "met",
            (false, false) => "MISSED",
        }
    }
}

/// Options over a backend.
pub(crate) fn options(backend: IoBackend, mode: FlushMode) -> Options {
    let mut options = Options::default();
    options.io_backend = backend;
    options.flush_mode = mode;
    options
}

/// Removes a directory of ours, if it is there.
pub(crate) fn remove(dir: &Path) {
    let _ = std::fs::remove_dir_all(dir);
}

/// A number with as many digits as carry meaning.
pub(crate) fn figure(value: f64) -> String {
    match value.abs() {
        0.0 => "0".to_owned(),
        size if size >= 1000.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        size if size >= 0.1 => format!("{value:.2}"),
        _ => format!("{value:.4}"),
    }
}

/// `12.3 k/s`.
pub(crate) fn per_second(value: f64) -> String {
    match value {
        value if value >= 1e6 => format!("{:.2} M/s", value / 1e6),
        value if value >= 1e3 => format!("{:.1} k/s", value / 1e3),
        value => format!("{value:.0} /s"),
    }
}

/// `123 MB/s`.
pub(crate) fn bytes_per_second(value: f64) -> String {
    format!("{:.0} MB/s", value / 1e6)
}

/// `p50 63 µs, p99 120 µs`.
pub(crate) fn latencies(histogram: &Histogram) -> String {
    let us = |quantile: f64| histogram.quantile(quantile).as_secs_f64() * 1e6;
    let shown = |us: f64| if us < 10.0 { format!("{us:.1}") } else { format!("{us:.0}") };
    format!("p50 {} us, p99 {} us", shown(us(0.5)), shown(us(0.99)))
}
