use super::*;

#[test]
fn paths_stay_inside_the_store() {
    for path in ["MANIFEST-1", "wal/0001.wal", "a/b/c"] {
        assert!(checked_path(path).is_ok(), "{path:?}");
    }
    for path in ["", "/etc/passwd", "..", "wal/../../x", "wal//x", "./x", "x/", "C:x", "a\\b", "a\0b"] {
        assert!(checked_path(path).is_err(), "{path:?}");
    }
}

#[cfg(feature = "cli")]
#[test]
fn the_medium_gives_the_same_bytes_back_wherever_a_read_begins_and_ends() {
    use super::medium::MediumVfs;
    // On the disk that holds the build: a `/tmp` in memory has no medium.
    let build = std::env::current_exe().expect("it has a path");
    let base = tempfile::tempdir_in(build.parent().expect("it lies in a directory")).expect("a temporary directory");
    let bytes: Vec<u8> = (0..3_000_001_u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    std::fs::write(base.path().join("file"), &bytes).expect("it is written");
    let vfs = MediumVfs::open(base.path()).expect("it can be opened");
    let file = vfs.open("file").expect("it can be opened");
    assert_eq!(file.bytes().expect("it has a length"), 3_000_001);
    for (offset, len) in
        [(0, 4096), (1, 1), (4095, 2), (0, 3_000_001), (77, 2_500_000), (2_999_990, 50), (3_000_001, 9)]
    {
        let mut buf = vec![0; len];
        let read = file.read_at(&mut buf, offset as u64).expect("it can be read");
        let expected = &bytes[offset..(offset + len).min(bytes.len())];
        assert!(buf[..read] == *expected, "{len} bytes at {offset}: {read} were read");
    }
    println!("read: {:?}", vfs.read_path());
}

#[test]
fn a_span_must_fit_its_buffer_and_keep_to_blocks() {
    assert!(check_span(4096, 8192, 8192).is_ok());
    assert!(check_span(0, 0, 4096).is_ok());
    assert!(check_span(0, 8192, 4096).is_err());
    assert!(check_span(512, 4096, 4096).is_err());
    assert!(check_span(0, 100, 4096).is_err());
}

#[test]
fn a_store_directory_is_made_with_its_parents() {
    let base = tempfile::tempdir().expect("a temporary directory");
    let store = base.path().join("a/b/store");
    create_store_dir(&store).expect("it can be made");
    create_store_dir(&store).expect("one that exists is left as it is");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        assert_eq!(std::fs::metadata(&store).expect("it exists").permissions().mode() & 0o7777, 0o700);
    }
    std::fs::write(base.path().join("file"), "").expect("a file");
    assert!(create_store_dir(&base.path().join("file")).is_err());
    assert!(create_store_dir(&base.path().join("file/store")).is_err());
}

#[cfg(unix)]
#[test]
fn an_open_store_may_be_moved() {
    let base = tempfile::tempdir().expect("a temporary directory");
    let (before, after) = (base.path().join("before"), base.path().join("after"));
    create_store_dir(&before).expect("it can be made");
    let vfs = RealVfs::open(&before).expect("it opens");
    std::fs::write(before.join("x"), "1").expect("a file");
    std::fs::rename(&before, &after).expect("it can be moved");
    assert_eq!(vfs.metadata("x").expect("it is still there").bytes, 1);
}

#[cfg(unix)]
#[test]
fn a_pipe_in_place_of_a_file_is_refused_and_not_waited_for() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let made = std::process::Command::new("mkfifo").arg(dir.path().join("pipe")).status();
    assert!(made.expect("mkfifo is there").success());
    let vfs = RealVfs::open(dir.path()).expect("it opens");
    assert!(vfs.open("pipe").is_err());
    assert!(vfs.metadata("pipe").is_err());
    assert!(!vfs.list("").expect("a listing")[0].is_file);
}

#[cfg(unix)]
#[test]
fn no_component_of_a_path_is_followed_if_it_is_a_link() {
    let base = tempfile::tempdir().expect("a temporary directory");
    let (store, elsewhere) = (base.path().join("store"), base.path().join("elsewhere"));
    create_store_dir(&store).expect("it can be made");
    create_store_dir(&elsewhere.join("deeper")).expect("it can be made");
    std::fs::write(elsewhere.join("file"), "somebody's").expect("a file");
    std::os::unix::fs::symlink(&elsewhere, store.join("wal")).expect("a link");
    std::os::unix::fs::symlink(elsewhere.join("file"), store.join("link")).expect("a link");
    std::fs::write(store.join("own"), "ours").expect("a file");
    let dir = StoreDir::open(&store).expect("it opens");
    let refused = |outcome: io::Result<()>| {
        let error = outcome.expect_err("a link is refused");
        assert!(error.to_string().contains("is a symbolic link"), "{error}");
    };
    for path in ["wal/file", "link", "wal/deeper/x"] {
        refused(dir.open_read(path).map(drop));
        refused(dir.open_rw(path).map(drop));
    }
    refused(dir.create("wal/new").map(drop));
    refused(dir.make_dir("wal/new"));
    refused(dir.list("wal").map(drop));
    refused(dir.sync_dir("wal"));
    refused(dir.metadata("wal/file").map(drop));
    refused(dir.unlink("wal/file"));
    refused(dir.rename("own", "wal/own"));
    refused(dir.rename("wal/file", "own"));
    assert!(dir.create("link").is_err() && dir.make_dir("wal").is_err() && dir.metadata("link").is_err());
    let left: Vec<_> =
        std::fs::read_dir(&elsewhere).expect("a listing").map(|e| e.expect("an entry").file_name()).collect();
    assert_eq!(left.len(), 2, "{left:?}");
    assert_eq!(std::fs::read(elsewhere.join("file")).expect("it is there"), b"somebody's");
}

#[test]
fn real_time_moves_on_and_random_numbers_differ() {
    let env = RealEnv;
    let begin = env.mono_ns();
    std::thread::sleep(std::time::Duration::from_millis(2));
    assert!(env.mono_ns() - begin >= 2_000_000);
    assert!(env.wall_ns() > 1_700_000_000_000_000_000, "this was written after 2023");
    assert_ne!(env.random_u64(), env.random_u64());
}

#[test]
fn the_backend_is_the_one_that_was_asked_for() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let (backend, why) = open_backend(dir.path(), IoBackend::Portable, SyncMethod::Auto).expect("it runs anywhere");
    assert_eq!((backend.info().name, backend.info().sync_method, why), ("portable", SyncMethod::Linked, None));
    let (backend, why) = open_backend(dir.path(), IoBackend::Auto, SyncMethod::Auto).expect("it falls back");
    assert_ne!(backend.info().sync_method, SyncMethod::Auto);
    // Where there is a reason for the portable backend, it is given, and the other way round.
    let could = cfg!(all(target_os = "linux", target_pointer_width = "64"));
    assert_eq!(why.is_some(), could && backend.info().name == "portable");
    assert_eq!(open_backend(dir.path(), IoBackend::Uring, SyncMethod::Auto).is_ok(), backend.info().name == "io_uring");
    assert!(open_backend(&dir.path().join("absent"), IoBackend::Auto, SyncMethod::Auto).is_err());
    // Opening a backend leaves nothing behind.
    assert_eq!(std::fs::read_dir(dir.path()).expect("a listing").count(), 0);
}
