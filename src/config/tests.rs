//! Every layer, every kind of mistake.

use std::time::Duration;

use super::sources::{FileSource, FileStart, FileWatch, Framing, Listener, StdinSource, UdpSource};
use super::*;
use crate::format::FlushMode;
use crate::options::IoBackend;

fn pairs(variables: &[(&str, &str)]) -> Vec<(OsString, OsString)> {
    variables.iter().map(|(name, value)| (name.into(), value.into())).collect()
}

/// Loads with a `kifa.toml` of this text in the data directory, and standard input on.
fn load(toml: &str, variables: &[(&str, &str)], flags: &[(&'static str, &str)]) -> Result<Config, String> {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("kifa.toml"), toml).unwrap();
    let flags = [("stdin", "true")].iter().chain(flags).map(|(name, text)| (*name, (*text).to_owned())).collect();
    Config::load(dir.path().to_owned(), None, &pairs(variables), flags)
        .map_err(|error| error.message.replace(&format!("{}/", dir.path().display()), ""))
}

#[test]
fn flags_over_environment_over_file_over_defaults() {
    let toml = "[wal]\nsegment_size_mib = 2\nflush_mode = \"normal\"\n[ingester]\nchannel_capacity = 7\n";
    let config = load(
        toml,
        &[("KIFA_SEGMENT_SIZE_MIB", "3"), ("KIFA_FLUSH_MODE", "emergency"), ("KIFA_COMPACTION_THRESHOLD", "")],
        &[("segment_size_mib", "4")],
    )
    .unwrap();
    assert_eq!(config.options.segment_bytes, 4 << 20);
    assert_eq!(config.options.flush_mode, FlushMode::Emergency);
    assert_eq!(config.options.channel_capacity, 7);
    assert_eq!(config.options.compaction_threshold, 8);
    let settings: Vec<String> = config.settings().collect();
    assert!(settings.contains(&"wal.segment_size_mib is 4, from --segment-size-mib".to_owned()), "{settings:?}");
    assert!(
        settings.contains(&"wal.flush_mode is emergency, from the environment variable KIFA_FLUSH_MODE".to_owned()),
        "{settings:?}"
    );
    assert!(settings.iter().any(|line| line.ends_with("kifa.toml line 5")), "{settings:?}");
    assert_eq!(settings.len(), 4);
}

#[test]
fn every_key_of_the_file_has_its_effect() {
    let toml = "[storage]\nmemtable_flush_threshold_mib = 8\ncompaction_threshold = 0x6\ncompaction_enabled = false\n\
        io_backend = \"portable\"\n[wal]\nflush_mode = \"normal\"\nsegment_size_mib = 1\nsync_method = \"linked\"\n\
        [ingester]\nchannel_capacity = 9\n[sources]\nstdin = true\nfiles = []\ntcp = []\nudp = []\nunix = []\n";
    let config = load(toml, &[], &[]).unwrap();
    let options = &config.options;
    assert_eq!((options.memtable_bytes, options.compaction_threshold), (8 << 20, 6));
    assert_eq!((options.compaction_enabled, options.io_backend), (false, IoBackend::Portable));
    assert_eq!((options.flush_mode, options.segment_bytes), (FlushMode::Normal, 1 << 20));
    assert_eq!((options.sync_method, options.channel_capacity), (crate::io::SyncMethod::Linked, 9));
}

#[test]
#[cfg_attr(windows, ignore = "it names paths as Unix does")]
fn mistakes_in_the_file_name_line_key_and_range() {
    let cases = [
        (
            "[wal]\n\nflush_mod = \"normal\"",
            "kifa.toml line 3: unknown key \"wal.flush_mod\"; did you mean \"wal.flush_mode\" (normal, cautious, emergency)?",
        ),
        (
            "[storage]\nsegment_size_mib = 4",
            "kifa.toml line 2: unknown key \"storage.segment_size_mib\"; did you mean \"wal.segment_size_mib\" (1 to 1024)?",
        ),
        (
            "[wal]\ncolour = 1",
            "kifa.toml line 2: unknown key \"wal.colour\"; known here: wal.flush_mode, wal.segment_size_mib, wal.sync_method",
        ),
        (
            "flush_mode = \"normal\"",
            "kifa.toml line 1: unknown key \"flush_mode\"; did you mean \"flush_mode\" under [wal] (normal, cautious, emergency)?",
        ),
        (
            "# a\n[wall]\nx = 1",
            "kifa.toml line 2: unknown table [wall]; did you mean [wal]? (known: [storage], [retention], [wal], [ingester], [daemon], [sources])",
        ),
        ("wal = 3", "kifa.toml line 1: \"wal\" is a table, written [wal], not a value (integer)"),
        ("[wal]\nsegment_size_mib = 0", "kifa.toml line 2: wal.segment_size_mib is 0; it must be 1 to 1024"),
        ("[wal]\nsegment_size_mib = -3", "kifa.toml line 2: wal.segment_size_mib is -3; it must be 1 to 1024"),
        ("[wal]\nsegment_size_mib = \"4\"", "kifa.toml line 2: wal.segment_size_mib is a string; it must be 1 to 1024"),
        (
            "[wal]\nflush_mode = \"Normal\"",
            "kifa.toml line 2: wal.flush_mode is \"Normal\"; it must be one of: normal, cautious, emergency",
        ),
        (
            "[storage]\ncompaction_enabled = 1",
            "kifa.toml line 2: storage.compaction_enabled is an integer; it must be true or false",
        ),
        (
            "[sources]\nfiles = \"a.log\"",
            "kifa.toml line 2: sources.files is a string; it must be a list of paths, written [\"/var/log/pos/*.log\"]",
        ),
        (
            "[sources]\ntcp = [\n\"127.0.0.1:5514\",\n\"7000\"]",
            "kifa.toml line 4: sources.tcp: \"7000\" is not an address to listen on: the port is missing; write HOST:PORT, as \
             127.0.0.1:7000",
        ),
        (
            "[sources]\ntcp = [\n\"127.0.0.1:5514\",\n\"127.0.0.1:5514\"]",
            "kifa.toml line 4: sources.tcp names 127.0.0.1:5514 twice; remove one of them",
        ),
        (
            "[[sources.tcp]]\naddress = \"127.0.0.1:1\"\nframing = \"null\"",
            "kifa.toml line 3: framing of sources.tcp is \"null\"; it must be one of: newline, octet, nul",
        ),
        (
            "[[sources.unix]]\naddress = \"/run/till\"",
            "kifa.toml line 1: sources.unix has an element without path; write { path = \"…\" }",
        ),
        (
            "[sources]\nudp = [{ address = \"127.0.0.1:1\", framming = \"octet\" }]",
            "kifa.toml line 2: unknown option \"framming\" of sources.udp; known: address, name",
        ),
        (
            "[sources]\ntcp = [{ address = \"127.0.0.1:1\", framming = \"octet\" }]",
            "kifa.toml line 2: unknown option \"framming\" of sources.tcp; did you mean \"framing\"? (known: address, framing, \
             confirm, name)",
        ),
        (
            "[ingester]\nidle_timeout = 30",
            "kifa.toml line 2: ingester.idle_timeout is an integer; it must be 1s to 30d, or 0 for never, written with its \
             unit: ms, s, m, h or d",
        ),
        (
            "[ingester]\nfile_rescan = \"0\"",
            "kifa.toml line 2: ingester.file_rescan is \"0\"; it must be 10ms to 1h, written with its unit: ms, s, m, h or d",
        ),
    ];
    for (toml, expected) in cases {
        assert_eq!(load(toml, &[], &[]).expect_err(toml), expected);
    }
    let error = load("[wal]\nflush_mode = \n", &[], &[]).unwrap_err();
    assert!(error.starts_with("kifa.toml line 2: not valid TOML: "), "{error}");
    let error = load("[wal]\nsegment_size_mib = 1\nsegment_size_mib = 2\n", &[], &[]).unwrap_err();
    assert!(error.starts_with("kifa.toml line 3: not valid TOML: "), "{error}");
}

#[test]
#[cfg_attr(windows, ignore = "it names paths as Unix does")]
fn a_mistake_in_a_layer_that_is_overridden_is_still_one() {
    let error = load("[wal]\nsegment_size_mib = 5000", &[], &[("segment_size_mib", "4")]).unwrap_err();
    assert_eq!(error, "kifa.toml line 2: wal.segment_size_mib is 5000; it must be 1 to 1024");
}

#[test]
fn mistakes_in_environment_and_flags_name_their_place() {
    let error = load("", &[("KIFA_CHANNEL_CAPACITY", "many")], &[]).unwrap_err();
    let expected =
        "the environment variable KIFA_CHANNEL_CAPACITY: ingester.channel_capacity is \"many\"; it must be 1 to 65536";
    assert_eq!(error, expected);
    let error = load("", &[("KIFA_UDP", "127.0.0.1:514,,")], &[]).unwrap_err();
    assert!(error.starts_with("the environment variable KIFA_UDP: sources.udp: \"127.0.0.1:514,\" is not"), "{error}");
    let error = load("", &[("KIFA_TCP", "a:1,")], &[]).unwrap_err();
    assert!(error.ends_with("sources.tcp has an empty element; write [\"127.0.0.1:7000\"]"), "{error}");
    let error = load("", &[], &[("compaction_threshold", "1")]).unwrap_err();
    assert_eq!(error, "--compaction-threshold: storage.compaction_threshold is \"1\"; it must be 2 to 64");
    let dir = PathBuf::from("absent");
    let flag = Config::load(dir.clone(), None, &[], vec![("flush_mode", "x".to_owned())]).unwrap_err();
    assert!(flag.is_usage);
    let variable = Config::load(dir, None, &pairs(&[("KIFA_FLUSH_MODE", "x")]), Vec::new()).unwrap_err();
    assert!(!variable.is_usage);
}

#[test]
fn variables_that_are_not_ours_are_pointed_out_only() {
    let config = load("", &[("KIFA_SERVICE_HOST", "10.0.0.1"), ("KIFA_LOG", "debug"), ("PATH", "/bin")], &[]).unwrap();
    assert_eq!(config.unknown_variables, ["KIFA_SERVICE_HOST"]);
}

#[test]
fn a_named_file_must_be_there_and_a_source_must_be_on() {
    let dir = tempfile::tempdir().unwrap();
    let absent = dir.path().join("absent.toml");
    let error = Config::load(dir.path().to_owned(), Some(&absent), &[], Vec::new()).unwrap_err();
    assert!(!error.is_usage && error.message.contains("absent.toml"), "{error:?}");
    let error = Config::load(dir.path().to_owned(), None, &[], Vec::new()).unwrap_err();
    assert!(error.is_usage && error.message.contains("--stdin"), "{error:?}");
    let config = Config::load(dir.path().join("absent"), None, &pairs(&[("KIFA_STDIN", "yes")]), Vec::new());
    assert!(config.unwrap().sources.stdin.is_some());
}

#[test]
fn the_data_directory_is_named_and_never_guessed() {
    let env = |value: &'static str| move |_: &str| Some(OsString::from(value));
    assert_eq!(data_dir(Some("a".into()), env("b")), Ok("a".into()));
    assert_eq!(data_dir(None, env("b")), Ok("b".into()));
    assert!(data_dir(None, env("")).unwrap_err().is_usage);
    assert!(data_dir(None, |_| None).unwrap_err().message.contains("-d DIR"));
}

fn listener<A: From<String>>(address: &str, framing: Framing, confirm: bool, name: Option<&str>) -> Listener<A> {
    Listener { address: address.to_owned().into(), framing, confirm, name: name.map(str::to_owned) }
}

#[test]
#[cfg_attr(windows, ignore = "it names paths as Unix does")]
fn sources_of_every_kind_with_and_without_options() {
    let toml = "[sources]\nconfirm = true\nfile_from = \"end\"\nstdin = { confirm = false, name = \"till\" }\n\
        files = [\"~/x.log\", { path = \"/var/log/*.log\", from = \"beginning\" }]\nunix = [\"/run/a.sock\"]\n\
        udp = [\"[::1]:514\", { address = \"localhost:514\", name = \"syslog\" }]\n\
        [[sources.tcp]]\naddress = \"127.0.0.1:7000\"\nframing = \"octet\"\nconfirm = false\n\
        [[sources.tcp]]\naddress = \"127.0.0.1:7001\"\nname = \"bar\"\n\
        [ingester]\nidle_timeout = 0\nline_timeout = \"1m30s\"\nfile_rescan = \"250ms\"\nfile_watch = \"poll\"\n";
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("kifa.toml"), toml).unwrap();
    let config = Config::load(dir.path().to_owned(), None, &pairs(&[("HOME", "/home/agent/")]), Vec::new()).unwrap();
    let sources = &config.sources;
    assert_eq!(sources.stdin, Some(StdinSource { confirm: false, name: Some("till".to_owned()) }));
    let file = |path: &str, is_pattern, start| FileSource { path: path.into(), is_pattern, start, name: None };
    let files = [file("/home/agent/x.log", false, FileStart::End), file("/var/log/*.log", true, FileStart::Beginning)];
    assert_eq!(sources.files, files);
    let tcp = [
        listener("127.0.0.1:7000", Framing::Octet, false, None),
        listener("127.0.0.1:7001", Framing::Newline, true, Some("bar")),
    ];
    assert_eq!(sources.tcp, tcp);
    assert_eq!(sources.unix, [listener("/run/a.sock", Framing::Newline, true, None)]);
    let names: Vec<String> = sources.udp.iter().map(UdpSource::source_name).collect();
    assert_eq!(names, ["udp:[::1]:514", "syslog"]);
    assert_eq!(sources.limits.idle_timeout, None);
    assert_eq!(sources.limits.line_timeout, Some(Duration::from_secs(90)));
    assert_eq!((sources.file_limits.rescan, sources.file_limits.watch), (Duration::from_millis(250), FileWatch::Poll));
    let settings: Vec<String> = config.settings().collect();
    let expected = "127.0.0.1:7000 (framing octet, confirm false), 127.0.0.1:7001 (name bar)";
    assert!(settings.iter().any(|line| line.starts_with(&format!("sources.tcp is {expected}, from "))), "{settings:?}");
}

#[test]
#[cfg_attr(windows, ignore = "it names paths as Unix does")]
fn a_list_of_a_higher_layer_replaces_the_lower_one_and_confirm_speaks_for_all_that_do_not() {
    let toml = "[sources]\ntcp = [\"127.0.0.1:1\", \"127.0.0.1:2\"]\nunix = [{ path = \"/run/a\", confirm = false }, \"/run/b\"]";
    let variables = [("KIFA_TCP", "127.0.0.1:3, localhost:4"), ("KIFA_FILES", "/a,,b,/c*")];
    let config = load(toml, &variables, &[("confirm", "true"), ("files", "/d*"), ("files", "/e,~")]).unwrap();
    let tcp: Vec<_> = config.sources.tcp.iter().map(|tcp| (tcp.address.as_str(), tcp.confirm)).collect();
    assert_eq!(tcp, [("127.0.0.1:3", true), ("localhost:4", true)]);
    let unix: Vec<_> = config.sources.unix.iter().map(|unix| unix.confirm).collect();
    assert_eq!(unix, [false, true]);
    let files: Vec<_> =
        config.sources.files.iter().map(|file| (file.path.to_str().unwrap(), file.is_pattern)).collect();
    assert_eq!(files, [("/d*", false), ("/e,~", false)], "a flag's path is taken as it is");
    let config = load("", &variables, &[]).unwrap();
    let files: Vec<_> =
        config.sources.files.iter().map(|file| (file.path.to_str().unwrap(), file.is_pattern)).collect();
    assert_eq!(files, [("/a,b", false), ("/c*", true)]);
    assert!(config.sources.stdin.is_some_and(|stdin| !stdin.confirm));
}

#[test]
fn addresses_paths_and_names_that_cannot_be_right() {
    let cases = [
        ("tcp", "127.0.0.1", "the port is missing"),
        ("tcp", "127.0.0.1:", "must be a number up to 65535"),
        ("tcp", "127.0.0.1:+1", "must be a number up to 65535"),
        ("tcp", "127.0.0.1:65536", "must be a number up to 65535"),
        ("udp", ":514", "for all of them write 0.0.0.0:514 or [::]:514"),
        ("tcp", "*:514", "for all of them write 0.0.0.0:514"),
        ("tcp", "::1:514", "written in brackets, as [::1]:514"),
        ("tcp", "http://x:80", "an IPv6 address is written in brackets"),
        ("tcp", "a b:80", "neither a name nor an IP address"),
        ("unix", "", "has an empty element"),
        ("files", "a\nb", "has a control character"),
    ];
    for (key, text, expected) in cases {
        let error = load("", &[], &[(key, text)]).expect_err(text);
        assert!(error.contains(expected), "{key} {text}: {error}");
    }
    let alone = |flag: &'static str, text: &str| {
        let flags = vec![("udp", "127.0.0.1:514".to_owned()), (flag, text.to_owned())];
        Config::load("absent".into(), None, &[], flags).unwrap_err()
    };
    let (confirm, from) = (alone("confirm", "true"), alone("file_from", "end"));
    assert!(confirm.is_usage && from.is_usage);
    assert_eq!(confirm.message, "--confirm: nothing could be answered: add --stdin, --tcp or --unix");
    assert_eq!(from.message, "--file-from: there is no file to follow: add --file");
    let long = "x".repeat(104);
    assert!(
        load("", &[], &[("unix", &long)]).unwrap_err().contains("has 104 bytes; the path of a socket may have 103")
    );
    assert!(load("", &[("KIFA_FILES", "~root/x")], &[]).unwrap_err().contains("write the whole path"));
    assert!(load("", &[("KIFA_FILES", "~/x")], &[]).unwrap_err().contains("HOME is not set"));
    let same = "[sources]\ntcp = [{ address = \"a:1\", name = \"x\" }]\nunix = [{ path = \"/b\", name = \"x\" }]";
    assert!(
        load(same, &[], &[]).unwrap_err().contains("one of sources.tcp and one of sources.unix have the same name")
    );
    let taken = "[sources]\ntcp = [{ address = \"a:1\", name = \"stdin\" }]";
    assert!(load(taken, &[], &[]).unwrap_err().contains("the same name, \"stdin\""));
    let append = "[sources]\ntcp = [{ address = \"a:1\", name = \"append\" }]";
    assert!(load(append, &[], &[]).unwrap_err().contains("is that of entries from kifa append"));
    let empty = "[sources]\ntcp = [{ address = \"a:1\", name = \"\" }]";
    assert!(load(empty, &[], &[]).unwrap_err().ends_with("the name of a source has 0 bytes; it must have 1 to 255"));
    let small = load("[ingester]\nconnection_buffer_kib = 512\n", &[], &[]).unwrap_err();
    assert!(small.contains("ingester.connection_buffer_kib is 512, less than"), "{small}");
    load("[ingester]\nconnection_buffer_kib = 512\nline_bytes_max = 4096\n", &[], &[]).unwrap();
}

