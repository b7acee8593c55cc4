//! Patterns of paths: `*` (any bytes), `?` (one), `[a-z]` and `[!a-z]` (one of these, or none of them), within a name.
//!
//! - No wildcard matches `/`, nor a dot at the beginning of a name, as in a shell.
//! - Names are bytes. Crates for patterns match text only, or bring a regular-expression engine; a name that is not UTF-8
//!   would then be a file that nobody reads.
//! - A `[` that is never closed is itself.
//!
//! Proof: the tests below, one of them against a slow model.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path, PathBuf};

/// A pattern: a directory without wildcards, and names below it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Pattern {
    /// The longest part in front that has no wildcard.
    pub(crate) base: PathBuf,
    names: Vec<Vec<u8>>,
}

/// What a pattern found.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Found {
    /// In order of their names. They may be anything: files, directories, devices.
    pub(crate) paths: Vec<PathBuf>,
    /// The directories whose names decide.
    pub(crate) directories: Vec<PathBuf>,
}

impl Pattern {
    pub(crate) fn new(path: &Path) -> Pattern {
        let mut pattern = Pattern { base: PathBuf::new(), names: Vec::new() };
        for component in path.components() {
            match component {
                Component::Normal(name) if !pattern.names.is_empty() || has_wildcard(name.as_bytes()) => {
                    pattern.names.push(name.as_bytes().to_vec());
                }
                other => pattern.base.push(other),
            }
        }
        pattern
    }

    /// Whether it stands for this path.
    pub(crate) fn matches(&self, path: &Path) -> bool {
        let Ok(rest) = path.strip_prefix(&self.base) else { return false };
        let names: Vec<&OsStr> = rest.iter().collect();
        names.len() == self.names.len()
            && self.names.iter().zip(names).all(|(pattern, name)| matches(pattern, name.as_bytes()))
    }

    /// What it stands for now.
    ///
    /// # Errors
    /// Where the directory in front of the first wildcard cannot be listed; one further down that cannot has no matches.
    pub(crate) fn expand(&self) -> io::Result<Found> {
        let mut found = Found { paths: vec![self.base.clone()], directories: Vec::new() };
        for (depth, name) in self.names.iter().enumerate() {
            let mut paths = Vec::new();
            for dir in std::mem::take(&mut found.paths) {
                match list(&dir, name) {
                    Ok(names) => paths.extend(names.into_iter().map(|name| dir.join(name))),
                    Err(error) if depth == 0 => return Err(error),
                    Err(_) => continue,
                }
                found.directories.push(dir);
            }
            found.paths = paths;
        }
        found.paths.sort();
        Ok(found)
    }
}

fn list(dir: &Path, pattern: &[u8]) -> io::Result<Vec<std::ffi::OsString>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(dir)? {
        let name = entry?.file_name();
        if matches(pattern, name.as_bytes()) {
            names.push(name);
        }
    }
    Ok(names)
}

fn has_wildcard(name: &[u8]) -> bool {
    name.iter().any(|byte| b"*?[".contains(byte))
}

