//! What do `kifa daemon` and `kifa query` reach from end to end, and how much memory do they take?
//!
//! The release binary is run as its users run it; what it prints is read from a pipe.

use std::fs::{self, File};
use std::io::{self, BufWriter, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use kifa::bench::{median, turns};

use crate::common::store::Store;
use crate::common::{Bench, bytes_per_second, ceiling, floor, per_second, remove};
use crate::read::{scan_entries, store_entries};

/// Settings of the program on the command line.
pub(crate) const BACKEND_FLAGS: [&str; 2] = ["uring", "portable"];

pub(crate) fn run(bench: &mut Bench) {
    if bench.wants_any(&["daemon-stdin", "memory-loaded"]) {
        daemon(bench);
    }
    if bench.wants("memory-idle") {
        idle(bench);
    }
    if bench.wants_any(&["query-text", "query-json", "memory-query"]) {
        query(bench);
    }
}

pub(crate) fn kifa() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kifa"));
    command.env_clear().env("KIFA_LOG", "error").stdin(Stdio::null()).stdout(Stdio::null());
    command
}

/// Ingests a file of lines, from start to exit.
fn daemon(bench: &mut Bench) {
    let entries = bench.pick(200_000, 10_000_000);
    let input = write_lines(bench, entries);
    let payload_bytes = entries as f64 * bench.payloads.payload_bytes() as f64;
    let mut raw_file = bench.raw("raw-stream", bench.pick(64 << 20, 256 << 20));
    let slice = Duration::from_millis(bench.pick(200, 1000));
    let mut raw = || Ok::<_, io::Error>(raw_file.stream(slice)?.per_second());
    let mut peaks = [Vec::new(), Vec::new()];
    let [first_peaks, second_peaks] = &mut peaks;
    let ingest = |at: usize, peaks: &mut Vec<f64>| {
        let dir = bench.subdir("daemon");
        let mut command = kifa();
        command.args(["daemon", "--stdin", "--io-backend", BACKEND_FLAGS[at], "-d"]).arg(&dir);
        let begin = Instant::now();
        let mut child = command.stdin(File::open(&input)?).spawn()?;
        let peak = watch(&mut child)?;
        let seconds = begin.elapsed().as_secs_f64();
        peaks.push(peak);
        remove(&dir);
        Ok(payload_bytes / seconds)
    };
    let mut first = || ingest(0, first_peaks);
    let mut second = || ingest(1, second_peaks);
    let measured = turns(bench.pick(1, 3), &mut raw, &mut [&mut first, &mut second]).expect("the daemon stores");
    let more = format!("; {entries} lines, start to exit");
    bench.report_ratios("daemon-stdin", "BW", floor(0.12, 0.30), &measured, &more, bytes_per_second);
    let peaks: Vec<f64> = peaks.iter_mut().map(|values| median(values)).collect();
    let note = "peak of the daemon during daemon-stdin".to_owned();
    bench.report("memory-loaded", "MiB", ceiling(40.0, 24.0), &peaks, note);
    let _ = fs::remove_file(input);
}

fn write_lines(bench: &Bench, entries: u64) -> PathBuf {
    let path = bench.dir().join("lines");
    let write = || -> io::Result<()> {
        let mut file = BufWriter::with_capacity(1 << 20, File::create(&path)?);
        for number in 0..entries {
            file.write_all(bench.payloads.get(number as usize))?;
            file.write_all(b"\n")?;
        }
        // Its own way to the device must not fall into the daemon's time.
        file.into_inner()?.sync_all()
    };
    write().expect("the build directory can be written to");
    path
}

/// A daemon that has stored one line and waits for more.
fn idle(bench: &mut Bench) {
    let mut sizes = Vec::new();
    for flag in BACKEND_FLAGS {
        let dir = bench.subdir("idle");
        let mut command = kifa();
        command.args(["daemon", "--stdin", "--io-backend", flag, "-d"]).arg(&dir);
        let mut child = command.stdin(Stdio::piped()).spawn().expect("the program runs");
        let mut stdin = child.stdin.take().expect("it is piped");
        stdin.write_all(b"one line\n").expect("the daemon reads");
        std::thread::sleep(Duration::from_millis(bench.pick(800, 3000)));
        sizes.push(resident(child.id(), "VmRSS"));
        drop(stdin);
        child.wait().expect("it ends with its input");
        remove(&dir);
    }
    bench.report("memory-idle", "MiB", ceiling(12.0, 8.0), &sizes, "after one line".to_owned());
}

/// Prints entries to a pipe that is read as fast as it fills.
fn query(bench: &mut Bench) {
    let store = Store::of(bench, store_entries(bench));
    let entries = scan_entries(bench);
    let mut peak: f64 = 0.0;
    for (name, format) in [("query-text", "text"), ("query-json", "json")] {
        let mut rates = Vec::new();
        for _ in 0..bench.pick(2, 5) {
            let (seconds, own_peak) = print(&store.dir, entries, format).expect("the query prints");
            rates.push(entries as f64 / seconds);
            peak = peak.max(own_peak);
        }
        let rate = median(&mut rates);
        let note = format!("{entries} entries, {}, start to exit", per_second(rate));
        bench.report(name, "M/s", floor(2.0, 4.0), &[rate / 1e6], note);
    }
    let note = "peak of query-text and query-json".to_owned();
    bench.report("memory-query", "MiB", ceiling(20.0, 12.0), &[peak], note);
}

/// Seconds and peak of memory in MiB.
fn print(dir: &Path, entries: u64, format: &str) -> io::Result<(f64, f64)> {
    let mut command = kifa();
    command.args(["query", "-o", format, "--to-lsn", &entries.to_string(), "-d"]).arg(dir);
    let begin = Instant::now();
    let mut child = command.stdout(Stdio::piped()).spawn()?;
    let mut stdout = child.stdout.take().expect("it is piped");
    let mut buf = vec![0; 1 << 20];
    let (mut peak, mut reads, mut lines) = (0.0_f64, 0_u64, 0_u64);
    let mut last = 0;
    loop {
        let bytes = stdout.read(&mut buf)?;
        if bytes == 0 {
            break;
        }
        last = buf[bytes - 1];
        lines += bytes as u64;
        reads += 1;
        if reads.is_multiple_of(256) {
            peak = peak.max(resident(child.id(), "VmHWM"));
        }
    }
    let status = child.wait()?;
    assert!(status.success() && last == b'\n' && lines > entries * 200, "every entry is printed: {status}");
    Ok((begin.elapsed().as_secs_f64(), peak))
}

/// Waits for a process to end well; its peak of memory in MiB.
fn watch(child: &mut Child) -> io::Result<f64> {
    let mut peak: f64 = 0.0;
    loop {
        peak = peak.max(resident(child.id(), "VmHWM"));
        if let Some(status) = child.try_wait()? {
            assert!(status.success(), "the daemon ended with {status}");
            return Ok(peak);
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// A field of /proc/PID/status that is in kB, in MiB; 0 where it cannot be had.
fn resident(pid: u32, field: &str) -> f64 {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<f64>().ok());
    kib.unwrap_or(0.0) / 1024.0
}