#[test]
#[cfg_attr(windows, ignore = "it names paths as Unix does")]
fn metrics_are_served_at_one_address_or_not_at_all() {
    let stdin = "[sources]\nstdin = true\n";
    let file = format!("{stdin}[daemon]\nmetrics = \"127.0.0.1:9464\"");
    let metrics = |toml: &str, variables: &[(&str, &str)], flags: &[(&'static str, &str)]| {
        load(toml, variables, flags).map(|config| config.metrics)
    };
    assert_eq!(metrics(stdin, &[], &[]), Ok(None));
    assert_eq!(metrics(&file, &[], &[]).unwrap().as_deref(), Some("127.0.0.1:9464"));
    assert_eq!(metrics(&file, &[("KIFA_METRICS", "[::1]:1")], &[]).unwrap().as_deref(), Some("[::1]:1"));
    assert_eq!(metrics(&file, &[("KIFA_METRICS", "[::1]:1")], &[("metrics", "off")]), Ok(None));
    let wrong = metrics(&format!("{stdin}[daemon]\nmetrics = true"), &[], &[]).unwrap_err();
    assert_eq!(wrong, "kifa.toml line 4: daemon.metrics is a boolean; it must be HOST:PORT, or off");
    assert!(metrics(stdin, &[("KIFA_METRICS", "9464")], &[]).unwrap_err().contains("the port is missing"));
}
