//! The command line: what is accepted and what `--help` says.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use super::append::AppendArgs;
use super::ctl::CtlArgs;
use super::exit::{self, Command};
use super::filter::FilterArgs;
use super::output::Format;
use super::tail::TailArgs;
use super::terminal::{Color, PagerArgs};
use super::time;
use crate::config::{FlagValue, keys};

/// Crash-proof local log for payment terminals and mobile-money agents.
///
/// Entries go in, entries come out, nothing is lost in between: what `kifa` confirmed survives a power cut.
#[derive(Debug, Parser)]
#[command(name = "kifa", version, propagate_version = true, arg_required_else_help = true)]
#[command(after_long_help = format!("{MAIN_EXAMPLES}\n{}", exit::help(None)))]
pub(crate) struct Cli {
    /// When there is colour; NO_COLOR, CLICOLOR and CLICOLOR_FORCE are honoured, too
    #[arg(long, global = true, value_enum, value_name = "WHEN", default_value = "auto")]
    pub(crate) color: Color,
    #[command(subcommand)]
    pub(crate) command: Subcommands,
}

const MAIN_EXAMPLES: &str = "Examples:
  printf '%s\\n' '{\"txn\":\"TXN-001\",\"amount\":5000}' | kifa daemon --stdin -d ./data
  kifa append -d ./data 'printer out of paper'
  kifa query -d ./data
  kifa tail -d ./data -f
  kifa stats -d ./data

The data directory is always named: by -d, or by the variable KIFA_DATA_DIR.
Messages go to stderr; KIFA_LOG filters the log there (error, warn, info, debug,
or a tracing filter). On a terminal long output goes through KIFA_PAGER, PAGER or
less, unless --no-pager is given.
";

#[derive(Debug, Subcommand)]
pub(crate) enum Subcommands {
    Daemon(Box<DaemonArgs>),
    Query(QueryArgs),
    Append(AppendArgs),
    Tail(TailArgs),
    Export(ExportArgs),
    Stats(StatsArgs),
    Verify(super::verify::VerifyArgs),
    Recover(super::recover::RecoverArgs),
    Snapshot(super::snapshot::SnapshotArgs),
    Vacuum(super::vacuum::VacuumArgs),
    Ctl(CtlArgs),
    Bench(super::bench::BenchArgs),
    Doctor(super::doctor::DoctorArgs),
    Config(super::config::ConfigArgs),
    Completions(super::manual::CompletionsArgs),
    Man(super::manual::ManArgs),
}

/// Stores what its sources deliver, until they end or a signal comes
///
/// SIGTERM and SIGINT drain: everything that was accepted is durable before the process ends. A second SIGINT ends it at
/// once; the next start recovers. SIGUSR1 changes to the next stricter flush mode (normal, cautious, emergency), SIGUSR2
/// back to the configured one. SIGHUP reads the configuration again: what can be changed on the fly is, the rest is named.
#[derive(Debug, Args)]
#[command(visible_alias = "ingest")]
#[command(after_long_help = format!("{DAEMON_EXAMPLES}\n{}\n{}", keys::help(), exit::help(Some(Command::Daemon))))]
pub(crate) struct DaemonArgs {
    #[command(flatten)]
    pub(crate) settings: SettingArgs,
}

