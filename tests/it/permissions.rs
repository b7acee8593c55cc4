//! Who may look at a store, who may change it, and what a symbolic link in it does.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown, symlink};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;

use crate::program::{Place, feed, make_private_dir};

/// A user who owns nothing.
const NOBODY: u32 = 65_534;

/// Whether the tests may, and that user can, run the program; root's own permissions hide most mistakes.
fn can_be_nobody() -> bool {
    if !rustix::process::geteuid().is_root() {
        println!("SKIPPED: becoming another user takes root");
        return false;
    }
    let version = Command::new(env!("CARGO_BIN_EXE_kifa")).arg("--version").uid(NOBODY).output();
    if !version.is_ok_and(|output| output.status.success()) {
        println!("SKIPPED: the program lies where another user cannot run it");
        return false;
    }
    true
}

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().permissions().mode() & 0o7777
}

fn chmod(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// The same command under this umask.
fn under_umask(umask: &str, command: &Command) -> Command {
    let mut shell = Command::new("sh");
    shell
        .args(["-c", &format!("umask {umask}; exec \"$@\""), "sh"])
        .arg(command.get_program())
        .args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => shell.env(name, value),
            None => shell.env_remove(name),
        };
    }
    shell
}

/// Runs a daemon under the umask and looks at everything it made.
fn check_umask(umask: &str, user: Option<u32>) {
    let place = Place::new();
    let store = place.beside("made/on/the/way");
    let mut kifa = crate::program::kifa(&["daemon", "--stdin", "-d", store.to_str().unwrap()]);
    kifa.args(["--segment-size-mib", "1", "--memtable-threshold-mib", "1"]);
    let run = |input: &[u8]| {
        let mut command = under_umask(umask, &kifa);
        if let Some(user) = user {
            chown(place.dir(), Some(user), None).unwrap();
            command.uid(user);
        }
        feed(&mut command, input).expect(0)
    };
    run(format!("{:01000}\n", 7).repeat(3000).as_bytes());
    let mut stack = vec![store.clone()];
    let mut files = 0;
    while let Some(path) = stack.pop() {
        if path.is_dir() {
            assert_eq!(mode(&path), 0o700, "umask {umask}: {}", path.display());
            stack.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        } else {
            assert_eq!(mode(&path), 0o600, "umask {umask}: {}", path.display());
            files += 1;
        }
    }
    assert!(files > 4, "segments, tables, a manifest and the lock: {files}");
    // A second run opens what the first one made.
    run(b"one more\n");
}

#[test]
fn a_store_is_its_owners_alone_whatever_the_umask() {
    for umask in ["0000", "0002", "0022", "0077", "0777"] {
        check_umask(umask, None);
    }
}

#[test]
fn a_store_is_its_owners_alone_whatever_the_umask_of_an_ordinary_user() {
    if can_be_nobody() {
        for umask in ["0000", "0777"] {
            check_umask(umask, Some(NOBODY));
        }
    }
}

#[test]
fn a_directory_that_others_may_write_to_is_refused_with_the_remedy() {
    let place = Place::with_lines(&["one"]);
    for wrong in [0o777, 0o1777, 0o770, 0o720, 0o702] {
        chmod(&place.store(), wrong);
        let before = place.snapshot();
        let ran = place.daemon(b"two\n", &[]).expect(77);
        let expected = format!(
            "kifa: cannot use {0}: others than its owner may write to it (mode {wrong:04o}), so what is stored could be \
             replaced; run: chmod 700 {0}\n",
            place.store().display()
        );
        assert!(ran.stderr.ends_with(&expected), "{}", ran.stderr);
        assert_eq!(place.snapshot(), before, "nothing was made");
        place.run("query", &[]).expect(0);
    }
    for right in [0o700, 0o750, 0o755] {
        chmod(&place.store(), right);
        place.daemon(b"more\n", &[]).expect(0);
    }
    let new = Place::new();
    make_private_dir(&new.store());
    chmod(&new.store(), 0o777);
    new.daemon(b"one\n", &[]).expect(77);
    assert_eq!(fs::read_dir(new.store()).unwrap().count(), 0, "an empty one is not made a store either");
    // What `mkdir` makes under a umask of 0002 becomes a store that only its owner may change.
    chmod(&new.store(), 0o775);
    new.daemon(b"one\n", &[]).expect(0);
    assert_eq!(mode(&new.store()), 0o755);
}

