//! Datagrams.

use std::net::UdpSocket;

use rustix::process::Signal;

use super::stored;
use crate::program::{Place, wait_until};

#[test]
fn a_datagram_is_an_entry_and_what_does_not_fit_is_counted() {
    let place = Place::new();
    let served = place.serve_config("[ingester]\nline_bytes_max = 65000\n[sources]\nudp = [\"127.0.0.1:0\"]\n");
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let large = vec![b'z'; 65000];
    let too_large = vec![b'z'; 65001];
    let datagrams: [&[u8]; 8] = [b"a", b"b\r\n", b"c\r", b"two\nlines\n", b"", b"\n", &large, &too_large];
    for datagram in datagrams {
        socket.send_to(datagram, served.address("udp")).unwrap();
    }
    socket.send_to(b"\0\xff", served.address("udp")).unwrap();
    place.wait_for_entries(6);
    let status = served.status();
    assert_eq!((&status["sources"][0]["stored"], &status["sources"][0]["refused"]), (&6.into(), &1.into()));
    served.stop();
    let data: Vec<Vec<u8>> = stored(&place).into_iter().map(|(_, data)| data).collect();
    assert_eq!(data, [&b"a"[..], b"b", b"c\r", b"two\nlines", &large, b"\0\xff"]);
}

#[test]
fn datagrams_that_the_kernel_drops_are_counted_also_when_none_follows() {
    const SENT: u64 = 4000;
    let place = Place::new();
    let served = place.serve_config("[ingester]\nudp_buffer_kib = 64\n[sources]\nudp = [\"127.0.0.1:0\"]\n");
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    served.signal(Signal::STOP);
    for _ in 0..SENT {
        socket.send_to(&[b'x'; 500], served.address("udp")).unwrap();
    }
    served.signal(Signal::CONT);
    let count = |what: &str| served.status()["sources"][0][what].as_u64().unwrap();
    wait_until("every datagram is accounted for", || count("stored") + count("dropped") == SENT);
    assert!(count("dropped") > 0);
    let dropped = count("dropped");
    let ran = served.stop();
    assert!(ran.stderr.contains("the kernel has dropped "), "{}", ran.stderr);
    assert_eq!(stored(&place).len() as u64 + dropped, SENT);
}
