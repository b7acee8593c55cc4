//! What a producer is told, line by line in the order of its entries.
//!
//! - One answer for each entry and each refusal, in the order in which they came; an answer that is known waits for those
//!   in front of it.
//! - Confirmed entries are kept as ranges and become text when they are written: a producer that does not read costs a few
//!   bytes for each batch, not for each entry. What is text already is at most [`TEXT_BYTES`] and one answer long.
//! - Everything that is known goes out in as few writes as possible.
//!
//! It does not write; whoever owns the descriptor does.
//!
//! Proof: the tests below compare with a list of answers.
#![cfg_attr(not(unix), allow(dead_code, reason = "sockets, which need it, are for Unix"))]

use std::collections::VecDeque;

use crate::decimal::put_decimal;
use crate::format::Lsn;

/// Bytes of text made for one write.
const TEXT_BYTES: usize = 64 << 10;

/// One or more answers of the same kind.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Reply {
    /// So many entries are on their way.
    Awaiting(u64),
    /// `OK LSN`, rising from `first`.
    Confirmed { first: u64, count: u64 },
    /// `OK dup`.
    Duplicates(u64),
    /// Any line, with its end.
    Line(Box<str>),
}

/// See the module's page.
#[derive(Default, Debug)]
pub(crate) struct Replies {
    queue: VecDeque<Reply>,
    /// Answers in front of the first [`Reply::Awaiting`].
    known: usize,
    /// Made from the queue; the first `written` bytes are gone.
    text: Vec<u8>,
    written: usize,
    line_bytes: usize,
}

impl Replies {
    /// One more entry is on its way.
    pub(crate) fn await_entry(&mut self) {
        match self.queue.back_mut() {
            Some(Reply::Awaiting(count)) => *count += 1,
            _ => self.queue.push_back(Reply::Awaiting(1)),
        }
    }

    /// An answer that is known already. `line` has no line end.
    pub(crate) fn say(&mut self, line: &str) {
        let line: Box<str> = format!("{line}\n").into();
        self.line_bytes += line.len();
        self.push_known(Reply::Line(line));
    }

    /// `OK dup`.
    pub(crate) fn say_duplicate(&mut self) {
        match self.queue.back_mut() {
            Some(Reply::Duplicates(count)) => *count += 1,
            _ => self.push_known(Reply::Duplicates(1)),
        }
    }

    fn push_known(&mut self, reply: Reply) {
        if self.known == self.queue.len() {
            self.known += 1;
        }
        self.queue.push_back(reply);
    }

    /// The next `count` entries that were awaited are confirmed.
    ///
    /// # Panics
    /// If fewer are awaited.
    pub(crate) fn confirm(&mut self, first: Lsn, count: u64) {
        let (mut first, mut left) = (first.0, count);
        while left > 0 {
            let Some(Reply::Awaiting(awaited)) = self.queue.get_mut(self.known) else {
                panic!("{left} entries were confirmed that nobody awaits");
            };
            let confirmed = Reply::Confirmed { first, count: left.min(*awaited) };
            if *awaited > left {
                *awaited -= left;
                self.queue.insert(self.known, confirmed);
                self.known += 1;
                return;
            }
            (first, left) = (first + *awaited, left - *awaited);
            self.queue[self.known] = confirmed;
            let behind = self.queue.iter().skip(self.known);
            self.known += behind.take_while(|reply| !matches!(reply, Reply::Awaiting(_))).count();
        }
    }

    /// Nothing that is still awaited will be confirmed: `line` is the only answer to all of it.
    pub(crate) fn give_up(&mut self, line: &str) {
        self.queue.truncate(self.known);
        self.line_bytes = self.queue.iter().map(Reply::line_bytes).sum();
        self.say(line);
    }

    /// The next bytes to write: all that is known, up to a bound; empty when there is nothing.
    pub(crate) fn text(&mut self) -> &[u8] {
        while self.known > 0 && self.text.len() < TEXT_BYTES {
            let reply = self.queue.front_mut().expect("known answers are in the queue");
            let is_used_up = reply.render(&mut self.text);
            if is_used_up {
                self.line_bytes -= reply.line_bytes();
                self.queue.pop_front();
                self.known -= 1;
            }
        }
        if self.queue.is_empty() {
            self.queue = VecDeque::new();
        }
        &self.text[self.written..]
    }

    /// So many bytes of [`Replies::text`] were written.
    pub(crate) fn wrote(&mut self, bytes: usize) {
        self.written += bytes;
        if self.written == self.text.len() {
            (self.text, self.written) = (Vec::new(), 0);
        }
    }

    /// Whether something is known that was not written.
    pub(crate) fn is_due(&self) -> bool {
        self.known > 0 || !self.text.is_empty()
    }

    /// Whether everything was answered and written.
    pub(crate) fn is_empty(&self) -> bool {
        self.queue.is_empty() && self.text.is_empty()
    }

