//! Producers that number their entries: each entry exactly once, whatever dies.

use std::collections::BTreeMap;
use std::net::TcpStream;

use rustix::process::Signal;

use super::{Client, Served, lsn, stored};
use crate::program::Place;

fn serve(place: &Place) -> Served {
    place.serve(&["--tcp", "127.0.0.1:0", "--confirm"])
}

/// Says HELLO; returns the number that the daemon remembers.
#[track_caller]
fn hello(client: &mut Client<TcpStream>, id: &str) -> u64 {
    client.send(format!("HELLO {id}\n").as_bytes());
    let answer = client.line();
    answer.strip_prefix("OK HELLO ").and_then(|number| number.parse().ok()).unwrap_or_else(|| panic!("{answer:?}"))
}

#[test]
fn numbers_that_are_stored_are_not_stored_again_also_after_a_restart() {
    let place = Place::new();
    let served = serve(&place);
    let mut client = served.tcp();
    assert_eq!(hello(&mut client, "till-1"), 0);
    client.send(b"1 one\n2 two\n2 other\n1 one\n5  five \n");
    assert_eq!(client.lines(2), ["OK 1", "OK 2"]);
    let duplicates = client.lines(2);
    assert!(duplicates.iter().all(|answer| ["OK dup", "OK 2"].contains(&answer.as_str())), "{duplicates:?}");
    assert_eq!(client.line(), "OK 3");
    client.send(b"5 again\n");
    assert_eq!(client.line(), "OK 3", "the last one's LSN is known");
    let mut other = served.tcp();
    assert_eq!(hello(&mut other, "till-2"), 0);
    other.send(b"1 other\n");
    assert_eq!(other.line(), "OK 4");
    drop((client, other));
    let ran = served.stop();
    assert!(ran.stderr.contains("the client till-1 jumped from number 2 to 5"), "{}", ran.stderr);

    let served = serve(&place);
    let mut client = served.tcp();
    assert_eq!(hello(&mut client, "till-1"), 5);
    client.send(b"4 x\n5 x\n6 six\n");
    assert_eq!(client.lines(3), ["OK dup", "OK 3", "OK 5"]);
    served.stop();
    assert_eq!(place.payloads(), ["one", "two", " five ", "other", "six"]);
}

#[test]
fn a_number_that_is_none_ends_the_connection_and_a_large_payload_does_not() {
    let place = Place::new();
    let served =
        place.serve_config("[ingester]\nline_bytes_max = 4\n[sources]\ntcp = [\"127.0.0.1:0\"]\nconfirm = true\n");
    for line in ["x", "0 x", "2", "-3 x", "18446744073709551616 x"] {
        let mut client = served.tcp();
        hello(&mut client, "till");
        client.send(format!("{line}\n9 x\n").as_bytes());
        let rest = client.rest();
        assert!(rest.starts_with("ERR number ") && rest.lines().count() == 1, "{line}: {rest}");
    }
    let mut client = served.tcp();
    hello(&mut client, "till");
    client.send(b"1 1234\n2 12345\n18446744073709551615 last\n");
    assert_eq!(client.line(), "OK 1");
    assert_eq!(client.line(), "ERR too-large the entry is longer than 4 bytes");
    assert_eq!(client.line(), "OK 2");
    for id in ["", " x", "a b", "é", &"x".repeat(65)] {
        let mut client = served.tcp();
        client.send(format!("HELLO {id}\n").as_bytes());
        assert!(client.rest().starts_with("ERR hello "), "{id}");
    }
    served.stop();
}

#[test]
fn a_new_connection_takes_the_place_of_the_old_one() {
    let place = Place::new();
    let served = serve(&place);
    let mut old = served.tcp();
    hello(&mut old, "till");
    let entry = |number: u64| format!("entry {number} {}", "x".repeat(500));
    let lines: String = (1..=20_000).map(|number| format!("{number} {}\n", entry(number))).collect();
    let mut stream = old.get().try_clone().unwrap();
    let writer = std::thread::spawn(move || std::io::Write::write_all(&mut stream, lines.as_bytes()));
    for _ in 0..10 {
        lsn(&old.line());
    }
    let mut new = served.tcp();
    // What is said behind HELLO waits, too.
    new.send(b"HELLO till\n");
    let answer = new.line();
    let number: u64 = answer.strip_prefix("OK HELLO ").unwrap().parse().unwrap();
    let told = old.last_words();
    let _ = writer.join().unwrap();
    let (answers, farewell) = told.split_at(told.find("ERR").expect("it is told why"));
    assert_eq!(answers.lines().count() as u64 + 10, number, "everything that was taken was confirmed first");
    assert_eq!(farewell, "ERR replaced another connection has said HELLO for this client\n");
    new.send(format!("{number} x\n{} next\n", number + 1).as_bytes());
    assert_eq!(new.lines(2), [format!("OK {number}"), format!("OK {}", number + 1)]);
    served.stop();
    let expected = (1..=number).map(entry).chain(["next".to_owned()]);
    assert!(expected.eq(place.payloads()));
}

