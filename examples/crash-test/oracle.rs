//! Knows the promise, and nothing of how it is kept: what producers were told, against what is found.
//!
//! - What is found was submitted, byte for byte, each entry once, in the order it was submitted, with nothing missing in
//!   front of what was found later in the same cycle, and under the LSN that its producer was told.
//! - What was confirmed is found; in normal mode all but 49 of one power cut, and none of the numbers of those is given
//!   to another entry: they lie in a recorded gap.
//! - What a daemon has found when it opened the store is found ever after.
//!
//! Looking at a store while no daemon runs decides nothing: what it shows beyond the confirmed may yet go.

use std::collections::BTreeMap;

use crate::daemon::Told;
use crate::transactions::{Profile, Seen, check};

/// What a look at the store came to.
#[derive(Clone, Default, Debug)]
pub(crate) struct Findings {
    /// Of the last cycle.
    pub(crate) recovered: u64,
    /// Of the last cycle.
    pub(crate) lost_confirmed: u64,
    pub(crate) duplicated: u64,
    pub(crate) damaged: u64,
    /// Submitted entries that are missing in front of later ones of the same cycle.
    pub(crate) gaps: u64,
    /// What breaks the promise, in sentences.
    pub(crate) broken: Vec<String>,
}

/// An entry of the store.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Entry {
    lsn: u64,
    seq: u64,
}

/// What a reader found, line by line.
#[derive(Default)]
pub(crate) struct Store {
    entries: Vec<Entry>,
    seqs: Seen,
    findings: Findings,
    /// First and last LSN of each recorded gap.
    gaps: Vec<(u64, u64)>,
}

impl Store {
    /// A line of `kifa query -o json`.
    pub(crate) fn read(&mut self, line: &str, profile: &Profile) {
        let shown: serde_json::Value = serde_json::from_str(line).unwrap_or_default();
        let (lsn, data) = (shown["lsn"].as_u64().unwrap_or(0), shown["data"].as_str().unwrap_or(""));
        match check(data) {
            Ok((run, seq)) if run == profile.seed && profile.line(seq) == data => {
                if self.seqs.insert(seq) {
                    self.entries.push(Entry { lsn, seq });
                } else {
                    self.findings.duplicated += 1;
                    self.findings.broken.push(format!("entry {seq} is there again, under LSN {lsn}"));
                }
            }
            found => self.damage(format!("LSN {lsn}: {}", found.err().unwrap_or("not what was submitted".to_owned()))),
        }
    }

    /// The reader reports that something cannot be read.
    pub(crate) fn damage(&mut self, what: String) {
        self.findings.damaged += 1;
        self.findings.broken.push(what);
    }

    /// The store says that these LSNs hold nothing.
    pub(crate) fn gap(&mut self, first: u64, last: u64) {
        self.gaps.push((first, last));
    }
}

/// See the module's page.
pub(crate) struct Oracle {
    lost_max: u64,
    /// What daemons have found when they opened the store.
    decided: Vec<Entry>,
    /// Cycles since then.
    open: Vec<Told>,
    /// LSNs of confirmed entries that were lost, and their numbers.
    lost: BTreeMap<u64, u64>,
    /// How many these are, however the LSNs were given.
    lost_count: u64,
}

impl Oracle {
    /// Of an empty store.
    pub(crate) fn new(lost_max: u64) -> Oracle {
        Oracle { lost_max, decided: Vec::new(), open: Vec::new(), lost: BTreeMap::new(), lost_count: 0 }
    }

    /// A cycle has ended.
    pub(crate) fn told(&mut self, told: Told) {
        self.open.push(told);
    }

    /// How many entries are in the store for good, and how many that were confirmed are not.
    pub(crate) fn decided(&self) -> (u64, u64) {
        (self.decided.len() as u64, self.lost_count)
    }