    /// Memory it holds.
    pub(crate) fn held_bytes(&self) -> usize {
        self.queue.capacity() * size_of::<Reply>() + self.line_bytes + self.text.capacity()
    }
}

impl Reply {
    /// Appends text, up to the bound; returns whether that was all of it.
    fn render(&mut self, text: &mut Vec<u8>) -> bool {
        match self {
            Reply::Awaiting(_) => unreachable!("it is not known yet"),
            Reply::Line(line) => {
                text.extend_from_slice(line.as_bytes());
                true
            }
            Reply::Duplicates(count) => {
                while *count > 0 && text.len() < TEXT_BYTES {
                    text.extend_from_slice(b"OK dup\n");
                    *count -= 1;
                }
                *count == 0
            }
            Reply::Confirmed { first, count } => {
                while *count > 0 && text.len() < TEXT_BYTES {
                    text.extend_from_slice(b"OK ");
                    put_decimal(*first, text);
                    text.push(b'\n');
                    (*first, *count) = (*first + 1, *count - 1);
                }
                *count == 0
            }
        }
    }

    fn line_bytes(&self) -> usize {
        match self {
            Reply::Line(line) => line.len(),
            _ => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn drain(replies: &mut Replies) -> String {
        let mut all = Vec::new();
        loop {
            let text = replies.text().to_vec();
            if text.is_empty() {
                return String::from_utf8(all).unwrap();
            }
            // A reader that takes what it likes.
            let bytes = text.len().min(7000);
            all.extend_from_slice(&text[..bytes]);
            replies.wrote(bytes);
        }
    }

    #[test]
    fn an_answer_that_is_known_waits_for_those_in_front_of_it() {
        let mut replies = Replies::default();
        replies.say("OK HELLO 0");
        replies.await_entry();
        replies.await_entry();
        replies.say("ERR too-large x");
        replies.say_duplicate();
        replies.await_entry();
        assert_eq!(drain(&mut replies), "OK HELLO 0\n");
        replies.confirm(Lsn(9), 1);
        assert_eq!(drain(&mut replies), "OK 9\n");
        replies.confirm(Lsn(10), 2);
        assert_eq!(drain(&mut replies), "OK 10\nERR too-large x\nOK dup\nOK 11\n");
        assert!(replies.is_empty());
        assert_eq!(replies.held_bytes(), 0);
    }

    #[test]
    fn a_log_that_failed_answers_everything_at_once() {
        let mut replies = Replies::default();
        replies.await_entry();
        replies.confirm(Lsn(1), 1);
        replies.await_entry();
        replies.say("ERR too-large x");
        replies.give_up("ERR stopped");
        assert_eq!(drain(&mut replies), "OK 1\nERR stopped\n");
        assert_eq!(replies.held_bytes(), 0);
    }

    #[test]
    fn a_producer_that_does_not_read_costs_little() {
        let mut replies = Replies::default();
        for first in 0..1000 {
            (0..1000).for_each(|_| replies.await_entry());
            replies.confirm(Lsn(first * 1000), 1000);
            if first == 500 {
                replies.text();
            }
        }
        assert!(replies.held_bytes() < 256 << 10, "{}", replies.held_bytes());
        assert_eq!(drain(&mut replies).lines().count(), 1_000_000);
    }

    #[derive(Clone, Debug)]
    enum Step {
        Await,
        Say,
        Duplicate,
        Confirm(usize),
        Write,
    }

    proptest! {
        #[test]
        fn answers_come_in_order_each_once(
            steps in proptest::collection::vec(
                prop_oneof![
                    Just(Step::Await), Just(Step::Say), Just(Step::Duplicate),
                    (1usize..9).prop_map(Step::Confirm), Just(Step::Write),
                ],
                0..100,
            ),
        ) {
            let mut replies = Replies::default();
            let (mut expected, mut written) = (Vec::new(), String::new());
            let (mut next, mut awaited) = (1, 0);
            for step in steps {
                match step {
                    Step::Await => {
                        replies.await_entry();
                        awaited += 1;
                        expected.push(format!("OK {}", expected.iter().filter(|a: &&String| a.starts_with("OK 1")).count() + 1_000_000));
                    }
                    Step::Say => {
                        replies.say("ERR x");
                        expected.push("ERR x".to_owned());
                    }
                    Step::Duplicate => {
                        replies.say_duplicate();
                        expected.push("OK dup".to_owned());
                    }
                    Step::Confirm(count) => {
                        let count = count.min(awaited);
                        replies.confirm(Lsn(next + 999_999), count as u64);
                        next += count as u64;
                        awaited -= count;
                    }
                    Step::Write => written.push_str(&drain(&mut replies)),
                }
            }
            replies.confirm(Lsn(next + 999_999), awaited as u64);
            written.push_str(&drain(&mut replies));
            prop_assert_eq!(written.lines().collect::<Vec<_>>(), expected);
            prop_assert!(replies.is_empty());
        }
    }
}
