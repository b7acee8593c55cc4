//! One connection: the head of a request in, an answer out, the end.
//!
//! - Never waits: each step takes the connection as far as it comes.
//! - Each connection has one request and one answer. What comes behind the head (a body, another request) is read and
//!   dropped until the other side closes, for a bounded time and number of bytes: closing with unread bytes would reset the connection, and the
//!   answer could be lost.

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::time::{Duration, Instant};

use mio::net::TcpStream;

use super::health::Verdict;

/// Longest head of a request, in bytes.
const HEAD_BYTES_MAX: usize = 8192;
/// Most header fields of a request.
const FIELDS_MAX: usize = 64;
/// How long a request and its answer may take together.
const REQUEST_TIME: Duration = Duration::from_secs(10);
/// How long the other side may take to close behind its answer.
const FAREWELL: Duration = Duration::from_secs(2);
/// What it may send meanwhile, in bytes.
const FAREWELL_BYTES: usize = 64 << 10;

/// What can be asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Path {
    Metrics,
    Health,
}

/// What a connection has come to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Step {
    /// It waits for an answer.
    Asked(Path),
    /// It waits for the other side.
    Waits,
    /// It is done with.
    Over,
}

/// What a request is told.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Answer {
    status: &'static str,
    content_type: &'static str,
    body: String,
}

impl Answer {
    fn sentence(status: &'static str, sentence: &str) -> Answer {
        Answer { status, content_type: "text/plain; charset=utf-8", body: format!("{sentence}\n") }
    }

    pub(super) fn metrics(text: String) -> Answer {
        Answer { status: "200 OK", content_type: "text/plain; version=0.0.4; charset=utf-8", body: text }
    }

    pub(super) fn health(verdict: &Verdict) -> Answer {
        match verdict {
            Ok(()) => Answer::sentence("200 OK", "the log can commit"),
            Err(sentence) => Answer::sentence("503 Service Unavailable", sentence),
        }
    }

    /// As it goes over the wire.
    fn encode(&self, has_body: bool) -> Vec<u8> {
        let Answer { status, content_type, body } = self;
        let allow = if status.starts_with("405") { "Allow: GET, HEAD\r\n" } else { "" };
        let head = format!(
            "HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\nContent-Length: {}\r\n{allow}Cache-Control: no-store\r\n\
             Connection: close\r\n\r\n",
            body.len()
        );
        let mut bytes = head.into_bytes();
        if has_body {
            bytes.extend_from_slice(body.as_bytes());
        }
        bytes
    }
}

/// A head that was read.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Request {
    /// There is more to come.
    Unfinished,
    Asks {
        path: Path,
        is_head: bool,
    },
    Refused {
        answer: Answer,
        is_head: bool,
    },
}

/// Reads a head, or what there is of it.
fn parse(bytes: &[u8]) -> Request {
    let refuse =
        |status, sentence: &str| Request::Refused { answer: Answer::sentence(status, sentence), is_head: false };
    let too_large = || {
        let sentence = format!("the head of a request may have {HEAD_BYTES_MAX} bytes and {FIELDS_MAX} fields");
        refuse("431 Request Header Fields Too Large", &sentence)
    };
    let mut fields = [httparse::EMPTY_HEADER; FIELDS_MAX];
    let mut request = httparse::Request::new(&mut fields);
    match request.parse(bytes) {
        Ok(httparse::Status::Complete(_)) => {}
        Ok(httparse::Status::Partial) if bytes.len() < HEAD_BYTES_MAX => return Request::Unfinished,
        Ok(httparse::Status::Partial) | Err(httparse::Error::TooManyHeaders) => return too_large(),
        Err(cause) => return refuse("400 Bad Request", &format!("this is not a request of HTTP/1.1: {cause}")),
    }
    let (method, target) = (request.method.unwrap_or_default(), request.path.unwrap_or_default());
    let has_host = request.headers.iter().any(|field| field.name.eq_ignore_ascii_case("host"));
    if request.version == Some(1) && !has_host {
        return refuse("400 Bad Request", "a request of HTTP/1.1 has a Host field");
    }
    let is_head = method == "HEAD";
    if !is_head && method != "GET" {
        return refuse("405 Method Not Allowed", "only GET and HEAD are answered here");
    }
    // A proxy asks for the whole address.
    let target = target.strip_prefix("http://").map_or(target, |rest| rest.find('/').map_or("/", |at| &rest[at..]));
    let path = match target.split('?').next().unwrap_or_default() {
        "/metrics" => Path::Metrics,
        "/healthz" => Path::Health,
        _ => {
            let answer = Answer::sentence("404 Not Found", "there are /metrics and /healthz here");
            return Request::Refused { answer, is_head };
        }
    };
    Request::Asks { path, is_head }
}

