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