#[test]
fn the_directory_must_belong_to_the_user_or_to_root() {
    if !can_be_nobody() {
        return;
    }
    let place = Place::with_lines(&["one"]);
    chown(place.store(), Some(NOBODY), None).unwrap();
    let ran = place.daemon(b"two\n", &[]).expect(77);
    assert!(ran.stderr.contains("it belongs to user 65534 and kifa runs as user 0"), "{}", ran.stderr);
    assert!(ran.stderr.contains("run kifa as user 65534, or: chown -R 0 "), "{}", ran.stderr);
    place.run("query", &[]).expect(0);

    // As that user, all of it being his, it is fine; reached through a link, as the state of a dynamic user is.
    let as_nobody = |store: &Path| {
        let mut kifa = crate::program::kifa(&["daemon", "--stdin", "-d", store.to_str().unwrap()]);
        feed(kifa.uid(NOBODY).gid(NOBODY), b"two\n")
    };
    chmod(Path::new(place.dir()), 0o755);
    let theirs = place.beside("theirs");
    make_private_dir(&theirs);
    chown(&theirs, Some(NOBODY), Some(NOBODY)).unwrap();
    let link = place.beside("link");
    symlink(&theirs, &link).unwrap();
    as_nobody(&link).expect(0);
    assert_eq!(fs::metadata(theirs.join("LOCK")).unwrap().uid(), NOBODY);
    // A directory of root's that he may not write to says so itself.
    let roots = place.beside("roots");
    make_private_dir(&roots);
    chmod(&roots, 0o755);
    let ran = as_nobody(&roots).expect(77);
    assert!(ran.stderr.contains("Permission denied"), "{}", ran.stderr);
}

#[test]
fn a_store_may_be_reached_through_a_link_but_holds_none() {
    let place = Place::with_lines(&["one"]);
    let moved = place.beside("larger disk");
    fs::rename(place.store(), &moved).unwrap();
    symlink(&moved, place.store()).unwrap();
    place.daemon(b"two\n", &[]).expect(0);
    assert_eq!(place.payloads(), ["one", "two"]);

    let names = |dir: &str| -> Vec<String> {
        let entries = fs::read_dir(moved.join(dir)).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    };
    let manifest = names("").into_iter().find(|name| name.starts_with("MANIFEST")).unwrap();
    let segment = format!("wal/{}", names("wal").iter().min().unwrap());
    for name in ["wal", "sst", "LOCK", &manifest, &segment] {
        let (inside, outside) = (moved.join(name), place.beside("outside"));
        if !inside.exists() {
            fs::create_dir(&inside).unwrap();
        }
        fs::rename(&inside, &outside).unwrap();
        symlink(&outside, &inside).unwrap();
        let last = name.rsplit('/').next().unwrap();
        let expected = format!("{last} is a symbolic link, and links inside a store are not followed");
        let before = place.snapshot();
        let ran = place.daemon(b"three\n", &[]).expect(77);
        assert!(ran.stderr.contains(&expected), "{name}: {}", ran.stderr);
        for command in [&["query"][..], &["stats"], &["export", "-o", "-"]] {
            let ran = place.run(command[0], &command[1..]).expect(2);
            assert!(ran.stderr.contains(&expected) && ran.stdout.is_empty(), "{name}: {}", ran.stderr);
        }
        assert_eq!(place.snapshot(), before, "{name}");
        fs::remove_file(&inside).unwrap();
        fs::rename(&outside, &inside).unwrap();
    }
    assert_eq!(place.payloads(), ["one", "two"]);
}

#[test]
fn the_configuration_in_the_directory_may_be_a_link() {
    let place = Place::new();
    make_private_dir(&place.store());
    fs::write(place.beside("managed.toml"), "[sources]\nstdin = true\n").unwrap();
    symlink(place.beside("managed.toml"), place.store().join("kifa.toml")).unwrap();
    feed(&mut place.command("daemon", &[]), b"one\n").expect(0);
    assert_eq!(place.payloads(), ["one"]);
}