enum State {
    /// What there is of the head.
    Reading(Vec<u8>),
    Asked {
        path: Path,
        is_head: bool,
    },
    /// The answer, and how much of it is gone.
    Writing(Vec<u8>, usize),
    /// How many bytes may still come.
    Closing(usize),
}

/// See the module's page.
pub(super) struct Connection<S = TcpStream> {
    stream: S,
    state: State,
    deadline: Instant,
}

/// A socket that can say that nothing more will come.
pub(super) trait HangUp {
    fn hang_up(&self) -> io::Result<()>;
}

impl HangUp for TcpStream {
    fn hang_up(&self) -> io::Result<()> {
        self.shutdown(Shutdown::Write)
    }
}

impl<S: Read + Write + HangUp> Connection<S> {
    pub(super) fn new(stream: S, now: Instant) -> Connection<S> {
        Connection { stream, state: State::Reading(Vec::new()), deadline: now + REQUEST_TIME }
    }

    /// When its time is over.
    pub(super) fn deadline(&self) -> Instant {
        self.deadline
    }

    /// Takes it as far as it comes.
    pub(super) fn step(&mut self, now: Instant) -> Step {
        if now >= self.deadline {
            if !matches!(self.state, State::Reading(_)) {
                return Step::Over;
            }
            self.reply(&Answer::sentence("408 Request Timeout", "the request did not end in time"), false, now);
        }
        loop {
            let outcome = match &mut self.state {
                State::Reading(_) => self.read(now),
                State::Asked { path, .. } => return Step::Asked(*path),
                State::Writing(bytes, at) => match self.stream.write(&bytes[*at..]) {
                    Ok(0) => return Step::Over,
                    Ok(written) => {
                        *at += written;
                        if *at == bytes.len() {
                            if self.stream.hang_up().is_err() {
                                return Step::Over;
                            }
                            self.state = State::Closing(FAREWELL_BYTES);
                            self.deadline = now + FAREWELL;
                        }
                        Ok(())
                    }
                    Err(cause) => Err(cause),
                },
                State::Closing(left) => match self.stream.read(&mut [0; 4096]) {
                    Ok(0) => return Step::Over,
                    Ok(count) if count > *left => return Step::Over,
                    Ok(count) => {
                        *left -= count;
                        Ok(())
                    }
                    Err(cause) => Err(cause),
                },
            };
            match outcome {
                Ok(()) => {}
                Err(cause) if cause.kind() == io::ErrorKind::Interrupted => {}
                Err(cause) if cause.kind() == io::ErrorKind::WouldBlock => return Step::Waits,
                Err(_) => return Step::Over,
            }
        }
    }

    fn read(&mut self, now: Instant) -> io::Result<()> {
        let State::Reading(head) = &mut self.state else { return Ok(()) };
        let mut chunk = [0; 1024];
        let room = chunk.len().min(HEAD_BYTES_MAX - head.len());
        let count = self.stream.read(&mut chunk[..room])?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        head.extend_from_slice(&chunk[..count]);
        match parse(head) {
            Request::Unfinished => {}
            Request::Asks { path, is_head } => self.state = State::Asked { path, is_head },
            Request::Refused { answer, is_head } => self.reply(&answer, is_head, now),
        }
        Ok(())
    }

    /// Answers what was asked.
    pub(super) fn answer(&mut self, answer: &Answer, now: Instant) {
        if let State::Asked { is_head, .. } = self.state {
            self.reply(answer, is_head, now);
        }
    }