    /// Compares; `decides` if a daemon has opened the store, and nobody has written since.
    pub(crate) fn check(&mut self, store: Store, decides: bool) -> Findings {
        let Store { entries, mut findings, gaps, .. } = store;
        let found: BTreeMap<u64, u64> = entries.iter().map(|entry| (entry.seq, entry.lsn)).collect();
        if let Some(pair) = entries.windows(2).find(|pair| pair[0].lsn >= pair[1].lsn || pair[0].seq >= pair[1].seq) {
            findings.broken.push(format!("out of order: {:?} stands before {:?}", pair[0], pair[1]));
        }
        let same = |entry: &&Entry| found.get(&entry.seq) == Some(&entry.lsn);
        let mut known = self.decided.iter().filter(same).count() as u64;
        if let Some(gone) = self.decided.iter().find(|entry| !same(entry)) {
            let count = self.decided.len() as u64 - known;
            findings.broken.push(format!("{count} entries that were found before are not there any more, as {gone:?}"));
        }
        let mut lost = BTreeMap::new();
        for told in &self.open {
            known += self.check_cycle(told, &found, &mut lost, &mut findings);
        }
        if known < found.len() as u64 {
            let strangers = found.len() as u64 - known;
            findings.damaged += strangers;
            findings.broken.push(format!("{strangers} entries were found that nobody submitted"));
        }
        let told = |entry: &&Entry| self.lost.contains_key(&entry.lsn) || lost.contains_key(&entry.lsn);
        if let Some(entry) = entries.iter().find(told) {
            findings.broken.push(format!("LSN {} was told for another entry that is lost", entry.lsn));
        }
        if decides {
            let gone = self.decided.iter().filter(|entry| !found.contains_key(&entry.seq));
            lost.extend(gone.map(|entry| (entry.lsn, entry.seq)));
            self.lost_count += lost.len() as u64;
            self.lost.append(&mut lost);
            self.check_gaps(&gaps, &mut findings);
            self.decided = entries;
            self.open.clear();
        }
        findings
    }

    /// One cycle; how many of its entries are there.
    fn check_cycle(
        &self,
        told: &Told,
        found: &BTreeMap<u64, u64>,
        lost: &mut BTreeMap<u64, u64>,
        findings: &mut Findings,
    ) -> u64 {
        let mine = found.range(told.first..told.first + told.submitted);
        let (count, last) = (mine.clone().count() as u64, mine.last().map(|(&seq, _)| seq));
        findings.recovered = count;
        let missing = last.map_or(0, |last| last + 1 - told.first - count);
        findings.gaps += missing;
        if missing > 0 {
            findings.broken.push(format!("{missing} entries are missing in front of entry {}", last.unwrap_or(0)));
        }
        let (mut lost_here, mut elsewhere) = (0, 0);
        for (seq, lsn) in (told.first..).zip(&told.answers).filter_map(|(seq, answer)| Some((seq, (*answer)?))) {
            match found.get(&seq) {
                Some(&there) if there == lsn => {}
                Some(_) => elsewhere += 1,
                None => {
                    lost_here += 1;
                    lost.insert(lsn, seq);
                }
            }
        }
        findings.lost_confirmed = lost_here;
        if elsewhere > 0 {
            findings.broken.push(format!("{elsewhere} entries have another LSN than their producer was told"));
        }
        if lost_here > self.lost_max {
            findings.broken.push(format!("{lost_here} confirmed entries are lost, at most {} may be", self.lost_max));
        }
        count
    }

    fn check_gaps(&self, gaps: &[(u64, u64)], findings: &mut Findings) {
        if self.lost_max == 0 && !gaps.is_empty() {
            findings.broken.push(format!("the store records gaps {gaps:?} without normal mode"));
        }
        let unrecorded = |lsn: &&u64| !gaps.iter().any(|(first, last)| (first..=last).contains(lsn));
        let count = self.lost.keys().filter(unrecorded).count();
        if count > 0 {
            findings.broken.push(format!("{count} LSNs were confirmed and lost, and no recorded gap says so"));
        }
    }
}
