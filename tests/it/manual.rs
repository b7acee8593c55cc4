//! `kifa man` and `kifa completions`.

use std::fs;
use std::process::Command;

use crate::program::{Place, run};

/// Every subcommand, as `kifa --help` lists them.
fn subcommands() -> Vec<String> {
    let help = run(&["--help"]).expect(0);
    let commands = help.text().lines().skip_while(|line| *line != "Commands:").skip(1);
    let names =
        commands.take_while(|line| !line.is_empty()).filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    names.map(|line| line.split_whitespace().next().unwrap().to_owned()).filter(|name| name != "help").collect()
}

#[test]
fn there_is_a_page_for_every_subcommand() {
    let (place, commands) = (Place::new(), subcommands());
    assert!(commands.len() >= 13, "{commands:?}");
    let dir = place.beside("man1");
    let ran = run(&["man", dir.to_str().unwrap()]).expect(0);
    assert!(ran.stdout.is_empty() && ran.stderr.is_empty(), "{ran:?}");
    for command in &commands {
        let page = fs::read_to_string(dir.join(format!("kifa-{command}.1"))).unwrap();
        assert!(page.contains(".SH SYNOPSIS") && page.contains("Exit codes:"), "{command}");
    }
    let below = ["kifa", "kifa-config-check", "kifa-config-show", "kifa-config-default", "kifa-ctl-status"];
    for page in below {
        let text = fs::read_to_string(dir.join(format!("{page}.1"))).unwrap();
        assert!(text.contains(&format!(".TH {page} 1")), "{page}: {text}");
        let printed = run(&["man", "--page", page]).expect(0);
        assert_eq!(printed.text(), text, "the same page, and the same each time");
    }
    assert_eq!(run(&["man"]).expect(0).text(), fs::read_to_string(dir.join("kifa.1")).unwrap());
    assert!(run(&["man", "--page", "kifa-x"]).expect(64).stderr.contains("there are: kifa, kifa-daemon"));
    let file = dir.join("kifa.1");
    assert!(run(&["man", file.to_str().unwrap()]).expect(74).stderr.contains("cannot write to"));
}

#[test]
fn pages_are_good_roff() {
    let place = Place::new();
    let dir = place.beside("man1");
    run(&["man", dir.to_str().unwrap()]).expect(0);
    for page in fs::read_dir(&dir).unwrap() {
        let page = page.unwrap().path();
        let Ok(output) = Command::new("groff").args(["-man", "-Tutf8", "-ww", "-z"]).arg(&page).output() else {
            eprintln!("SKIPPED: groff is not installed");
            return;
        };
        assert!(
            output.status.success() && output.stderr.is_empty(),
            "{page:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
}

#[test]
fn a_completion_script_for_every_shell() {
    let commands = subcommands();
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let script = run(&["completions", shell]).expect(0);
        for word in commands.iter().map(String::as_str).chain(["no-pager", "invert-match"]) {
            assert!(script.text().contains(word), "{shell} does not know {word}");
        }
    }
    assert!(run(&["completions", "tcsh"]).expect(64).stderr.contains("bash, elvish, fish, powershell, zsh"));
}

#[test]
fn shells_load_their_scripts() {
    let place = Place::new();
    for (shell, check) in [("bash", &["-n"][..]), ("zsh", &["-n"]), ("fish", &["--no-execute"])] {
        let path = place.beside(shell);
        fs::write(&path, &run(&["completions", shell]).expect(0).stdout).unwrap();
        match Command::new(shell).args(check).arg(&path).output() {
            Ok(output) => assert!(output.status.success(), "{shell}: {}", String::from_utf8_lossy(&output.stderr)),
            Err(_) => eprintln!("SKIPPED: {shell} is not installed"),
        }
    }
    let script = place.beside("bash");
    let line = format!(
        "source {}; COMP_WORDS=(kifa que); COMP_CWORD=1; _kifa kifa que kifa; printf '%s\\n' \"${{COMPREPLY[@]}}\"",
        script.display()
    );
    match Command::new("bash").args(["--norc", "-c", &line]).output() {
        Ok(output) => assert_eq!(String::from_utf8_lossy(&output.stdout), "query\n"),
        Err(_) => eprintln!("SKIPPED: bash is not installed"),
    }
}
