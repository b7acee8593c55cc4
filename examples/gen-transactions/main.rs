//! Writes synthetic transactions of points of sale to standard output, one per line; or checks such lines.
//!
//! ```text
//! cargo run --release --example gen-transactions -- --count 100000 --seed 7 | kifa daemon --stdin -d ./data
//! kifa query -d ./data -o json | cargo run --release --example gen-transactions -- --verify
//! ```
// It looks at the machine's clock and sleeps on it.
#![allow(clippy::disallowed_methods)]

mod transactions;

use std::io::{self, BufRead, BufWriter, Write};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;

use transactions::{Profile, Seen, check};

/// Synthetic transactions: each line is JSON, carries its number and its own checksum, and is the same for the same seed
#[derive(Parser, Debug)]
struct Arguments {
    /// Decides every line
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Lines per second; 0 for as many as standard output takes
    #[arg(long, default_value_t = 0)]
    rate: u64,
    /// Number of lines; 0 goes on until nobody reads any more
    #[arg(long, default_value_t = 1000)]
    count: u64,
    /// Number of the first line
    #[arg(long, default_value_t = 1)]
    first: u64,
    /// Bytes that short lines are filled up to
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u64).range(..=1_000_000))]
    size: u64,
    /// Number of merchants
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..))]
    merchants: u64,
    /// Read lines from standard input instead (as written, or as `kifa query -o json` shows them), and count what is lost,
    /// doubled or damaged; exit code 1 if anything is
    #[arg(long)]
    verify: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let done = if arguments.verify { verify() } else { generate(&arguments).map(|()| true) };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        // Whoever read has had enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("gen-transactions: {error}");
            ExitCode::from(2)
        }
    }
}

fn generate(arguments: &Arguments) -> io::Result<()> {
    let profile = Profile { seed: arguments.seed, size_bytes: arguments.size as usize, merchants: arguments.merchants };
    let mut out = BufWriter::new(io::stdout().lock());
    let start = Instant::now();
    let end = if arguments.count == 0 { u64::MAX } else { arguments.first.saturating_add(arguments.count) };
    for seq in arguments.first..end {
        if arguments.rate > 0 {
            let due = Duration::from_secs_f64((seq - arguments.first) as f64 / arguments.rate as f64);
            if let Some(wait) = due.checked_sub(start.elapsed()) {
                out.flush()?;
                std::thread::sleep(wait);
            }
        }
        out.write_all(profile.line(seq).as_bytes())?;
        out.write_all(b"\n")?;
    }
    out.flush()
}

/// Whether nothing was lost, doubled or damaged.
fn verify() -> io::Result<bool> {
    let mut runs: std::collections::BTreeMap<u64, Seen> = std::collections::BTreeMap::new();
    let (mut lines, mut duplicated, mut damaged) = (0_u64, 0_u64, 0_u64);
    for line in io::stdin().lock().split(b'\n') {
        let line = line?;
        lines += 1;
        let text = String::from_utf8_lossy(&line);
        let shown: Option<serde_json::Value> = serde_json::from_str(&text).ok();
        let payload = shown.as_ref().and_then(|shown| shown.get("data")?.as_str()).unwrap_or(&text);
        match check(payload) {
            Ok((run, seq)) => duplicated += u64::from(!runs.entry(run).or_default().insert(seq)),
            Err(why) => {
                damaged += 1;
                eprintln!("line {lines}: {why}");
            }
        }
    }
    let lost: u64 = runs.values().map(Seen::missing).sum();
    println!("lines {lines}, lost in between {lost}, duplicated {duplicated}, damaged {damaged}");
    Ok(lost + duplicated + damaged == 0)
}
