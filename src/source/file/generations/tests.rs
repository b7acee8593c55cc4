//! Directories of rotated files, and what is news in them.

use std::time::{Duration, SystemTime};

use super::*;

struct Dir(tempfile::TempDir);

impl Dir {
    fn new() -> Dir {
        Dir(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// A file that was written so many seconds after the epoch.
    fn file(&self, name: &str, seconds: u64) -> FileId {
        fs::write(self.path(name), name).unwrap();
        let file = File::options().write(true).open(self.path(name)).unwrap();
        file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)).unwrap();
        FileId::of(&file.metadata().unwrap())
    }

    /// Where the file went, what came behind it, and what of that cannot be read.
    fn successors(
        &self,
        path: &str,
        id: FileId,
        old: &Old,
        seconds: i64,
    ) -> (Option<String>, Vec<String>, Vec<String>) {
        let found = siblings(&self.path(path), Some(id), old, &Listings::default()).unwrap();
        let mtime_ns = seconds * 1_000_000_000;
        let name = |path: &PathBuf| path.file_name().unwrap().to_str().unwrap().to_owned();
        let news = found.news(mtime_ns, &|known| known == id).unwrap();
        let between = news.iter().map(|generation| name(&generation.path)).collect();
        (found.rotated.as_ref().map(name), between, found.compressed_news(mtime_ns).iter().map(name).collect())
    }

    fn old(&self, path: &str) -> Old {
        siblings(&self.path(path), None, &UNKNOWN, &Listings::default()).unwrap().old(&|_| false)
    }
}

/// Nothing is known of what was there.
const UNKNOWN: Old = Old { files: Vec::new(), is_complete: false };

fn names(names: &[&str]) -> Vec<String> {
    names.iter().map(|&name| name.to_owned()).collect()
}

#[test]
fn what_was_not_there_before_is_news_whatever_the_clock_says() {
    let dir = Dir::new();
    let rotated = dir.file("a.log", 10);
    dir.file("a.log.1", 900);
    let old = dir.old("a.log");
    fs::rename(dir.path("a.log.1"), dir.path("a.log.4")).unwrap();
    fs::rename(dir.path("a.log"), dir.path("a.log.3")).unwrap();
    dir.file("a.log.2", 10);
    dir.file("a.log.1", 5);
    dir.file("a.log", 7);
    dir.file("b.log.1", 20);
    dir.file("a.log.old", 20);
    let gone = FileId { dev: 1, ino: 1 };
    let expected = (Some("a.log.3".to_owned()), names(&["a.log.1", "a.log.2"]), vec![]);
    assert_eq!(dir.successors("a.log", rotated, &old, 10), expected);
    assert_eq!(dir.successors("a.log", gone, &old, 10).1, ["a.log.1", "a.log.3", "a.log.2"]);
    dir.file("a.log.7.gz", 15);
    dir.file("a.log.8.gz", 9);
    assert_eq!(dir.successors("a.log", rotated, &old, 10).2, ["a.log.7.gz"], "by its time: the other is old");
}

#[test]
fn without_a_note_the_time_decides_and_then_the_number() {
    let dir = Dir::new();
    dir.file("a.log.4", 9);
    let rotated = dir.file("a.log.3", 10);
    dir.file("a.log.2", 20);
    dir.file("a.log.1", 20);
    let expected = (Some("a.log.3".to_owned()), names(&["a.log.2", "a.log.1"]), vec![]);
    assert_eq!(dir.successors("a.log", rotated, &UNKNOWN, 10), expected);
    assert_eq!(dir.successors("a.log", FileId { dev: 1, ino: 1 }, &UNKNOWN, 20), (None, vec![], vec![]));
}

#[test]
fn dates_in_names_are_numbers_wherever_they_stand() {
    let dir = Dir::new();
    let rotated = dir.file("a-2026-01-01.log", 10);
    let old = dir.old("a.log");
    dir.file("a-2026-01-02.log", 20);
    dir.file("ab-2026-01-02.log", 20);
    dir.file("a.log", 30);
    let expected = (Some("a-2026-01-01.log".to_owned()), names(&["a-2026-01-02.log"]), vec![]);
    assert_eq!(dir.successors("a.log", rotated, &old, 10), expected);
}

