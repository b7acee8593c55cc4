//! Entries over TCP and Unix sockets: framings, pieces, bytes, sizes, answers.

use std::io::Write as _;
use std::net::TcpStream;

use super::{Client, lsn, stored, unix};
use crate::program::Place;

const MIB: usize = 1 << 20;

#[test]
fn each_framing_stores_exactly_the_producers_bytes_and_answers_in_order() {
    let place = Place::new();
    let (octet, nul) = (place.beside("octet"), place.beside("nul"));
    let served = place.serve_config(&format!(
        "[sources]\nconfirm = true\ntcp = [\"127.0.0.1:0\"]\nunix = [\n\
         {{ path = {octet:?}, framing = \"octet\", name = \"counted\" }},\n{{ path = {nul:?}, framing = \"nul\" }}]\n"
    ));
    let cases: [(&[u8], &[&[u8]]); 3] = [
        (b"a\r\n\n\r\n b \n\0\xff\xfe\nc\r\r\n", &[b"a", b" b ", b"\0\xff\xfe", b"c\r"]),
        (b"3 a\nb1 \r2 \xff\0", &[b"a\nb", b"\r", b"\xff\0"]),
        (b"a\r\n\0\0b\0", &[b"a\r\n", b"b"]),
    ];
    let mut expected = Vec::new();
    let mut tcp = served.tcp();
    let (mut octet, mut nul) = (unix(&octet), unix(&nul));
    for (client, (input, entries)) in cases.into_iter().enumerate() {
        let mut answers = Vec::new();
        for byte in input.chunks(1) {
            match client {
                0 => tcp.send(byte),
                1 => octet.send(byte),
                _ => nul.send(byte),
            }
        }
        for _ in entries {
            answers.push(match client {
                0 => tcp.line(),
                1 => octet.line(),
                _ => nul.line(),
            });
        }
        expected.extend(entries.iter().map(|entry| entry.to_vec()));
        assert_eq!(lsn(answers.last().unwrap()), expected.len() as u64);
    }
    drop((tcp, octet, nul));
    served.stop();
    let data: Vec<Vec<u8>> = stored(&place).into_iter().map(|(_, data)| data).collect();
    assert_eq!(data, expected);
    let counted = place.run("query", &["--source", "counted", "-o", "json"]).expect(0);
    assert_eq!(counted.text().lines().count(), 3);
}

#[test]
fn a_length_that_is_none_ends_the_connection_behind_what_was_stored() {
    let place = Place::new();
    let path = place.beside("s");
    let served = place
        .serve_config(&format!("[sources]\nunix = [{{ path = {path:?}, framing = \"octet\", confirm = true }}]\n"));
    let mut client = unix(&path);
    client.send(b"1 a<134> oops");
    assert_eq!(client.line(), "OK 1");
    assert!(client.rest().starts_with("ERR framing "));
    served.stop();
    assert_eq!(place.payloads(), ["a"]);
}

#[test]
fn a_line_of_1_mib_is_stored_and_one_byte_more_is_refused_in_its_place() {
    let place = Place::new();
    let served = place.serve(&["--tcp", "127.0.0.1:0", "--confirm"]);
    let mut client = served.tcp();
    let mut input = b"first\n".to_vec();
    for bytes in [MIB, MIB + 1] {
        input.resize(input.len() + bytes, b'x');
        input.extend_from_slice(b"\r\n");
    }
    input.extend_from_slice(b"last\n");
    client.send(&input);
    assert_eq!(client.lines(2), ["OK 1", "OK 2"]);
    assert_eq!(client.line(), "ERR too-large the entry is longer than 1048576 bytes");
    assert_eq!(client.line(), "OK 3");
    let status = served.status();
    assert_eq!((&status["sources"][0]["stored"], &status["sources"][0]["refused"]), (&3.into(), &1.into()));
    served.stop();
    assert_eq!(place.payloads().iter().map(String::len).collect::<Vec<_>>(), [5, MIB, 4]);
}

#[test]
fn without_confirmations_nothing_is_answered_but_refusals() {
    let place = Place::new();
    let served = place.serve_config("[ingester]\nline_bytes_max = 5\n[sources]\ntcp = [\"127.0.0.1:0\"]\n");
    let mut client = served.tcp();
    client.send(b"HELLO\n12345\n123456\nlast\n");
    client.end_writing();
    assert_eq!(client.rest(), "ERR too-large the entry is longer than 5 bytes\n");
    place.wait_for_entries(3);
    served.stop();
    assert_eq!(place.payloads(), ["HELLO", "12345", "last"]);
}