// What the daemon is set up by. A documentation comment would become the help of every command that has these.
#[derive(Debug, Args)]
pub(crate) struct SettingArgs {
    /// Where the store is; created if it is not there [env: KIFA_DATA_DIR]
    #[arg(short, long, value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
    /// Configuration file (TOML); without it DATA_DIR/kifa.toml, if it is there
    #[arg(short, long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Read standard input: one entry per line (LF or CR LF), empty lines skipped, up to 1 MiB each
    #[arg(long)]
    stdin: bool,
    /// Follow a file, line by line, through rotation and truncation; may be given many times
    #[arg(long, value_name = "PATH")]
    file: Vec<String>,
    /// Where a file begins that the store has not seen before: beginning or end
    #[arg(long, value_name = "PLACE")]
    file_from: Option<String>,
    /// Listen for TCP connections, one entry per line; may be given many times
    #[arg(long, value_name = "HOST:PORT")]
    tcp: Vec<String>,
    /// Listen for datagrams, one entry each, never confirmed; may be given many times
    #[arg(long, value_name = "HOST:PORT")]
    udp: Vec<String>,
    /// Listen on a Unix socket, one entry per line; may be given many times
    #[arg(long, value_name = "PATH")]
    unix: Vec<String>,
    /// Answer each entry of standard input, TCP and Unix sockets: OK and its number once it is confirmed. In the file a
    /// listener may say otherwise
    #[arg(long)]
    confirm: bool,
    /// When entries are synced: normal (up to 49 confirmed entries at risk), cautious (none), emergency (none, and no
    /// compaction)
    #[arg(long, value_name = "MODE")]
    flush_mode: Option<String>,
    /// Length of a write-ahead-log segment, 1 to 1024 MiB
    #[arg(long, value_name = "MIB")]
    segment_size_mib: Option<String>,
    /// Entries kept in memory before they go to a table, 1 to 1024 MiB
    #[arg(long, value_name = "MIB")]
    memtable_threshold_mib: Option<String>,
    /// Neighbouring tables of similar size that are merged into one, 2 to 64
    #[arg(long, value_name = "N")]
    compaction_threshold: Option<String>,
    /// Do not merge tables
    #[arg(long)]
    no_compaction: bool,
    /// What becomes of new entries while the disk is full: wait (producers stand still) or refuse (ERR full)
    #[arg(long, value_name = "WHAT")]
    on_full: Option<String>,
    /// Delete tables whose newest entry is older than this: 400d, 12h; 0 is never
    #[arg(long, value_name = "TIME")]
    max_age: Option<String>,
    /// Delete the oldest tables while the store is larger than this; 0 is no limit
    #[arg(long, value_name = "MIB")]
    max_size_mib: Option<String>,
    /// Delete the oldest tables while the file system has less free than this; 0 is no limit
    #[arg(long, value_name = "MIB")]
    min_free_mib: Option<String>,
    /// Batches on their way before a source has to wait, 1 to 65536
    #[arg(long, value_name = "N")]
    channel_capacity: Option<String>,
    /// Which backend does the I/O: auto, uring or portable
    #[arg(long, value_name = "BACKEND")]
    io_backend: Option<String>,
    /// Serve numbers for Prometheus at http://ADDR/metrics, and http://ADDR/healthz, as 127.0.0.1:9464; or off
    #[arg(long, value_name = "ADDR")]
    metrics: Option<String>,
}

const DAEMON_EXAMPLES: &str = "Examples:
  payments | kifa daemon --stdin -d /var/lib/kifa
  kifa daemon --tcp 127.0.0.1:7000 --confirm --file /var/log/pos.log -d ./data
  kifa daemon --stdin -d ./data --flush-mode normal < backlog.jsonl
  KIFA_DATA_DIR=./data KIFA_STDIN=true kifa ingest -c /etc/kifa.toml