#[test]
fn the_logs_of_other_tills_are_not_generations_of_this_one() {
    let dir = Dir::new();
    let rotated = dir.file("till3.log", 10);
    dir.file("till2.log", 20);
    dir.file("till1.log", 30);
    let expected = (Some("till3.log".to_owned()), vec![], vec![]);
    assert_eq!(dir.successors("till1.log", rotated, &UNKNOWN, 10), expected);
    dir.file("till2.log.1", 20);
    let gone = FileId { dev: 1, ino: 1 };
    assert_eq!(dir.successors("till1.log", gone, &UNKNOWN, 10), (None, vec![], vec![]));
    dir.file("till1.log.1", 20);
    assert_eq!(dir.successors("till1.log", gone, &UNKNOWN, 10), (None, names(&["till1.log.1"]), vec![]));
}

#[test]
fn a_file_is_old_by_its_number_and_its_head() {
    let dir = Dir::new();
    dir.file("a.log.1", 10);
    let old = dir.old("a.log");
    let gone = FileId { dev: 1, ino: 1 };
    assert_eq!(dir.successors("a.log", gone, &old, 0).1, Vec::<String>::new());
    // Another content under the same number.
    fs::write(dir.path("a.log.1"), "other").unwrap();
    assert_eq!(dir.successors("a.log", gone, &old, 0).1, ["a.log.1"]);
}

#[test]
fn a_copy_is_new_and_has_the_bytes() {
    let dir = Dir::new();
    let (content, offset) = ("the first line\nthe second line\n", 15);
    fs::write(dir.path("a.log"), content).unwrap();
    fs::write(dir.path("a.log.3"), content).unwrap();
    let old = dir.old("a.log");
    let marks = super::super::identity::Marks::read(&File::open(dir.path("a.log")).unwrap(), offset).unwrap();
    let position = Position { offset, prints: marks.unwrap().prints(), ..Position::default() };
    let copy = || {
        let found = siblings(&dir.path("a.log"), None, &old, &Listings::default()).unwrap();
        found.copy(&position, &|_| false).unwrap().map(|(generation, verdict)| (generation.path, verdict))
    };
    assert!(copy().is_none());
    fs::write(dir.path("a.log.2"), "the first lie\nthe second line\n").unwrap();
    fs::write(dir.path("b.log.1"), content).unwrap();
    fs::write(dir.path("a.log.4.gz"), content).unwrap();
    assert!(copy().is_none());
    fs::write(dir.path("a.log.5"), &content[..14]).unwrap();
    assert!(copy().is_none(), "14 bytes say too little");
    fs::write(dir.path("a.log.1"), content).unwrap();
    let (path, verdict) = copy().unwrap();
    assert!(path == dir.path("a.log.1") && matches!(verdict, Verdict::Same(_)));
}

#[test]
fn only_regular_files_are_opened() {
    let dir = Dir::new();
    let refused = |path: &Path| open_regular(path).unwrap_err().to_string();
    assert_eq!(refused(dir.0.path()), "it is a directory");
    assert_eq!(refused(Path::new("/dev/null")), "it is a device, not a file");
    rustix::fs::mknodat(rustix::fs::CWD, dir.path("pipe"), rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
    assert_eq!(refused(&dir.path("pipe")), "it is a pipe, not a file (kifa daemon --stdin reads one)");
}

#[test]
fn a_directory_is_listed_once_for_all_that_look_during_a_scan() {
    let dir = Dir::new();
    dir.file("a.log.1", 10);
    let scan = Listings::default();
    let seen = |listings: &Listings| siblings(&dir.path("a.log"), None, &UNKNOWN, listings).unwrap().all.len();
    assert_eq!(seen(&scan), 1);
    dir.file("a.log.2", 20);
    assert_eq!(seen(&scan), 1, "as the first one saw it");
    assert_eq!(seen(&Listings::default()), 2);
}
