//! The log inside another program: open it, append from several threads, read everything back.
//!
//! Run with `cargo run --release --no-default-features --example embed -- DIRECTORY`: it needs the library alone, without
//! what the program `kifa` brings.

use kifa::{Log, Options, Reader, ScanRange};

fn main() -> kifa::Result<()> {
    let dir = std::env::args().nth(1).unwrap_or_else(|| "embed-data".to_owned());
    let log = Log::open(&dir, Options::default())?;
    std::thread::scope(|scope| {
        for till in 0..4 {
            let log = &log;
            scope.spawn(move || {
                for receipt in 0..100 {
                    let entry = format!(r#"{{"till":{till},"receipt":{receipt},"amount":1250}}"#);
                    log.append(entry.as_bytes()).expect("the receipt is printed only once this returned");
                }
            });
        }
    });
    let stats = log.stats()?;
    println!("{} entries in {} groups, durable up to {}", stats.entries, stats.groups, stats.durable_lsn);
    log.close()?;

    let reader = Reader::open(&dir)?;
    let mut scan = reader.scan(ScanRange::default())?;
    let mut entries = 0;
    while let Some(entry) = scan.next_entry()? {
        entries += 1;
        if entries == 1 {
            println!("first: [{}] {}", entry.lsn, String::from_utf8_lossy(entry.payload));
        }
    }
    println!("{entries} entries");
    Ok(())
}
