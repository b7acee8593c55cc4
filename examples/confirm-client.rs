//! A producer whose entries are stored exactly once, whatever crashes: `confirm-client ADDRESS ID < entries`.
//!
//! Started again with the same input and id it goes on behind what is stored. Try it:
//! `kifa daemon --tcp 127.0.0.1:7000 --confirm -d ./data`, then `seq 100000 | confirm-client 127.0.0.1:7000 till-1`.

// It waits before it tries again.
#![allow(clippy::disallowed_methods)]

use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::net::{Shutdown, TcpStream};
use std::{env, thread, time::Duration};

fn main() {
    let [_, address, id] =
        env::args().collect::<Vec<_>>().try_into().expect("usage: confirm-client ADDRESS ID < entries");
    let entries: Vec<String> = io::stdin().lines().map_while(Result::ok).filter(|line| !line.is_empty()).collect();
    while let Err(error) = send(&address, &id, &entries) {
        eprintln!("{error}; trying again");
        thread::sleep(Duration::from_secs(1));
    }
}

/// Sends what is not stored yet, and returns when all of it is.
fn send(address: &str, id: &str, entries: &[String]) -> io::Result<()> {
    let stream = TcpStream::connect(address)?;
    let mut answers = BufReader::new(stream.try_clone()?).lines();
    let mut answer = move || answers.next().ok_or(io::ErrorKind::UnexpectedEof)?;
    writeln!(&stream, "HELLO {id}")?;
    let greeting = answer()?;
    let stored = greeting.strip_prefix("OK HELLO ").and_then(|number| number.parse().ok());
    let stored: usize = stored.ok_or_else(|| io::Error::other(greeting))?;
    thread::scope(|scope| {
        // Sending does not wait for answers: that is what makes it fast.
        let sending = scope.spawn(|| {
            let mut out = BufWriter::new(&stream);
            (stored..entries.len()).try_for_each(|at| writeln!(out, "{} {}", at + 1, entries[at]))?;
            out.flush()
        });
        let answered = (stored..entries.len()).try_for_each(|_| {
            let answer = answer()?;
            if answer.starts_with("OK ") { Ok(()) } else { Err(io::Error::other(answer)) }
        });
        if answered.is_err() {
            // Ends a write that nobody reads, too.
            let _ = stream.shutdown(Shutdown::Both);
        }
        answered.and(sending.join().expect("it does not panic"))
    })
}
