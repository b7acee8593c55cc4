//! Every layer, every kind of mistake.

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
    assert_eq!(config.options.compaction_threshold, 4);
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
        [ingester]\nchannel_capacity = 9\n[sources]\nstdin = true\nfiles = []\ntcp = []\nudp = []\n";
    let config = load(toml, &[], &[]).unwrap();
    let options = &config.options;
    assert_eq!((options.memtable_bytes, options.compaction_threshold), (8 << 20, 6));
    assert_eq!((options.compaction_enabled, options.io_backend), (false, IoBackend::Portable));
    assert_eq!((options.flush_mode, options.segment_bytes), (FlushMode::Normal, 1 << 20));
    assert_eq!((options.sync_method, options.channel_capacity), (crate::io::SyncMethod::Linked, 9));
}

#[test]
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
            "kifa.toml line 2: unknown table [wall]; did you mean [wal]? (known: [storage], [wal], [ingester], [sources])",
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
            "[sources]\ntcp = [\"127.0.0.1:5514\"]",
            "kifa.toml line 2: sources.tcp is not supported by this version of kifa; remove it",
        ),
        (
            "[sources]\nfiles = \"a.log\"",
            "kifa.toml line 2: sources.files is not supported by this version of kifa; remove it",
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
    let error = load("", &[("KIFA_UDP", "0.0.0.0:514")], &[]).unwrap_err();
    assert!(error.ends_with("sources.udp is not supported by this version of kifa; remove it"), "{error}");
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
