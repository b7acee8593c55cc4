//! The suite over the real backends, and what needs a process of its own: limits and masks belong to a whole process,
//! and the other tests run in this one.

use tempfile::TempDir;

use super::*;
use crate::io::SyncMethod;
use crate::io::fs::{RealVfs, open_backend};
use crate::options::IoBackend;

const DIR_VARIABLE: &str = "KIFA_TEST_DIR";
#[cfg(unix)]
const KIND_VARIABLE: &str = "KIFA_TEST_KIND";

/// A real backend to test.
#[derive(Clone, Copy, Debug)]
struct Kind {
    name: &'static str,
    choice: IoBackend,
    method: SyncMethod,
}

const PORTABLE: Kind = Kind { name: "portable", choice: IoBackend::Portable, method: SyncMethod::Linked };
#[cfg(target_os = "linux")]
const PORTABLE_DSYNC: Kind = Kind { name: "portable-dsync", choice: IoBackend::Portable, method: SyncMethod::Dsync };
#[cfg(all(target_os = "linux", target_pointer_width = "64"))]
const URING_LINKED: Kind = Kind { name: "uring-linked", choice: IoBackend::Uring, method: SyncMethod::Linked };
#[cfg(all(target_os = "linux", target_pointer_width = "64"))]
const URING_DSYNC: Kind = Kind { name: "uring-dsync", choice: IoBackend::Uring, method: SyncMethod::Dsync };

#[cfg(unix)]
const KINDS: &[Kind] = &[
    PORTABLE,
    #[cfg(target_os = "linux")]
    PORTABLE_DSYNC,
    #[cfg(all(target_os = "linux", target_pointer_width = "64"))]
    URING_LINKED,
    #[cfg(all(target_os = "linux", target_pointer_width = "64"))]
    URING_DSYNC,
];

/// Whether io_uring cannot be had here; then says so.
pub(crate) fn uring_refused() -> bool {
    let dir = tempfile::tempdir().expect("a temporary directory");
    match open_backend(dir.path(), IoBackend::Uring, SyncMethod::Linked) {
        Ok(_) => false,
        Err(why) => {
            println!("SKIPPED: {why}");
            true
        }
    }
}

fn refused(kind: Kind) -> bool {
    kind.choice == IoBackend::Uring && uring_refused()
}

enum Place {
    Own(TempDir),
    #[cfg(unix)]
    Given(PathBuf),
}

struct RealDisk {
    place: Place,
    kind: Kind,
}

impl RealDisk {
    fn path(&self) -> &Path {
        match &self.place {
            Place::Own(dir) => dir.path(),
            #[cfg(unix)]
            Place::Given(dir) => dir,
        }
    }
}

impl Disk for RealDisk {
    fn backend(&self) -> Box<dyn Backend> {
        let (backend, why) = open_backend(self.path(), self.kind.choice, self.kind.method).expect("it opens");
        assert_eq!(why, None);
        assert_eq!(backend.info().sync_method, self.kind.method);
        backend
    }

    fn vfs(&self) -> Arc<dyn Vfs> {
        Arc::new(RealVfs::open(self.path()).expect("the directory is there"))
    }

    fn root(&self) -> Option<&Path> {
        Some(self.path())
    }
}

fn suite(kind: Kind) {
    if refused(kind) {
        return;
    }
    println!("over {}", kind.name);
    run(&|| Box::new(RealDisk { place: Place::Own(tempfile::tempdir().expect("a temporary directory")), kind }));
}

#[test]
fn portable_conforms() {
    suite(PORTABLE);
}

#[cfg(target_os = "linux")]
#[test]
fn portable_with_dsync_conforms() {
    suite(PORTABLE_DSYNC);
}

#[cfg(all(target_os = "linux", target_pointer_width = "64"))]
#[test]
fn uring_with_linked_syncs_conforms() {
    suite(URING_LINKED);
}

#[cfg(all(target_os = "linux", target_pointer_width = "64"))]
#[test]
fn uring_with_dsync_conforms() {
    suite(URING_DSYNC);
}

/// This program, set up to run one ignored test as a child that works in `dir`.
pub(crate) fn child_test(name: &str, dir: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("this program has a path"));
    command.args(["--exact", name, "--ignored", "--nocapture"]).env(DIR_VARIABLE, dir);
    command
}

