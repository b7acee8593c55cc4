//! The one table of settings.

use std::time::Duration;

use super::Key;
use crate::config::given::{Given, Kind};
use crate::config::sources::{Defaults, FileSource, FileStart, FileWatch, Listener, StdinSource, UdpSource};
use crate::config::value::{Rule, Value};
use crate::format::FlushMode;
use crate::io::SyncMethod;
use crate::options::{Compression, CpuAffinity, IoBackend, OnFull};

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
/// Seconds of a day.
const DAY_S: u64 = 86_400;

/// Every setting. The ranges of the library's options are repeated here in the units of the keys; a test compares them.
pub(crate) static KEYS: [Key; 34] = [
    Key {
        table: "storage",
        name: "memtable_flush_threshold_mib",
        env: "KIFA_MEMTABLE_FLUSH_THRESHOLD_MIB",
        flag: Some("--memtable-threshold-mib"),
        rule: Rule::Integer { min: 1, max: 1024 },
        default: "4",
        apply: |config, value| config.options.memtable_bytes = (value.integer() * MIB) as usize,
    },
    Key {
        table: "storage",
        name: "compaction_threshold",
        env: "KIFA_COMPACTION_THRESHOLD",
        flag: Some("--compaction-threshold"),
        rule: Rule::Integer { min: 2, max: 64 },
        default: "8",
        apply: |config, value| config.options.compaction_threshold = value.integer() as usize,
    },
    Key {
        table: "storage",
        name: "compaction_enabled",
        env: "KIFA_COMPACTION_ENABLED",
        flag: Some("--no-compaction"),
        rule: Rule::Switch,
        default: "true",
        apply: |config, value| config.options.compaction_enabled = value.switch(),
    },
    Key {
        table: "storage",
        name: "compression",
        env: "KIFA_COMPRESSION",
        flag: None,
        rule: Rule::Words(&["lz4", "zstd", "none"]),
        default: "lz4",
        apply: |config, value| {
            config.options.compression = match value.word() {
                "zstd" => Compression::Zstd,
                "none" => Compression::None,
                _ => Compression::Lz4,
            }
        },
    },
    Key {
        table: "storage",
        name: "io_backend",
        env: "KIFA_IO_BACKEND",
        flag: Some("--io-backend"),
        rule: Rule::Words(&["auto", "uring", "portable"]),
        default: "auto",
        apply: |config, value| {
            config.options.io_backend = match value.word() {
                "uring" => IoBackend::Uring,
                "portable" => IoBackend::Portable,
                _ => IoBackend::Auto,
            }
        },
    },
    Key {
        table: "storage",
        name: "cpu_affinity",
        env: "KIFA_CPU_AFFINITY",
        flag: None,
        rule: Rule::Words(&["auto", "off"]),
        default: "auto",
        apply: |config, value| {
            config.options.cpu_affinity = match value.word() {
                "off" => CpuAffinity::Off,
                _ => CpuAffinity::Auto,
            }
        },
    },
    Key {
        table: "storage",
        name: "on_full",
        env: "KIFA_ON_FULL",
        flag: Some("--on-full"),
        rule: Rule::Words(&["wait", "refuse"]),
        default: "wait",
        apply: |config, value| {
            config.options.on_full = match value.word() {
                "refuse" => OnFull::Refuse,
                _ => OnFull::Wait,
            }
        },
    },
    Key {
        table: "retention",
        name: "max_age",
        env: "KIFA_MAX_AGE",
        flag: Some("--max-age"),
        rule: Rule::Time { min: Duration::from_secs(60), max: Duration::from_secs(36_500 * DAY_S), may_be_off: true },
        default: "0",
        apply: |config, value| config.options.retention_max_age = value.time(),
    },
    Key {
        table: "retention",
        name: "max_size_mib",
        env: "KIFA_MAX_SIZE_MIB",
        flag: Some("--max-size-mib"),
        rule: Rule::Integer { min: 0, max: MIB * MIB },
        default: "0",
        apply: |config, value| config.options.retention_max_bytes = unless_zero(value.integer()),
    },
    Key {
        table: "retention",
        name: "min_free_mib",
        env: "KIFA_MIN_FREE_MIB",
        flag: Some("--min-free-mib"),
        rule: Rule::Integer { min: 0, max: MIB * MIB },
        default: "0",
        apply: |config, value| config.options.retention_min_free_bytes = unless_zero(value.integer()),
    },
    Key {
        table: "wal",
        name: "flush_mode",
        env: "KIFA_FLUSH_MODE",
        flag: Some("--flush-mode"),
        rule: Rule::Words(&["normal", "cautious", "emergency"]),
        default: "cautious",
        apply: |config, value| {
            config.options.flush_mode = match value.word() {
                "normal" => FlushMode::Normal,
                "emergency" => FlushMode::Emergency,
                _ => FlushMode::Cautious,
            }
        },
    },
    Key {
        table: "wal",
        name: "segment_size_mib",
        env: "KIFA_SEGMENT_SIZE_MIB",
        flag: Some("--segment-size-mib"),
        rule: Rule::Integer { min: 1, max: 1024 },
        default: "16",
        apply: |config, value| config.options.segment_bytes = value.integer() * MIB,
    },
    Key {
        table: "wal",
        name: "sync_method",
        env: "KIFA_SYNC_METHOD",
        flag: None,
        rule: Rule::Words(&["auto", "linked", "dsync"]),
        default: "auto",
        apply: |config, value| {
            config.options.sync_method = match value.word() {
                "linked" => SyncMethod::Linked,
                "dsync" => SyncMethod::Dsync,
                _ => SyncMethod::Auto,
            }
        },
    },
    Key {
        table: "ingester",
        name: "channel_capacity",
        env: "KIFA_CHANNEL_CAPACITY",
        flag: Some("--channel-capacity"),
        rule: Rule::Integer { min: 1, max: 65_536 },
        default: "1024",
        apply: |config, value| config.options.channel_capacity = value.integer() as usize,
    },
    Key {
        table: "ingester",
        name: "connections_max",
        env: "KIFA_CONNECTIONS_MAX",
        flag: None,
        rule: Rule::Integer { min: 1, max: 65_536 },
        default: "4096",
        apply: |config, value| config.sources.limits.connections_max = value.integer() as usize,
    },
    Key {
        table: "ingester",
        name: "connections_per_address_max",
        env: "KIFA_CONNECTIONS_PER_ADDRESS_MAX",
        flag: None,
        rule: Rule::Integer { min: 1, max: 65_536 },
        default: "4096",
        apply: |config, value| config.sources.limits.connections_per_address_max = value.integer() as usize,
    },
    Key {
        table: "ingester",
        name: "line_bytes_max",
        env: "KIFA_LINE_BYTES_MAX",
        flag: None,
        rule: Rule::Integer { min: 1, max: 1_048_576 },
        default: "1048576",
        apply: |config, value| config.sources.limits.line_bytes_max = value.integer() as usize,
    },
    Key {
        table: "ingester",
        name: "connection_buffer_kib",
        env: "KIFA_CONNECTION_BUFFER_KIB",
        flag: None,
        rule: Rule::Integer { min: 4, max: 65_536 },
        default: "2048",
        apply: |config, value| config.sources.limits.connection_bytes_max = (value.integer() * KIB) as usize,
    },
    Key {
        table: "ingester",
        name: "partial_buffer_mib",
        env: "KIFA_PARTIAL_BUFFER_MIB",
        flag: None,
        rule: Rule::Integer { min: 1, max: 1024 },
        default: "16",
        apply: |config, value| config.sources.limits.partial_bytes_max = (value.integer() * MIB) as usize,
    },
    Key {
        table: "ingester",
        name: "idle_timeout",
        env: "KIFA_IDLE_TIMEOUT",
        flag: None,
        rule: Rule::Time { min: Duration::from_secs(1), max: Duration::from_secs(30 * DAY_S), may_be_off: true },
        default: "24h",
        apply: |config, value| config.sources.limits.idle_timeout = value.time(),
    },
    Key {
        table: "ingester",
        name: "line_timeout",
        env: "KIFA_LINE_TIMEOUT",
        flag: None,
        rule: Rule::Time { min: Duration::from_secs(1), max: Duration::from_secs(DAY_S), may_be_off: true },
        default: "1m",
        apply: |config, value| config.sources.limits.line_timeout = value.time(),
    },
    Key {
        table: "ingester",
        name: "clients_max",
        env: "KIFA_CLIENTS_MAX",
        flag: None,
        rule: Rule::Integer { min: 1, max: 65_536 },
        default: "1024",
        apply: |config, value| config.sources.limits.clients_max = value.integer() as usize,
    },
    Key {
        table: "ingester",
        name: "udp_buffer_kib",
        env: "KIFA_UDP_BUFFER_KIB",
        flag: None,
        rule: Rule::Integer { min: 64, max: 1_048_576 },
        default: "8192",
        apply: |config, value| config.sources.limits.udp_buffer_bytes = (value.integer() * KIB) as usize,
    },
    Key {
        table: "ingester",
        name: "files_max",
        env: "KIFA_FILES_MAX",
        flag: None,
        rule: Rule::Integer { min: 1, max: 65_536 },
        default: "1024",
        apply: |config, value| config.sources.file_limits.files_max = value.integer() as usize,
    },
    Key {
        table: "ingester",
        name: "file_rescan",
        env: "KIFA_FILE_RESCAN",
        flag: None,
        rule: Rule::Time { min: Duration::from_millis(10), max: Duration::from_secs(3600), may_be_off: false },
        default: "1s",
        apply: |config, value| {
            config.sources.file_limits.rescan = value.time().expect("the rule does not let it be off");
        },
    },
    Key {
        table: "ingester",
        name: "file_watch",
        env: "KIFA_FILE_WATCH",
        flag: None,
        rule: Rule::Words(&["auto", "poll"]),
        default: "auto",
        apply: |config, value| {
            config.sources.file_limits.watch = match value.word() {
                "poll" => FileWatch::Poll,
                _ => FileWatch::Auto,
            }
        },
    },
    Key {
        table: "daemon",
        name: "metrics",
        env: "KIFA_METRICS",
        flag: Some("--metrics"),
        rule: Rule::Address,
        default: "off",
        apply: |config, value| config.metrics = value.address().map(str::to_owned),
    },
    // These two come before the sources, which they speak for.
    Key {
        table: "sources",
        name: "confirm",
        env: "KIFA_CONFIRM",
        flag: Some("--confirm"),
        rule: Rule::Switch,
        default: "false",
        apply: |config, value| config.sources.defaults.confirm = value.switch(),
    },
    Key {
        table: "sources",
        name: "file_from",
        env: "KIFA_FILE_FROM",
        flag: Some("--file-from"),
        rule: Rule::Words(&["beginning", "end"]),
        default: "beginning",
        apply: |config, value| {
            config.sources.defaults.start = match value.word() {
                "end" => FileStart::End,
                _ => FileStart::Beginning,
            }
        },
    },
    Key {
        table: "sources",
        name: "stdin",
        env: "KIFA_STDIN",
        flag: Some("--stdin"),
        rule: Rule::Sources(Kind::Stdin),
        default: "false",
        apply: |config, value| {
            let confirm = config.sources.defaults.confirm;
            config.sources.stdin = value
                .sources()
                .first()
                .map(|given| StdinSource { confirm: given.confirm.unwrap_or(confirm), name: given.name.clone() });
        },
    },
    Key {
        table: "sources",
        name: "files",
        env: "KIFA_FILES",
        flag: Some("--file"),
        rule: Rule::Sources(Kind::File),
        default: "",
        apply: |config, value| {
            let start = config.sources.defaults.start;
            let file = |given: &Given| FileSource {
                path: given.place.clone().into(),
                is_pattern: given.is_pattern,
                start: given.start.unwrap_or(start),
                name: given.name.clone(),
            };
            config.sources.files = value.sources().iter().map(file).collect();
        },
    },
    Key {
        table: "sources",
        name: "tcp",
        env: "KIFA_TCP",
        flag: Some("--tcp"),
        rule: Rule::Sources(Kind::Tcp),
        default: "",
        apply: |config, value| config.sources.tcp = listeners(config.sources.defaults, value),
    },
    Key {
        table: "sources",
        name: "udp",
        env: "KIFA_UDP",
        flag: Some("--udp"),
        rule: Rule::Sources(Kind::Udp),
        default: "",
        apply: |config, value| {
            let udp = |given: &Given| UdpSource { address: given.place.clone(), name: given.name.clone() };
            config.sources.udp = value.sources().iter().map(udp).collect();
        },
    },
    Key {
        table: "sources",
        name: "unix",
        env: "KIFA_UNIX",
        flag: Some("--unix"),
        rule: Rule::Sources(Kind::Unix),
        default: "",
        apply: |config, value| config.sources.unix = listeners(config.sources.defaults, value),
    },
];

/// MiB as bytes; 0 is off.
fn unless_zero(mib: u64) -> Option<u64> {
    (mib > 0).then_some(mib.saturating_mul(MIB))
}

/// The stream listeners of a list.
fn listeners<A: From<String>>(defaults: Defaults, value: &Value) -> Vec<Listener<A>> {
    let listener = |given: &Given| Listener {
        address: given.place.clone().into(),
        framing: given.framing,
        confirm: given.confirm.unwrap_or(defaults.confirm),
        name: given.name.clone(),
    };
    value.sources().iter().map(listener).collect()
}
