//! Colour and pager: on a terminal of our own, and nowhere else.

use std::fs::{self, File};
use std::io::Read as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

use crate::program::{Place, Ran, kifa, run};

const ESCAPE: char = '\x1b';

/// Options, variables, and whether there is colour.
type Case<'a> = (&'a [&'a str], &'a [(&'a str, &'a str)], bool);

/// Runs the command with a terminal as its standard output; what came out there, with its line ends as LF.
#[track_caller]
fn on_terminal(command: &mut Command) -> (Ran, String) {
    with_terminal(command, |command, terminal| command.stdout(terminal).stderr(Stdio::piped()))
}

/// Runs the command with a terminal where `give` puts it.
#[track_caller]
pub(crate) fn with_terminal(command: &mut Command, give: impl Fn(&mut Command, File) -> &mut Command) -> (Ran, String) {
    let master = File::from(openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap());
    grantpt(&master).unwrap();
    unlockpt(&master).unwrap();
    let name = ptsname(&master, Vec::new()).unwrap();
    let open = || {
        let mut options = File::options();
        std::os::unix::fs::OpenOptionsExt::custom_flags(&mut options, rustix::fs::OFlags::NOCTTY.bits() as i32);
        options.read(true).write(true).open(Path::new(std::ffi::OsStr::from_bytes(name.as_bytes()))).unwrap()
    };
    let child = give(command, open()).spawn().unwrap();
    // The command keeps what it was given.
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let reader = std::thread::spawn(move || {
        let mut screen = Vec::new();
        // The last one to close the other end makes this an error, which is the end.
        let _ = (&master).read_to_end(&mut screen);
        String::from_utf8(screen).unwrap().replace("\r\n", "\n")
    });
    let ran = Ran::from(child.wait_with_output().unwrap());
    (ran, reader.join().unwrap())
}

fn query(place: &Place, args: &[&str], variables: &[(&str, &str)]) -> Command {
    let mut command = place.command("query", args);
    command.env("TERM", "xterm").env("KIFA_PAGER", "").envs(variables.iter().copied());
    command
}

#[test]
fn colour_is_for_terminals_and_for_who_asks_for_it() {
    let place = Place::with_lines(&["the receipt"]);
    let plain = place.run("query", &[]).expect(0).text().to_owned();
    assert!(!plain.contains(ESCAPE));
    let terminal: [Case<'_>; 8] = [
        (&[], &[], true),
        (&["--color", "never"], &[], false),
        (&["--color=auto"], &[("NO_COLOR", "1")], false),
        (&["--color=always"], &[("NO_COLOR", "1")], true),
        (&[], &[("NO_COLOR", "")], true),
        (&[], &[("TERM", "dumb")], false),
        (&[], &[("CLICOLOR", "0")], false),
        (&["-o", "json"], &[], false),
    ];
    for (args, variables, expected) in terminal {
        let (ran, screen) = on_terminal(&mut query(&place, args, variables));
        ran.expect(0);
        assert_eq!(screen.contains(ESCAPE), expected, "{args:?} {variables:?}: {screen:?}");
    }
    let elsewhere: [Case<'_>; 5] = [
        (&[], &[("CLICOLOR_FORCE", "1")], true),
        (&[], &[("CLICOLOR_FORCE", "0")], false),
        (&[], &[("CLICOLOR_FORCE", "1"), ("NO_COLOR", "1")], false),
        (&["--color", "always"], &[], true),
        (&["--color", "always", "-o", "csv"], &[], false),
    ];
    for (args, variables, expected) in elsewhere {
        let ran = Ran::from(query(&place, args, variables).output().unwrap()).expect(0);
        assert_eq!(ran.text().contains(ESCAPE), expected, "{args:?} {variables:?}");
    }
    let painted = place.run("query", &["--color", "always", "-g", "rec[a-z]+"]).expect(0);
    assert!(painted.text().ends_with(" UTC \x1b[0mthe \x1b[1;31mreceipt\x1b[0m\n"), "{:?}", painted.text());
    assert!(place.run("stats", &["--color", "always"]).expect(0).text().starts_with("\x1b[1mStorage:\x1b[0m\n"));
    assert!(
        place.run("verify", &["--color", "always"]).expect(0).text().contains("\x1b[32mResult: no damage\x1b[0m\n")
    );
    assert!(run(&["--color", "never", "query", "--form"]).expect(2).stderr.starts_with("kifa: "));
    run(&["--color", "blue", "query"]).expect(2);
    run(&["ingest", "query"]).expect(64);
    assert!(run(&["--color", "always", "--help"]).expect(0).text().contains(ESCAPE));
    assert!(!run(&["--help"]).expect(0).text().contains(ESCAPE));
}

