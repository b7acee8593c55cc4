//! Appending through a running daemon.
//!
//! Requests are sent while there is input, answers come in their order. Behind each piece of input the durable LSN is
//! asked for, on the same connection: that answer comes behind those of the entries, so in cautious and emergency mode it
//! covers them. Where it does not (normal mode), a sync is asked for. Only what such an answer covers is settled.

use std::collections::VecDeque;
use std::io;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags};

use super::input::Input;
use super::{Ended, Tally};
use crate::cli::exit::{Exit, Failure};
use crate::cli::remote::{Remote, failure};
use crate::control::{Connection, ControlError, REPLY_BYTES_MAX, parse_reply, wait, wanted};
use crate::format::Lsn;

/// How long the daemon may take to accept, and to say its first word.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);
/// Bytes that wait for the socket, and answers that are outstanding, beyond which no more input is read.
const UNSENT_BYTES_MAX: usize = 256 << 10;
const ANSWERS_MAX: usize = 16 << 10;

/// Why there is no way to a daemon.
pub(super) enum NoWay {
    /// Nobody listens.
    Absent(Failure),
    /// Somebody does, and there may be a way soon.
    NotNow(Failure),
    Never(Failure),
}

/// A connection that the daemon has answered on: it serves, and nothing of ours was sent.
pub(super) fn connect(remote: &Remote) -> Result<Connection, NoWay> {
    let opened = remote.connect(ANSWER_WITHIN).and_then(|mut connection| {
        connection.request("DURABLE", REPLY_BYTES_MAX, ANSWER_WITHIN)?;
        Ok(connection)
    });
    opened.map_err(|error| match &error {
        ControlError::Io(_) | ControlError::Garbled(_) => NoWay::Never(failure(remote, &error, false)),
        ControlError::Refused { .. } => {
            // Too many connections, for example.
            let refused = failure(remote, &error, false);
            NoWay::NotNow(Failure::new(Exit::Unavailable, refused.message))
        }
        ControlError::Absent => NoWay::Absent(failure(remote, &error, false)),
        ControlError::Broken | ControlError::TimedOut(_) => NoWay::NotNow(failure(remote, &error, false)),
    })
}

/// An answer that is outstanding.
enum Answer {
    /// Of the entry with this number.
    Appended(u64),
    /// Of a question for the durable LSN.
    Durable,
    /// Of a sync behind this entry: it covers everything that was confirmed before.
    Synced(Lsn),
}

struct Way<'a> {
    connection: Connection,
    tally: &'a mut Tally,
    unsent: Vec<u8>,
    /// Bytes of `unsent` that are sent.
    sent: usize,
    answers: VecDeque<Answer>,
    /// Confirmed, and not yet known to be durable.
    confirmed: VecDeque<Lsn>,
}

/// Takes everything to the daemon and settles it.
pub(super) fn deliver(connection: Connection, input: &mut Input, tally: &mut Tally) -> Result<(), Ended> {
    let (unsent, answers, confirmed) = (Vec::new(), VecDeque::new(), VecDeque::new());
    let mut way = Way { connection, tally, unsent, sent: 0, answers, confirmed };
    while !input.is_at_end() || !way.answers.is_empty() {
        let is_ready = way.wait(input)?;
        way.exchange()?;
        if is_ready {
            way.take(input)?;
        }
        way.tally.print();
    }
    Ok(())
}

