//! The control socket.

use crate::program::{Place, json};

use super::{Client, lsn, stored};

const MIB: usize = 1 << 20;

#[test]
fn each_request_is_answered_in_order() {
    let place = Place::new();
    let served = place.serve(&["--tcp", "127.0.0.1:0"]);
    let mut control = served.control();
    let mut input = b"APPEND 5\na\nb\0\xffAPPEND 0\nAPPEND 1048577\n".to_vec();
    input.resize(input.len() + MIB + 1, b'y');
    input.extend_from_slice(format!("APPEND {MIB}\r\n").as_bytes());
    input.resize(input.len() + MIB, b'x');
    input.extend_from_slice(
        b"DURABLE\nSYNC\nFLUSH-MODE normal\nFLUSH-MODE emergency\nFLUSH-MODE default\nFLUSH-MODE x\nSTATUS\n",
    );
    control.send(&input);
    assert_eq!(control.lines(2), ["OK 1", "OK 2"]);
    assert_eq!(control.line(), "ERR too-large 1048577 bytes are more than an entry takes (1048576)");
    assert_eq!(control.lines(3), ["OK 3", "OK 3", "OK 3"]);
    assert_eq!(control.lines(3), ["OK cautious normal", "OK normal emergency", "OK emergency cautious"]);
    assert_eq!(control.line(), "ERR mode a flush mode is normal, cautious, emergency or default");
    let status = json(control.line().strip_prefix("OK ").unwrap());
    assert_eq!(status["pid"], served.child.id());
    assert_eq!((&status["flush_mode"], &status["configured_flush_mode"]), (&"cautious".into(), &"cautious".into()));
    assert_eq!((&status["durable_lsn"], &status["confirmed_lsn"]), (&3.into(), &3.into()));
    let append = status["sources"].as_array().unwrap().iter().find(|source| source["name"] == "append").unwrap();
    assert_eq!((&append["stored"], &append["refused"]), (&3.into(), &1.into()));
    drop(control);
    served.stop();
    let data: Vec<Vec<u8>> = stored(&place).into_iter().map(|(_, data)| data).collect();
    assert!(data == [b"a\nb\0\xff".to_vec(), Vec::new(), vec![b'x'; MIB]]);
}

#[test]
fn who_follows_is_told_whenever_more_is_durable() {
    let place = Place::new();
    let served = place.serve(&["--tcp", "127.0.0.1:0", "--confirm"]);
    let mut follower = served.control();
    follower.send(b"FOLLOW\n");
    assert_eq!(follower.line(), "OK 0");
    let mut client = served.tcp();
    for entry in 1..=100 {
        client.send(b"x\n");
        assert_eq!(lsn(&client.line()), entry);
        while lsn(&follower.line()) < entry {}
    }
    served.signal(rustix::process::Signal::TERM);
    assert_eq!(follower.rest(), "");
    drop(client);
    served.end().expect(143);
}

#[test]
fn what_is_no_request_ends_the_connection() {
    let place = Place::new();
    let served = place.serve(&["--tcp", "127.0.0.1:0"]);
    let long = [&[b'x'; 5000][..], b"\n"].concat();
    for request in [&b"HELLO\n"[..], b"APPEND\n", b"APPEND -1\n", b"append 1\n", b"DURABLE now\n", b"\xff\n", &long] {
        let mut control = served.control();
        control.send(b"DURABLE\n");
        control.send(request);
        control.send(b"DURABLE\n");
        let answers = control.last_words();
        assert!(answers.starts_with("OK 0\nERR protocol ") && answers.lines().count() == 2, "{answers}");
    }
    served.stop();
}

#[test]
fn a_daemon_that_only_reads_its_input_ends_with_it_and_has_a_control_socket_meanwhile() {
    let place = Place::new();
    let mut command = place.command("daemon", &["--stdin"]);
    let mut served = super::Served::start(command.stdin(std::process::Stdio::piped()));
    let mut control = served.control();
    control.send(b"APPEND 3\nabc");
    assert_eq!(control.line(), "OK 1");
    drop(served.child.stdin.take());
    assert_eq!(control.rest(), "");
    served.end().expect(0);
    assert_eq!(place.payloads(), ["abc"]);
}

#[test]
fn a_data_directory_may_have_a_long_path() {
    let place = Place::new();
    let store = place.beside(&"x".repeat(120));
    let store = store.to_str().unwrap();
    let mut command = crate::program::kifa(&["daemon", "-d", store, "--tcp", "127.0.0.1:0"]);
    let served = super::Served::start(&mut command);
    let dir = std::fs::File::open(store).unwrap();
    let short = format!("/proc/self/fd/{}/kifa.sock", std::os::fd::AsRawFd::as_raw_fd(&dir));
    let mut control = Client::new(std::os::unix::net::UnixStream::connect(short).unwrap());
    control.send(b"DURABLE\n");
    assert_eq!(control.line(), "OK 0");
    served.stop();
}