/// Whether a name fits. Goes back to the last star only, so the time is bounded by the product of the lengths.
fn matches(pattern: &[u8], name: &[u8]) -> bool {
    if name.first() == Some(&b'.') && pattern.first() != Some(&b'.') {
        return false;
    }
    let (mut p, mut n) = (0, 0);
    let mut star = None;
    while n < name.len() {
        if pattern.get(p) == Some(&b'*') {
            star = Some((p, n));
            p += 1;
        } else if let Some(len) = one(&pattern[p..], name[n]) {
            p += len;
            n += 1;
        } else if let Some((star_p, star_n)) = star {
            // The star takes one byte more.
            (p, n) = (star_p + 1, star_n + 1);
            star = Some((star_p, n));
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(|&byte| byte == b'*')
}

/// Whether the front of the pattern fits one byte; returns how long that front is.
fn one(pattern: &[u8], byte: u8) -> Option<usize> {
    match *pattern.first()? {
        b'?' => Some(1),
        b'[' => match set(pattern) {
            Some((len, is_negated, members)) => {
                let mut rest = members;
                let mut is_member = false;
                while let [first, tail @ ..] = rest {
                    match tail {
                        [b'-', last, tail @ ..] => {
                            is_member |= (*first..=*last).contains(&byte);
                            rest = tail;
                        }
                        _ => {
                            is_member |= *first == byte;
                            rest = tail;
                        }
                    }
                }
                (is_member != is_negated).then_some(len)
            }
            None => (byte == b'[').then_some(1),
        },
        other => (other == byte).then_some(1),
    }
}

/// A set at the front of the pattern: its length, whether it is negated, and its members. A `]` in first place is a member.
fn set(pattern: &[u8]) -> Option<(usize, bool, &[u8])> {
    let is_negated = matches!(pattern.get(1), Some(b'!' | b'^'));
    let start = 1 + usize::from(is_negated);
    let end = start + 1 + pattern.get(start + 1..)?.iter().position(|&byte| byte == b']')?;
    Some((end + 1, is_negated, &pattern[start..end]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn fits(pattern: &str, name: &str) -> bool {
        matches(pattern.as_bytes(), name.as_bytes())
    }

    #[test]
    fn stars_question_marks_and_sets() {
        assert!(fits("*.log", "a.log") && fits("*.log", "a.b.log") && !fits("*.log", "a.log.1"));
        assert!(fits("a*b*c", "a--b-b-c") && !fits("a*b*c", "a--c-b"));
        assert!(fits("till?", "till1") && !fits("till?", "till") && !fits("till?", "till12"));
        assert!(fits("till[0-9a]", "till7") && fits("till[0-9a]", "tilla") && !fits("till[0-9a]", "tillb"));
        assert!(!fits("till[!0-9]", "till7") && fits("till[^0-9]", "tillx"));
        assert!(fits("[]]", "]") && fits("[a-]", "-") && fits("[*]", "*") && !fits("[*]", "x"));
        assert!(fits("a[b", "a[b") && !fits("a[b", "ab"), "a set that is never closed is itself");
        assert!(matches(b"a*", b"a\xff\n"));
    }

    #[test]
    fn a_dot_in_front_is_matched_by_a_dot_only() {
        assert!(!fits("*", ".hidden") && !fits("?a", ".a") && !fits("[.]a", ".a") && fits(".*", ".hidden"));
    }

    #[test]
    fn directories_are_walked_and_reported() {
        let dir = tempfile::tempdir().unwrap();
        let base = dir.path();
        for name in ["tills/1/pos.log", "tills/2/pos.log", "tills/2/other", "tills/.3/pos.log", "tills/x.log"] {
            let path = base.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
        let pattern = Pattern::new(&base.join("tills/*/pos.*"));
        assert_eq!(pattern.base, base.join("tills"));
        let found = pattern.expand().unwrap();
        assert_eq!(found.paths, [base.join("tills/1/pos.log"), base.join("tills/2/pos.log")]);
        let mut directories = found.directories;
        directories.sort();
        assert_eq!(directories, ["tills", "tills/1", "tills/2"].map(|name| base.join(name)));
        assert!(pattern.matches(&base.join("tills/9/pos.log.1")));
        assert!(!pattern.matches(&base.join("tills/9/10/pos.log")) && !pattern.matches(Path::new("/tills/9/pos.log")));
        let absent = Pattern::new(&base.join("nothing/*"));
        assert_eq!(absent.expand().unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    /// Stars and question marks, by trying everything.
    fn model(pattern: &[u8], name: &[u8]) -> bool {
        match pattern {
            [] => name.is_empty(),
            [b'*', rest @ ..] => (0..=name.len()).any(|taken| model(rest, &name[taken..])),
            [b'?', rest @ ..] => !name.is_empty() && model(rest, &name[1..]),
            [byte, rest @ ..] => name.first() == Some(byte) && model(rest, &name[1..]),
        }
    }

    proptest! {
        #[test]
        fn matching_is_what_trying_everything_finds(pattern in "[ab*?]{0,8}", name in "[ab]{0,10}") {
            prop_assert_eq!(fits(&pattern, &name), model(pattern.as_bytes(), name.as_bytes()));
        }

        #[test]
        fn any_pattern_and_name_are_taken(
            pattern in proptest::collection::vec(any::<u8>(), 0..12), name in proptest::collection::vec(any::<u8>(), 0..12),
        ) {
            matches(&pattern, &name);
        }
    }
}