Flags win over environment variables, these over the file, the file over
defaults. In the file:
  [wal]
  flush_mode = \"cautious\"
  [sources]
  files = [\"/var/log/pos/*.log\", \"~/till.log\"]
  tcp = [\"127.0.0.1:7000\",
         { address = \"127.0.0.1:7001\", framing = \"octet\", confirm = true, name = \"till\" }]
Paths of the file and of variables may have ~/ and wildcards; those of flags are
taken as they are. A list in a variable is separated by commas; a comma that
belongs to a path is doubled.
";

impl SettingArgs {
    /// The settings given by flag, by their key's name.
    pub(crate) fn settings(&self) -> Vec<FlagValue> {
        let texts = [
            ("flush_mode", &self.flush_mode),
            ("segment_size_mib", &self.segment_size_mib),
            ("memtable_flush_threshold_mib", &self.memtable_threshold_mib),
            ("compaction_threshold", &self.compaction_threshold),
            ("on_full", &self.on_full),
            ("max_age", &self.max_age),
            ("max_size_mib", &self.max_size_mib),
            ("min_free_mib", &self.min_free_mib),
            ("channel_capacity", &self.channel_capacity),
            ("io_backend", &self.io_backend),
            ("file_from", &self.file_from),
            ("metrics", &self.metrics),
        ];
        let lists = [("files", &self.file), ("tcp", &self.tcp), ("udp", &self.udp), ("unix", &self.unix)];
        let switches = [
            ("stdin", self.stdin, "true"),
            ("confirm", self.confirm, "true"),
            ("compaction_enabled", self.no_compaction, "false"),
        ];
        let mut settings: Vec<FlagValue> =
            texts.into_iter().filter_map(|(name, text)| Some((name, text.clone()?))).collect();
        settings.extend(lists.iter().flat_map(|(name, texts)| texts.iter().map(|text| (*name, text.clone()))));
        let given = switches.into_iter().filter(|(_, is_given, _)| *is_given);
        settings.extend(given.map(|(name, _, text)| (name, text.to_owned())));
        settings
    }
}

/// Which entries; shared by query and export.
#[derive(Debug, Default, Args)]
pub(crate) struct Selection {
    /// Smallest LSN
    #[arg(long, value_name = "LSN")]
    pub(crate) from_lsn: Option<u64>,
    /// Only what comes behind this LSN: how a reader goes on where it stopped
    #[arg(long, value_name = "LSN", conflicts_with = "from_lsn")]
    pub(crate) after_lsn: Option<u64>,
    /// Largest LSN; it belongs to the range
    #[arg(long, value_name = "LSN")]
    pub(crate) to_lsn: Option<u64>,
    /// Not before this time (UTC): 1h, 30m, 2d, 1h30m (ago), "2026-01-29 12:00:00", 2026-01-29T12:00:00Z or with an
    /// offset, 2026-01-29, now, today, yesterday, @epoch
    #[arg(long, short = 'S', value_name = "TIME", visible_aliases = ["since", "from"], value_parser = from_time)]
    pub(crate) from_time: Option<u64>,
    /// Not after this time (UTC); a date covers its whole day, seconds the whole second
    #[arg(long, short = 'U', value_name = "TIME", visible_aliases = ["until", "to"], value_parser = to_time)]
    pub(crate) to_time: Option<u64>,
    /// At most this many entries (default: no limit)
    #[arg(short = 'n', long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) limit: Option<u64>,
    /// Newest first
    #[arg(short, long)]
    pub(crate) reverse: bool,
    #[command(flatten)]
    pub(crate) filters: FilterArgs,
}

pub(super) fn from_time(text: &str) -> Result<u64, String> {
    time::parse_from(text, time::now_ns())
}

fn to_time(text: &str) -> Result<u64, String> {
    time::parse_to(text, time::now_ns())
}

/// Prints entries
///
/// Works beside a running daemon and on a read-only or full disk; creates and changes nothing.
#[derive(Debug, Args)]
#[command(after_long_help = format!("{QUERY_EXAMPLES}\n{}", exit::help(Some(Command::Query))))]
pub(crate) struct QueryArgs {
    /// Where the store is [env: KIFA_DATA_DIR]
    #[arg(short, long, value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) selection: Selection,
    /// Then go on with new entries as they become durable, until -n or --to-lsn is reached or a signal comes
    #[arg(short, long, conflicts_with = "reverse")]
    pub(crate) follow: bool,
    /// Print only how many entries there are
    #[arg(short, long, conflicts_with_all = ["follow", "format", "fields", "show_source"])]
    pub(crate) count: bool,
    #[command(flatten)]
    pub(crate) pager: PagerArgs,
    /// How entries are printed
    #[arg(short = 'o', long, value_enum, default_value = "text")]
    pub(crate) format: Format,
}

const QUERY_EXAMPLES: &str = "Examples:
  kifa query -d ./data -n 10 -r                        the ten newest, newest first
  kifa query -d ./data --since 1h30m                   the last hour and a half
  kifa query -d ./data --from 2026-01-29 --to 2026-01-29
  kifa query -d ./data --from-lsn 100 --to-lsn 199 -o json | jq -r .data
  kifa query -d ./data -f --after-lsn 4711 -o json     what comes behind 4711, for ever
  kifa query -d ./data --source 'tcp:*' --source stdin --show-source
  kifa query -d ./data -i -g 'declined|timeout' --since 2d
  kifa query -d ./data --where 'amount>=100' --where status=completed --count
  kifa query -d ./data -o csv --fields txn,amount,customer.name

Times are UTC, in the output and, unless an offset is given, in the options.

text:  [LSN] time payload. Control bytes, bidirectional controls, line separators
       and bytes that are not UTF-8 are shown as \\xNN or \\u{NNNN}; a backslash
       that could be mistaken for such an escape as \\x5c.
json:  one object per line. \"data\" is the payload as a string; a payload that is
       not UTF-8 is base64, and \"encoding\":\"base64\" says so.
csv:   RFC 4180 with a header line and LF line ends. Data that starts with = + - @
       ' TAB CR or LF gets a ' in front, so that no spreadsheet runs it.
hex:   LSN, milliseconds since 1970 and payload in hexadecimal digits.

--show-source adds the name of each entry's source in front of the payload: in
text with its spaces as \\x20, in json as \"source\", in csv as a column, in hex
as digits. An entry without a source (written by the library) has - in text and
hex, null in json, an empty field in csv; --source - selects it.

--where compares a field of the payload's JSON. PATH is keys separated by dots,
in an array the element's number: items.0.price; a key with other characters is
written as a JSON string: '\"a.b\".c'. The value is a number (compared as a
decimal, every digit counts), true, false, null, or text, with or without quotes:
'status=completed', 'phone=\"254700\"'. Numbers match numbers only, text matches
text only. A field that is not there matches nothing, not even !=; neither does
an entry that is not JSON: how many of those there were is a note.

--fields puts fields in place of the payload: csv has a column for each, empty
where there is none, json an object \"fields\" with those that are there, as they
were written.

Notes (unconfirmed entries, clock steps, gaps, expired entries) go to stderr, one
line each.
";

/// Writes entries to a file, completely or not at all
///
/// The file is written beside its target under a temporary name (readable by its owner only), synced and renamed; an
/// export that is interrupted leaves nothing behind. An existing file is replaced. An export of nothing is a valid file.
#[derive(Debug, Args)]
#[command(after_long_help = format!("{EXPORT_EXAMPLES}\n{}", exit::help(Some(Command::Export))))]
pub(crate) struct ExportArgs {
    /// Where the store is [env: KIFA_DATA_DIR]
    #[arg(short, long, value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
    /// File to write; - is standard output. Not inside the data directory
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: PathBuf,
    #[command(flatten)]
    pub(crate) selection: Selection,
    /// How entries are written
    #[arg(long, value_enum, default_value = "json")]
    pub(crate) format: Format,
}

const EXPORT_EXAMPLES: &str = "Examples:
  kifa export -d ./data -o all.jsonl
  kifa export -d ./data -o january.csv --format csv --from 2026-01-01 --to 2026-01-31
  kifa export -d ./data -o - | zstd > all.jsonl.zst
  kifa export -d ./data -o large.csv --format csv --where 'amount>=100' --fields txn,amount

Formats and filters are those of kifa query (see kifa query --help). Where part of the
range cannot be read, the rest is written, what is missing is named on stderr,
and the exit code is 2.
";

/// Shows what the store holds and how it is kept
#[derive(Debug, Args)]
#[command(after_long_help = format!("{STATS_EXAMPLES}\n{}", exit::help(Some(Command::Stats))))]
pub(crate) struct StatsArgs {
    /// Where the store is [env: KIFA_DATA_DIR]
    #[arg(short, long, value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
    /// As text for people, or as one JSON object
    #[arg(short = 'o', long, value_enum, default_value = "text")]
    pub(crate) format: StatsFormat,
    #[command(flatten)]
    pub(crate) pager: PagerArgs,
}

/// How statistics are printed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub(crate) enum StatsFormat {
    Text,
    Json,
}

const STATS_EXAMPLES: &str = "Examples:
  kifa stats -d ./data
  kifa stats -d ./data --format json | jq .entries
";