#[test]
fn who_has_sent_everything_still_gets_its_answers_and_an_unfinished_line_is_no_entry() {
    let place = Place::new();
    let served = place.serve(&["--tcp", "127.0.0.1:0", "--confirm"]);
    let mut client = served.tcp();
    client.send(b"one\ntwo\nhalf");
    client.end_writing();
    assert_eq!(
        client.rest(),
        "OK 1\nOK 2\nERR unfinished the last line is not stored: the connection ended within it\n"
    );
    let ran = served.stop();
    assert!(ran.stderr.contains("the last line of 127.0.0.1:"), "{}", ran.stderr);
    assert_eq!(place.payloads(), ["one", "two"]);
}

#[test]
fn pipelined_entries_are_answered_in_order_each_once() {
    const ENTRIES: usize = 50_000;
    let place = Place::new();
    let served = place.serve(&["--tcp", "127.0.0.1:0", "--confirm"]);
    let mut clients: Vec<_> = (0..4).map(|_| served.tcp()).collect();
    let mut writers = Vec::new();
    for (number, client) in clients.iter().enumerate() {
        let mut stream = client.get().try_clone().unwrap();
        writers.push(std::thread::spawn(move || {
            let lines: String = (0..ENTRIES).map(|line| format!("{number} {line}\n")).collect();
            stream.write_all(lines.as_bytes()).unwrap();
        }));
    }
    let mut told = Vec::new();
    for (number, client) in clients.iter_mut().enumerate() {
        let lsns: Vec<u64> = (0..ENTRIES).map(|_| lsn(&client.line())).collect();
        assert!(lsns.is_sorted_by(|a, b| a < b));
        told.extend(lsns.into_iter().enumerate().map(|(line, lsn)| (lsn, format!("{number} {line}").into_bytes())));
    }
    writers.into_iter().for_each(|writer| writer.join().unwrap());
    served.stop();
    told.sort();
    assert!(told == stored(&place), "what is stored is not what was confirmed");
}

#[test]
fn a_thousand_connections_that_send_in_slow_pieces() {
    const CLIENTS: usize = 1000;
    let place = Place::new();
    let served = place.serve(&["--tcp", "127.0.0.1:0", "--confirm"]);
    let address = served.address("tcp");
    let mut clients: Vec<_> = (0..CLIENTS).map(|_| Client::new(TcpStream::connect(address).unwrap())).collect();
    for piece in ["cl", "ient ", "", "NUMBER", "\r", "\nsecond of ", "NUMBER", "\n"] {
        for (number, client) in clients.iter_mut().enumerate() {
            client.send(piece.replace("NUMBER", &number.to_string()).as_bytes());
        }
    }
    let mut told = Vec::new();
    for (number, client) in clients.iter_mut().enumerate() {
        told.push((lsn(&client.line()), format!("client {number}").into_bytes()));
        told.push((lsn(&client.line()), format!("second of {number}").into_bytes()));
    }
    assert_eq!(served.status()["connections"], CLIENTS);
    drop(clients);
    served.stop();
    told.sort();
    assert!(told == stored(&place), "what is stored is not what was confirmed");
}

#[test]
fn a_port_in_use_is_an_error_at_start_and_nothing_is_taken_from_anywhere() {
    let place = Place::new();
    let other = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = other.local_addr().unwrap().to_string();
    let ran = place.daemon(b"a line\n", &["--tcp", &address]).expect(74);
    let expected = format!("cannot listen on tcp:{address}: the address is in use; ");
    assert!(ran.stderr.contains(&expected), "{}", ran.stderr);
    assert!(place.payloads().is_empty());
}

#[test]
fn a_unix_socket_is_its_owners_alone_and_nothing_else_is_replaced() {
    use std::os::unix::fs::PermissionsExt as _;
    let place = Place::new();
    let path = place.beside("s");
    let args = ["--unix", path.to_str().unwrap(), "--confirm"];
    let served = place.serve(&args);
    for path in [&path, &place.store().join("kifa.sock")] {
        assert_eq!(std::fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o600);
    }
    // A killed daemon leaves its sockets behind; the next one replaces them.
    served.signal(rustix::process::Signal::KILL);
    served.end();
    assert!(path.exists());
    let served = place.serve(&args);
    let mut client = unix(&path);
    client.send(b"a line\n");
    assert_eq!(client.line(), "OK 1");
    served.stop();
    assert!(!path.exists() && !place.store().join("kifa.sock").exists());

    std::fs::write(&path, "precious").unwrap();
    let ran = place.run("daemon", &args).expect(74);
    assert!(ran.stderr.contains("is there that is not a socket"), "{}", ran.stderr);
    assert_eq!(std::fs::read(&path).unwrap(), b"precious");
}

#[test]
fn the_control_socket_is_no_place_for_a_source() {
    let place = Place::new();
    let socket = place.store().join("kifa.sock");
    let ran = place.run("daemon", &["--unix", socket.to_str().unwrap()]);
    assert_eq!(ran.code, Some(78), "{}", ran.stderr);
    assert!(ran.stderr.contains("is the store's control socket"), "{}", ran.stderr);
}
