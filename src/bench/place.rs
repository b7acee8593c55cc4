//! Which device, file system and kernel this is, and what this process has read and written.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use crate::io::fs::StoreDir;

/// Where a measurement was taken. What the system does not tell is `unknown`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Place {
    /// Name of the block device, with what is known of its write cache.
    pub device: String,
    /// Type of the file system and how it is mounted.
    pub file_system: String,
    /// System, release and architecture.
    pub kernel: String,
    /// Processors this process may use.
    pub cpus: usize,
}

impl Place {
    /// Of a directory that exists.
    pub fn of(dir: &Path) -> Place {
        let dir = fs::canonicalize(dir).unwrap_or_else(|_| dir.to_path_buf());
        let mount = Mount::of_dir(&dir);
        Place {
            device: mount.as_ref().map_or_else(unknown, device),
            file_system: mount.map_or_else(unknown, |mount| format!("{} ({})", mount.kind, mount.options)),
            kernel: kernel(),
            cpus: std::thread::available_parallelism().map_or(1, usize::from),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "device:      {}", self.device)?;
        writeln!(f, "file system: {}", self.file_system)?;
        write!(f, "kernel:      {}, {} processors", self.kernel, self.cpus)
    }
}

fn unknown() -> String {
    "unknown".to_owned()
}

fn kernel() -> String {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let (system, arch) = (std::env::consts::OS, std::env::consts::ARCH);
    match release.trim() {
        "" => format!("{system} {arch}"),
        release => format!("{system} {release} {arch}"),
    }
}

/// A line of /proc/self/mountinfo.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Mount {
    number: String,
    at: PathBuf,
    /// Type of the file system.
    pub(crate) kind: String,
    source: String,
    /// How it is mounted here.
    pub(crate) options: String,
    /// How it is mounted everywhere.
    pub(crate) super_options: String,
}

impl Mount {
    /// The mount that an absolute path without links lies in; `None` where the system does not tell.
    pub(crate) fn of_dir(dir: &Path) -> Option<Mount> {
        Mount::of(&fs::read_to_string("/proc/self/mountinfo").unwrap_or_default(), dir)
    }

    /// The directory of its disk in /sys; a file system without a disk of its own has none.
    pub(crate) fn disk(&self) -> Option<PathBuf> {
        let sys = fs::canonicalize(Path::new("/sys/dev/block").join(&self.number)).ok()?;
        // A partition has its queue in the directory of the whole disk.
        Some(if sys.join("queue").is_dir() { sys } else { sys.parent()?.to_owned() })
    }

    /// One with this type and these options.
    #[cfg(test)]
    pub(crate) fn example(kind: &str, options: &str, super_options: &str) -> Mount {
        Mount::parse(&format!("22 1 254:0 / / {options} - {kind} /dev/vda {super_options}")).expect("it is such a line")
    }

    /// The mount that `path` lies in: the longest mount point above it, the last one of several.
    fn of(table: &str, path: &Path) -> Option<Mount> {
        let mounts = table.lines().filter_map(Mount::parse);
        mounts.filter(|mount| path.starts_with(&mount.at)).max_by_key(|mount| mount.at.as_os_str().len())
    }

    fn parse(line: &str) -> Option<Mount> {
        let (front, back) = line.split_once(" - ")?;
        let mut front = front.split(' ').skip(2);
        let (number, _, at, options) = (front.next()?, front.next()?, front.next()?, front.next()?);
        let mut back = back.split(' ');
        let (kind, source, super_options) = (back.next()?, back.next()?, back.next().unwrap_or_default());
        let owned = str::to_owned;
        // The kernel writes a space in a path as an octal escape.
        let at = PathBuf::from(at.replace("\\040", " "));
        Some(Mount {
            number: owned(number),
            at,
            kind: owned(kind),
            source: owned(source),
            options: owned(options),
            super_options: owned(super_options),
        })
    }
}

/// The device's name, its model, and what the kernel believes of its write cache.
fn device(mount: &Mount) -> String {
    let sys = PathBuf::from("/sys/dev/block").join(&mount.number);
    let Ok(sys) = fs::canonicalize(sys) else { return mount.source.clone() };
    // A partition has its queue in the directory of the whole disk.
    let disk = if sys.join("queue").is_dir() { sys.clone() } else { sys.join("..") };
    let read = |name: &str| fs::read_to_string(disk.join(name)).ok().map(|text| text.trim().to_owned());
    let mut text = sys.file_name().map_or_else(unknown, |name| name.to_string_lossy().into_owned());
    if let Some(model) = read("device/model").or_else(|| read("device/name")).filter(|model| !model.is_empty()) {
        text.push_str(&format!(" {model}"));
    }
    if let Some(cache) = read("queue/write_cache") {
        text.push_str(&format!(", {cache} cache"));
    }
    match read("queue/fua").as_deref() {
        Some("1") => text.push_str(", FUA"),
        Some("0") => text.push_str(", no FUA"),
        _ => {}
    }
    text
}

/// Bytes that this user may still write in a directory; `None` where the system does not tell.
pub(crate) fn available_bytes(dir: &Path) -> Option<u64> {
    StoreDir::open(dir).ok()?.free_bytes().ok()
}

/// Bytes this process has read from and written to devices, as the kernel accounts them (/proc/self/io: direct I/O, and
/// what it dirtied in the page cache; not the file system's own journal). Zero where the system does not tell.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ProcessIo {
    /// Bytes read from devices.
    pub read: u64,
    /// Bytes written to devices.
    pub written: u64,
}

impl ProcessIo {
    /// Up to now.
    pub fn now() -> ProcessIo {
        ProcessIo::parse(&fs::read_to_string("/proc/self/io").unwrap_or_default())
    }

    fn parse(text: &str) -> ProcessIo {
        let field = |name: &str| {
            let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
            value.and_then(|value| value.trim().parse().ok()).unwrap_or(0)
        };
        ProcessIo { read: field("read_bytes"), written: field("write_bytes") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "\
        22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw,discard\n\
        30 22 0:25 / /tmp rw,nosuid - tmpfs tmpfs rw\n\
        31 22 179:2 / /mnt/my\\040card rw,noatime shared:9 master:1 - f2fs /dev/mmcblk0p2 rw\n";

    #[test]
    fn a_path_lies_in_the_longest_mount_above_it() {
        let kind = |path: &str| Mount::of(TABLE, Path::new(path)).map(|mount| (mount.number, mount.kind));
        assert_eq!(kind("/var/lib"), Some(("254:0".to_owned(), "ext4".to_owned())));
        assert_eq!(kind("/tmp/x"), Some(("0:25".to_owned(), "tmpfs".to_owned())));
        assert_eq!(kind("/tmpx"), Some(("254:0".to_owned(), "ext4".to_owned())));
        assert_eq!(kind("/mnt/my card/till"), Some(("179:2".to_owned(), "f2fs".to_owned())));
        assert_eq!(Mount::of("", Path::new("/")), None);
    }

    #[test]
    fn a_line_tells_the_options_of_both() {
        let mount = Mount::of(TABLE, Path::new("/var")).unwrap();
        assert_eq!((mount.options.as_str(), mount.super_options.as_str()), ("rw,relatime", "rw,discard"));
    }

    #[test]
    fn what_a_process_did_is_read_by_name() {
        let text = "rchar: 9\nwchar: 8\nsyscr: 7\nread_bytes: 4096\nwrite_bytes: 8192\ncancelled_write_bytes: 5\n";
        assert_eq!(ProcessIo::parse(text), ProcessIo { read: 4096, written: 8192 });
        assert_eq!(ProcessIo::parse(""), ProcessIo::default());
    }
}