#[test]
fn a_connection_that_was_replaced_may_outlive_its_client() {
    let place = Place::new();
    let served = serve(&place);
    let (mut first, mut second) = (served.tcp(), served.tcp());
    hello(&mut first, "till");
    hello(&mut second, "till");
    second.get().shutdown(std::net::Shutdown::Both).unwrap();
    assert!(first.last_words().starts_with("ERR replaced "));
    drop((first, second));
    let mut third = served.tcp();
    assert_eq!(hello(&mut third, "till"), 0);
    third.send(b"1 one\n");
    assert_eq!(third.line(), "OK 1");
    served.stop();
}

#[test]
fn a_full_table_turns_away_until_a_client_is_forgotten() {
    let place = Place::new();
    let config = "[ingester]\nclients_max = 2\n[sources]\ntcp = [\"127.0.0.1:0\"]\nconfirm = true\n";
    let served = place.serve_config(config);
    for id in ["a", "b"] {
        let mut client = served.tcp();
        hello(&mut client, id);
        client.send(b"1 x\n");
        lsn(&client.line());
        client.end_writing();
        assert_eq!(client.rest(), "");
    }
    let mut third = served.tcp();
    third.send(b"HELLO c\n");
    assert_eq!(third.rest(), "ERR clients the store remembers 2 clients, and no more are allowed\n");
    let mut control = served.control();
    control.send(b"FORGET a\nFORGET a\n");
    assert_eq!(control.lines(2), ["OK a", "ERR client a is not known"]);
    let mut third = served.tcp();
    assert_eq!(hello(&mut third, "c"), 0);
    third.send(b"1 x\n");
    lsn(&third.line());
    control.send(b"FORGET c\n");
    assert!(control.line().starts_with("ERR client c is connected"));
    drop((third, control));
    served.stop();

    let served = place.serve_config(config);
    let mut full = served.tcp();
    full.send(b"HELLO a\n");
    assert!(full.rest().starts_with("ERR clients "), "what was forgotten is forgotten after a restart, too");
    let mut known = served.tcp();
    assert_eq!(hello(&mut known, "c"), 1);
    served.stop();
}

#[test]
fn each_entry_is_stored_once_through_kills_of_the_daemon() {
    const KILLS: u64 = 25;
    for mode in ["cautious", "normal"] {
        let place = Place::new();
        let (mut next, mut confirmed) = (1, BTreeMap::new());
        for kill in 0..=KILLS {
            let served = place.serve(&["--tcp", "127.0.0.1:0", "--confirm", "--flush-mode", mode]);
            let mut client = served.tcp();
            let remembered = hello(&mut client, "till");
            assert!(remembered < next + 500, "it remembers what was never sent");
            if mode == "cautious" {
                let told = confirmed.keys().next_back().copied().unwrap_or(0);
                assert!(remembered >= told, "{told} was confirmed, {remembered} is remembered");
            }
            // Some are sent once more, as by a client that does not trust what it is told.
            next = remembered.saturating_sub(kill % 3) + 1;
            confirmed.retain(|&number, _| number <= remembered);
            let lines: String = (next..next + 500).map(|number| format!("{number} entry {number}\n")).collect();
            client.send(lines.as_bytes());
            for number in (next..next + 500).take((kill as usize * 37) % 450) {
                let answer = client.line();
                if number > remembered {
                    confirmed.insert(number, lsn(&answer));
                } else {
                    assert!(answer.starts_with("OK "), "{answer}");
                }
            }
            if kill < KILLS {
                served.signal(Signal::KILL);
                served.end();
            } else {
                client.end_writing();
                client.rest();
                served.stop();
            }
        }
        let stored: Vec<(u64, String)> =
            stored(&place).into_iter().map(|(lsn, data)| (lsn, String::from_utf8(data).unwrap())).collect();
        let expected = (1..=stored.len()).map(|number| format!("entry {number}"));
        assert!(expected.eq(stored.iter().map(|(_, data)| data.clone())), "{mode}: not each entry once, in order");
        for (number, lsn) in confirmed {
            assert!(stored.contains(&(lsn, format!("entry {number}"))), "{mode}: {number} was confirmed as {lsn}");
        }
    }
}