    /// Who was too slow with its request has a little time to take the answer.
    fn reply(&mut self, answer: &Answer, is_head: bool, now: Instant) {
        self.state = State::Writing(answer.encode(!is_head), 0);
        self.deadline = self.deadline.max(now + FAREWELL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(bytes: &[u8]) -> &'static str {
        match parse(bytes) {
            Request::Refused { answer, .. } => answer.status.split(' ').next().unwrap(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn heads() {
        let asks = |path, is_head| Request::Asks { path, is_head };
        let cases = [
            ("GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n", asks(Path::Metrics, false)),
            ("GET /metrics HTTP/1.0\r\n\r\n", asks(Path::Metrics, false)),
            ("HEAD /healthz?verbose HTTP/1.1\r\nhOST: a\r\n\r\n", asks(Path::Health, true)),
            ("GET http://a:1/healthz HTTP/1.1\r\nHost: a\r\n\r\n", asks(Path::Health, false)),
            ("GET /metrics HTTP/1.1\r\nHost: a\r\n", Request::Unfinished),
            ("", Request::Unfinished),
        ];
        for (text, expected) in cases {
            assert_eq!(parse(text.as_bytes()), expected, "{text:?}");
        }
        assert_eq!(refused(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"), "404");
        assert_eq!(refused(b"GET http://a HTTP/1.1\r\nHost: a\r\n\r\n"), "404");
        assert_eq!(refused(b"GET /metrics HTTP/1.1\r\n\r\n"), "400");
        assert_eq!(refused(b"DELETE /metrics HTTP/1.1\r\nHost: a\r\n\r\n"), "405");
        assert_eq!(refused(b"\x16\x03\x01\x02\x00"), "400");
        assert_eq!(refused(b"GET /metrics HTTP/2.0\r\n\r\n"), "400");
        let many = format!("GET /metrics HTTP/1.0\r\n{}\r\n", "a: b\r\n".repeat(FIELDS_MAX + 1));
        assert_eq!(refused(many.as_bytes()), "431");
        let long = format!("GET /metrics HTTP/1.0\r\na: {}", "x".repeat(HEAD_BYTES_MAX));
        assert_eq!(refused(&long.as_bytes()[..HEAD_BYTES_MAX]), "431");
    }

    #[test]
    fn a_head_is_understood_wherever_it_is_cut() {
        let text = "GET /healthz HTTP/1.1\r\nHost: a\r\nAccept: */*\r\n\r\n";
        for end in 0..text.len() {
            assert_eq!(parse(&text.as_bytes()[..end]), Request::Unfinished, "{end}");
        }
    }

    /// The other side: what it sends, piece by piece, and what it was told; it takes `room` bytes at once.
    struct Other {
        sends: std::collections::VecDeque<&'static [u8]>,
        told: Vec<u8>,
        room: usize,
    }

    impl Read for Other {
        fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
            let Some(piece) = self.sends.pop_front() else { return Err(io::ErrorKind::WouldBlock.into()) };
            out[..piece.len()].copy_from_slice(piece);
            Ok(piece.len())
        }
    }

    impl Write for Other {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if self.room == 0 {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            let bytes = &bytes[..self.room.min(bytes.len())];
            self.told.extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl HangUp for Other {
        fn hang_up(&self) -> io::Result<()> {
            Ok(())
        }
    }

    fn connection(sends: &[&'static [u8]], room: usize, now: Instant) -> Connection<Other> {
        Connection::new(Other { sends: sends.iter().copied().collect(), told: Vec::new(), room }, now)
    }

    #[test]
    fn a_request_is_answered_once_and_what_follows_it_is_dropped() {
        let now = Instant::now();
        let mut connection = connection(&[b"GET /hea", b"lthz HTTP/1.0\r\n\r\nGET /"], 7, now);
        assert_eq!(connection.step(now), Step::Asked(Path::Health));
        connection.answer(&Answer::health(&Err("it waits".to_owned())), now);
        connection.stream.sends.extend([&b"metrics HTTP/1.0\r\n\r\n"[..], b""]);
        assert_eq!(connection.step(now), Step::Over);
        let told = String::from_utf8(connection.stream.told).unwrap();
        assert!(told.starts_with("HTTP/1.1 503 Service Unavailable\r\n"), "{told}");
        assert!(told.contains("Content-Length: 9\r\n") && told.ends_with("\r\n\r\nit waits\n"), "{told}");
    }

    #[test]
    fn who_asks_for_the_head_gets_no_body() {
        let now = Instant::now();
        let mut connection = connection(&[b"HEAD /metrics HTTP/1.0\r\n\r\n"], 1 << 20, now);
        assert_eq!(connection.step(now), Step::Asked(Path::Metrics));
        connection.answer(&Answer::metrics("kifa_groups_total 1\n".to_owned()), now);
        assert_eq!(connection.step(now), Step::Waits);
        let told = String::from_utf8(connection.stream.told).unwrap();
        assert!(told.contains("Content-Length: 20\r\n") && told.ends_with("\r\n\r\n"), "{told}");
    }

    #[test]
    fn who_is_slow_is_told_and_who_takes_nothing_is_left() {
        let now = Instant::now();
        let mut slow = connection(&[b"GET /metr"], 1 << 20, now);
        assert_eq!(slow.step(now), Step::Waits);
        assert_eq!(slow.step(now + REQUEST_TIME), Step::Waits);
        assert!(slow.stream.told.starts_with(b"HTTP/1.1 408 "));
        assert_eq!(slow.step(now + REQUEST_TIME + FAREWELL), Step::Over);

        let mut deaf = connection(&[b"GET / HTTP/1.0\r\n\r\n"], 0, now);
        assert_eq!(deaf.step(now), Step::Waits);
        assert_eq!(deaf.step(now + REQUEST_TIME), Step::Over);
    }
}