#[test]
fn long_output_goes_through_the_pager_on_a_terminal_only() {
    let place = Place::with_lines(&["a", "b"]);
    let plain = place.run("query", &[]).expect(0).text().to_owned();
    let seen = place.beside("seen");
    let pager = format!("tee {}", seen.display());
    let variables = [("KIFA_PAGER", pager.as_str()), ("PAGER", "false"), ("NO_COLOR", "1")];
    for command in ["query", "tail", "stats", "verify"] {
        let expected = place.run(command, &[]).expect(0).text().to_owned();
        let mut command = place.command(command, &[]);
        let (ran, screen) = on_terminal(command.env("TERM", "xterm").envs(variables));
        ran.expect(0);
        assert_eq!(screen, expected);
        assert_eq!(fs::read_to_string(&seen).unwrap(), expected);
        fs::remove_file(&seen).unwrap();
    }
    let (ran, screen) = on_terminal(&mut query(&place, &["--no-pager"], &variables));
    assert_eq!((ran.expect(0).stderr.as_str(), screen.as_str()), ("", plain.as_str()));
    assert_eq!(Ran::from(query(&place, &[], &variables).output().unwrap()).expect(0).text(), plain);
    on_terminal(&mut query(&place, &["-f", "--to-lsn", "2"], &variables)).0.expect(0);
    on_terminal(&mut query(&place, &[], &[("TERM", "dumb"), variables[0]])).0.expect(0);
    assert!(!seen.exists(), "no pager for a pipe, a follower or a dumb terminal");
}

#[test]
fn the_exit_code_is_the_commands_and_notes_come_behind_the_pager() {
    let place = Place::with_lines(&["{\"a\":1}", "plain"]);
    let variables = [("KIFA_PAGER", "head -n 100"), ("NO_COLOR", "1")];
    let (ran, _) = on_terminal(&mut query(&place, &["--where", "a=1"], &variables));
    assert_eq!(ran.expect(0).stderr, "kifa: note: 1 entry is not JSON, so that no --where matches\n");
    let (ran, screen) = on_terminal(&mut query(&place, &["-g", "x{9}"], &variables));
    assert_eq!((ran.expect(1).stderr.as_str(), screen.as_str()), ("", ""));
    // Also of a report whose pager reads nothing of it.
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o777);
    fs::set_permissions(place.store(), mode).unwrap();
    let mut doctor = place.command("doctor", &[]);
    on_terminal(doctor.env("TERM", "xterm").env("KIFA_PAGER", "true")).0.expect(1);
}

#[test]
fn a_pager_that_is_left_early_ends_the_command_quietly() {
    let lines: Vec<String> = (0..50_000).map(|number| format!("a line of some length, number {number}")).collect();
    let place = Place::with_lines(&lines.iter().map(String::as_str).collect::<Vec<_>>());
    for pager in ["head -n 1", "true"] {
        let (ran, screen) = on_terminal(&mut query(&place, &[], &[("KIFA_PAGER", pager), ("NO_COLOR", "1")]));
        assert_eq!(ran.expect(0).stderr, "", "{pager}");
        assert!(screen.lines().count() <= 1, "{pager}: {screen}");
    }
}

#[test]
fn a_pager_that_cannot_be_started_is_told_of_and_nothing_is_lost() {
    let place = Place::with_lines(&["a"]);
    let plain = place.run("query", &[]).expect(0).text().to_owned();
    let variables = [("KIFA_PAGER", "/absent/pager -x"), ("NO_COLOR", "1")];
    let (ran, screen) = on_terminal(&mut query(&place, &[], &variables));
    assert_eq!(screen, plain);
    let stderr = ran.expect(0).stderr;
    assert!(stderr.starts_with("kifa: note: the pager \"/absent/pager -x\" cannot be started: "), "{stderr}");
    // A less that is not installed is not missed.
    let mut command = kifa(&["config", "default"]);
    let (ran, screen) = on_terminal(command.env("TERM", "xterm").env("PATH", "/absent").env("NO_COLOR", "1"));
    assert_eq!((ran.expect(0).stderr.as_str(), screen.lines().next().is_some()), ("", true));
}

#[test]
fn less_is_told_what_journalctl_tells_it() {
    let place = Place::with_lines(&["a"]);
    let show = |variables: &[(&str, &str)]| on_terminal(&mut query(&place, &[], variables)).1;
    let pager = ("KIFA_PAGER", "env");
    let screen = show(&[pager]);
    assert!(screen.contains("LESS=FRSXMK\n") && screen.contains("LESSCHARSET=utf-8\n"), "{screen}");
    assert!(!screen.contains("LESSSECURE"), "{screen}");
    assert!(show(&[pager, ("LESS", "F")]).contains("LESS=F\n"));
    assert!(show(&[pager, ("SUDO_UID", "1000")]).contains("LESSSECURE=1\n"));
}