/// The directory a child was given; `None` where somebody runs the ignored tests by hand.
pub(crate) fn child_dir() -> Option<PathBuf> {
    std::env::var_os(DIR_VARIABLE).map(PathBuf::from)
}

/// Runs an ignored test in a child for each real backend, and passes on what it complains about.
#[cfg(unix)]
fn in_a_child(name: &str) {
    for kind in KINDS.iter().filter(|kind| !refused(**kind)) {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let child = child_test(name, dir.path()).env(KIND_VARIABLE, kind.name).output().expect("the child runs");
        let said = String::from_utf8_lossy(&child.stdout);
        let complained = String::from_utf8_lossy(&child.stderr);
        assert!(child.status.success() && said.contains("1 passed"), "{kind:?}: {said}{complained}");
        assert!(said.contains("CHECKED"), "{kind:?}: the child returned early: {said}");
    }
}

/// The backend and the directory a child is to use.
#[cfg(unix)]
fn child_disk() -> Option<RealDisk> {
    let name = std::env::var(KIND_VARIABLE).ok()?;
    let kind = *KINDS.iter().find(|kind| kind.name == name)?;
    Some(RealDisk { place: Place::Given(child_dir()?), kind })
}

#[cfg(unix)]
#[test]
fn modes_do_not_depend_on_the_umask() {
    in_a_child("io::conformance::real::child_with_an_odd_umask");
}

#[cfg(unix)]
#[test]
#[ignore = "a child of another test"]
fn child_with_an_odd_umask() {
    use std::os::unix::fs::PermissionsExt;
    let Some(disk) = child_disk() else { return };
    let mode = |path: &str| {
        let metadata = std::fs::metadata(disk.path().join(path)).expect("it was made");
        metadata.permissions().mode() & 0o7777
    };
    let mut client = Client::new(&disk);
    for (at, umask) in [0o777, 0o000, 0o222].into_iter().enumerate() {
        rustix::process::umask(rustix::fs::Mode::from_raw_mode(umask));
        let (file, dir, store) = (format!("file{at}"), format!("dir{at}"), format!("store{at}"));
        client.create(&file);
        client.ok(Op::MakeDir { path: dir.clone() });
        client.create(&format!("{dir}/file"));
        crate::io::fs::create_store_dir(&disk.path().join(&store)).expect("it can be made");
        drop(crate::io::lock::StoreLock::acquire(&disk.path().join(&store), Duration::ZERO).expect("it is free"));
        assert_eq!(mode(&file), 0o600, "umask {umask:o}");
        assert_eq!(mode(&format!("{store}/LOCK")), 0o600, "umask {umask:o}");
        assert_eq!((mode(&dir), mode(&store)), (0o700, 0o700), "umask {umask:o}");
    }
    println!("\nCHECKED");
}

#[cfg(unix)]
#[test]
fn a_short_write_is_an_error() {
    in_a_child("io::conformance::real::child_with_a_file_size_limit");
}

/// A write across the limit on the size of files stores what fits, reports that many bytes, and raises no signal.
#[cfg(unix)]
#[test]
#[ignore = "a child of another test"]
fn child_with_a_file_size_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Some(disk) = child_disk() else { return };
    let blocks = |count: usize| count * BLOCK_BYTES;
    let mut client = Client::new(&disk);
    let limit = Rlimit { current: Some(blocks(2) as u64), ..getrlimit(Resource::Fsize) };
    setrlimit(Resource::Fsize, limit).expect("a limit can be lowered");
    for (path, durability) in [("none", Durability::None), ("own", Durability::Own), ("file", Durability::File)] {
        let file = client.create(path);
        let done = client.complete(write(file, 0, &vec![1; blocks(3)], durability));
        let error = done.outcome.expect_err("only two blocks fit");
        assert_eq!(error.kind(), std::io::ErrorKind::WriteZero);
        assert_eq!(error.to_string(), "short write: 8192 of 12288 bytes");
        assert_eq!(done.buf.expect("the buffer comes back").len(), blocks(3));
        client.write(file, 0, &block_of(2), durability);
    }
    println!("\nCHECKED");
}