impl Way<'_> {
    /// Waits until there is something to do; whether input can be taken.
    fn wait(&mut self, input: &Input) -> Result<bool, Ended> {
        let has_room = self.unsent.len() - self.sent < UNSENT_BYTES_MAX && self.answers.len() < ANSWERS_MAX;
        let takes = has_room && !input.is_at_end();
        if takes && !input.is_stdin() {
            return Ok(true);
        }
        let stdin = io::stdin();
        let has_output = self.sent < self.unsent.len();
        let mut fds = vec![PollFd::from_borrowed_fd(self.connection.fd(), wanted(has_output))];
        if takes {
            fds.push(PollFd::new(&stdin, PollFlags::IN));
        }
        let waited = wait(&mut fds, None);
        // End of input, an error and a file that cannot be polled are found out by reading.
        let is_ready = fds.get(1).is_some_and(|fd| !fd.revents().is_empty());
        waited.map_err(|cause| self.broken(&ControlError::Io(cause)))?;
        Ok(is_ready)
    }

    /// Turns a piece of input into requests.
    fn take(&mut self, input: &mut Input) -> Result<(), Ended> {
        let (unsent, answers) = (&mut self.unsent, &mut self.answers);
        let before = answers.len();
        let taken = input.take(self.tally, |number, entry| {
            unsent.extend_from_slice(format!("APPEND {}\n", entry.len()).as_bytes());
            unsent.extend_from_slice(entry);
            answers.push_back(Answer::Appended(number));
            Ok(())
        });
        if self.answers.len() > before {
            self.ask("DURABLE\n", Answer::Durable);
        }
        // Input that fails leaves what was read before it: that is settled first.
        if taken.is_err() {
            while !self.answers.is_empty() {
                self.wait_for_answers()?;
            }
        }
        taken
    }

    fn wait_for_answers(&mut self) -> Result<(), Ended> {
        let has_output = self.sent < self.unsent.len();
        let waited = wait(&mut [PollFd::from_borrowed_fd(self.connection.fd(), wanted(has_output))], None);
        waited.map_err(|cause| self.broken(&ControlError::Io(cause)))?;
        self.exchange()
    }

    fn ask(&mut self, line: &str, answer: Answer) {
        self.unsent.extend_from_slice(line.as_bytes());
        self.answers.push_back(answer);
    }

    /// Sends what the socket takes, and takes in what has come.
    fn exchange(&mut self) -> Result<(), Ended> {
        let is_open = self.connection.receive();
        while let Some(line) = self.connection.next_line(REPLY_BYTES_MAX).map_err(|error| self.broken(&error))? {
            self.answer(&line)?;
        }
        match is_open {
            Ok(true) => {}
            // Everything that matters may have come before the end.
            Ok(false) if self.answers.is_empty() => {}
            Ok(false) => return Err(self.broken(&ControlError::Broken)),
            Err(error) => return Err(self.broken(&error)),
        }
        while self.sent < self.unsent.len() {
            match self.connection.write(&self.unsent[self.sent..]) {
                Ok(0) => break,
                Ok(bytes) => self.sent += bytes,
                // Answers that came before the break are still to be read.
                Err(cause) if cause.kind() == io::ErrorKind::BrokenPipe => break,
                Err(cause) => return Err(self.broken(&ControlError::Io(cause))),
            }
        }
        self.unsent.drain(..self.sent);
        self.sent = 0;
        Ok(())
    }

    fn answer(&mut self, line: &str) -> Result<(), Ended> {
        let garbled = || ControlError::Garbled(line.to_owned());
        let Some(asked) = self.answers.pop_front() else { return Err(self.broken(&garbled())) };
        let number = |text: String| text.parse().map(Lsn).map_err(|_| garbled());
        match (asked, parse_reply(line)) {
            (Answer::Appended(entry), Err(ControlError::Refused { code, reason })) if !leaves_doubt(&code) => {
                self.tally.refused_full += u64::from(code == "full");
                let refused = ControlError::Refused { code, reason };
                self.tally.refuse(format_args!("entry {entry}"), refused);
                Ok(())
            }
            (asked, reply) => match (asked, reply.and_then(number)) {
                (Answer::Appended(_), Ok(lsn)) => {
                    self.confirmed.push_back(lsn);
                    Ok(())
                }
                (Answer::Durable, Ok(lsn)) => {
                    self.settle(lsn);
                    if let Some(&last) = self.confirmed.back() {
                        self.ask("SYNC\n", Answer::Synced(last));
                    }
                    Ok(())
                }
                (Answer::Synced(last), Ok(_)) => {
                    self.settle(last);
                    Ok(())
                }
                (asked, Err(error)) => {
                    self.answers.push_front(asked);
                    Err(self.broken(&error))
                }
            },
        }
    }

    /// Everything up to this LSN is durable.
    fn settle(&mut self, durable: Lsn) {
        while let Some(lsn) = self.confirmed.pop_front_if(|lsn| *lsn <= durable) {
            self.tally.settle(lsn);
        }
    }

    /// The end of the connection: whatever was sent and not settled is in doubt.
    fn broken(&self, error: &ControlError) -> Ended {
        let asked = self.answers.iter().filter(|answer| matches!(answer, Answer::Appended(_))).count();
        let entries = (asked + self.confirmed.len()) as u64;
        let why = format!("the connection to the daemon failed: {error}");
        match entries {
            0 => Ended::Failed(Failure::new(Exit::Unavailable, why)),
            entries => Ended::Unknown { entries, why },
        }
    }
}

/// Refusals behind which an entry may be stored all the same: the log failed, or nobody waited long enough.
fn leaves_doubt(code: &str) -> bool {
    matches!(code, "stopped" | "timeout")
}
