//! The file system, its disk and the disk's cache, direct I/O, io_uring, and the space that is left.

use std::fs;
use std::path::Path;

use super::{Finding, Level, unknown};
use crate::bench::{Mount, available_bytes};
use crate::io::SyncMethod;
use crate::io::fs::open_backend;
use crate::options::IoBackend;

const MIB: u64 = 1 << 20;
/// What a store takes from its first entries on: three segments of 16 MiB, and a table beside them.
const NEEDED_BYTES: u64 = 64 * MIB;
/// Less than this will not last.
const SCARCE_BYTES: u64 = 512 * MIB;

pub(super) fn look(dir: &Path) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mount = Mount::of_dir(dir);
    match &mount {
        Some(mount) => {
            findings.push(file_system(mount));
            findings.push(match mount.disk() {
                Some(disk) => cache(&Disk::read(&disk)),
                None => no_disk(&mount.kind),
            });
        }
        None => findings.push(Finding::new(
            Level::Note,
            "file system",
            "the system does not tell which it is",
            "use a local file system with a journal on a disk of its own",
        )),
    }
    findings.extend(input_output(dir));
    findings.push(space(available_bytes(dir)));
    findings
}

fn file_system(mount: &Mount) -> Finding {
    const SUBJECT: &str = "file system";
    let has =
        |option: &str| mount.options.split(',').chain(mount.super_options.split(',')).any(|found| found == option);
    let kind = mount.kind.as_str();
    if has("ro") {
        return Finding::new(
            Level::Problem,
            SUBJECT,
            format!("{kind}, mounted read-only"),
            "mount it read-write (mount -o remount,rw)",
        );
    }
    if let Some(option) = ["nobarrier", "barrier=0"].into_iter().find(|option| has(option)) {
        let finding = format!("{kind}, mounted with {option}: a sync does not reach the disk");
        return Finding::new(Level::Problem, SUBJECT, finding, format!("mount it without {option}"));
    }
    let (level, what, remedy) = match kind {
        "ext4" | "xfs" | "btrfs" | "f2fs" => return Finding::ok(SUBJECT, format!("{kind} ({})", mount.options)),
        "ext2" | "ext3" | "jfs" | "zfs" | "bcachefs" | "ubifs" | "nilfs2" | "reiserfs" => {
            (Level::Note, "not one that kifa is tested on", "ext4, XFS, btrfs and F2FS are")
        }
        "tmpfs" | "ramfs" | "devtmpfs" => {
            (Level::Problem, "lies in memory: a power cut takes everything", "use a directory on a disk")
        }
        "overlay" | "aufs" => (
            Level::Warning,
            "a container's own layer, which goes when the container does",
            "mount a volume or a directory of the host there",
        ),
        "nfs" | "nfs4" | "cifs" | "smb3" | "9p" | "virtiofs" | "ceph" | "glusterfs" | "afs" => (
            Level::Warning,
            "on another machine: what a sync is worth is decided there, and locks may not hold",
            "use a local disk",
        ),
        "vfat" | "exfat" | "msdos" | "ntfs" | "ntfs3" | "fuseblk" => (
            Level::Warning,
            "a file system without permissions or a journal for our needs: a power cut may damage all of it",
            "make an ext4 or F2FS file system there",
        ),
        _ if kind.starts_with("fuse") => {
            (Level::Warning, "in a program's hands (FUSE): what a sync is worth is decided there", "use a local disk")
        }
        _ => (Level::Note, "not one that kifa is tested on", "ext4, XFS, btrfs and F2FS are"),
    };
    Finding::new(level, SUBJECT, format!("{kind} ({}): {what}", mount.options), remedy)
}

/// What the kernel tells of a disk.
#[derive(Debug, Default)]
struct Disk {
    name: String,
    write_cache: Option<String>,
    fua: Option<String>,
    is_rotational: bool,
}

impl Disk {
    fn read(disk: &Path) -> Disk {
        let read =
            |name: &str| fs::read_to_string(disk.join("queue").join(name)).ok().map(|text| text.trim().to_owned());
        Disk {
            name: disk.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned()),
            write_cache: read("write_cache"),
            fua: read("fua"),
            is_rotational: read("rotational").as_deref() == Some("1"),
        }
    }
}

fn no_disk(kind: &str) -> Finding {
    Finding::new(
        Level::Note,
        "write cache",
        format!("{kind} shows no disk of its own, so what is known of the cache below it is nothing"),
        "look at the disks below it: cat /sys/block/*/queue/write_cache",
    )
}

fn cache(disk: &Disk) -> Finding {
    const SUBJECT: &str = "write cache";
    let kind = if disk.is_rotational { " (spinning)" } else { "" };
    let Disk { name, .. } = disk;
    match (disk.write_cache.as_deref(), disk.fua.as_deref()) {
        (Some("write back"), Some("1")) => {
            Finding::ok(SUBJECT, format!("{name}{kind}: has one, and can write past it (FUA)"))
        }
        (Some("write back"), _) => Finding::new(
            Level::Note,
            SUBJECT,
            format!("{name}{kind}: has one, and each sync empties all of it (no FUA)"),
            "nothing is wrong; keep other programs that write much off this disk",
        ),
        (Some("write through"), _) => Finding::new(
            Level::Note,
            SUBJECT,
            format!("{name}{kind}: says that it has none, so the kernel never asks it to empty one"),
            format!(
                "right for a disk without one, or with power-loss protection; if it has one: echo 'write back' > \
                     /sys/block/{name}/queue/write_cache"
            ),
        ),
        _ => Finding::new(
            Level::Note,
            SUBJECT,
            format!("{name}{kind}: the kernel does not tell"),
            "look at the disks below it: cat /sys/block/*/queue/write_cache",
        ),
    }
}

/// How a daemon would do its I/O there.
fn input_output(dir: &Path) -> Vec<Finding> {
    let (backend, notice) = match open_backend(dir, IoBackend::Auto, SyncMethod::Auto) {
        Ok(opened) => opened,
        Err(error) => return vec![unknown("io_uring", "cannot be tried", &error)],
    };
    let info = backend.info();
    let mut findings = vec![match notice {
        None => Finding::ok("io_uring", format!("{} backend, {} syncs", info.name, info.sync_method)),
        Some(why) => {
            // The sentence says what it is and, behind a colon, what to do about it.
            let (what, remedy) = why.split_once(": ").unwrap_or((&why, "use Linux 5.11 or newer"));
            Finding::new(Level::Note, "io_uring", what, remedy)
        }
    }];
    let alignment = alignment(dir);
    findings.push(match info.direct {
        true => Finding::ok("direct I/O", alignment.unwrap_or_else(|| "O_DIRECT works".to_owned())),
        false => Finding::new(
            Level::Note,
            "direct I/O",
            alignment.unwrap_or_else(|| {
                "the file system refuses O_DIRECT, or tells nothing before the first file".to_owned()
            }),
            "writes go through the page cache and a data sync: equally durable, and slower",
        ),
    });
    findings
}

/// What the file system says that direct I/O must be aligned to.
#[cfg(target_os = "linux")]
fn alignment(dir: &Path) -> Option<String> {
    use rustix::fs::{AtFlags, Mode, OFlags, StatxFlags, open, statx};
    let file = open(dir, OFlags::RDWR | OFlags::TMPFILE | OFlags::CLOEXEC, Mode::RUSR | Mode::WUSR).ok()?;
    let stat = statx(&file, c"", AtFlags::EMPTY_PATH, StatxFlags::DIOALIGN).ok()?;
    if !StatxFlags::from_bits_retain(stat.stx_mask).contains(StatxFlags::DIOALIGN) {
        return None;
    }
    Some(match (stat.stx_dio_mem_align, stat.stx_dio_offset_align) {
        (0, _) | (_, 0) => "the file system refuses O_DIRECT".to_owned(),
        (memory, offset) => format!("memory aligned to {memory} bytes, offsets to {offset}; kifa uses 4096"),
    })
}

#[cfg(not(target_os = "linux"))]
fn alignment(_dir: &Path) -> Option<String> {
    None
}

fn space(available: Option<u64>) -> Finding {
    const SUBJECT: &str = "free space";
    let Some(available) = available else {
        return Finding::new(Level::Note, SUBJECT, "the system does not tell", "look at it by hand");
    };
    let mib = available / MIB;
    if available < NEEDED_BYTES {
        let finding = format!("{mib} MiB: a new store has no room, and a daemon may have to wait");
        return Finding::new(Level::Problem, SUBJECT, finding, "make room: at least 64 MiB, and what the entries take");
    }
    if available < SCARCE_BYTES {
        let remedy = "make room; when the disk is full, appends wait until there is some, and nothing is lost";
        return Finding::new(Level::Warning, SUBJECT, format!("{mib} MiB"), remedy);
    }
    Finding::ok(SUBJECT, format!("{mib} MiB"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn level(kind: &str, options: &str, super_options: &str) -> Level {
        file_system(&Mount::example(kind, options, super_options)).level
    }

    #[test]
    fn file_systems_are_told_apart_by_what_a_power_cut_leaves() {
        assert_eq!(level("ext4", "rw,relatime", "rw,errors=remount-ro"), Level::Ok);
        assert_eq!(level("ext4", "rw", "rw,nobarrier"), Level::Problem);
        assert_eq!(level("ext3", "rw", "rw,barrier=0"), Level::Problem);
        assert_eq!(level("xfs", "ro,noatime", "rw"), Level::Problem);
        assert_eq!(level("tmpfs", "rw", "rw"), Level::Problem);
        for kind in ["overlay", "nfs4", "vfat", "fuse.sshfs"] {
            assert_eq!(level(kind, "rw", "rw"), Level::Warning, "{kind}");
        }
        assert_eq!(level("newfs", "rw", "rw"), Level::Note);
    }

    #[test]
    fn a_cache_is_what_the_kernel_says() {
        let disk = |write_cache: &str, fua: &str| {
            let disk = Disk {
                name: "sda".into(),
                write_cache: Some(write_cache.into()),
                fua: Some(fua.into()),
                ..Disk::default()
            };
            cache(&disk)
        };
        assert_eq!(disk("write back", "1").level, Level::Ok);
        assert_eq!(disk("write back", "0").level, Level::Note);
        assert!(disk("write through", "0").remedy.unwrap().contains("/sys/block/sda/queue/write_cache"));
        assert_eq!(cache(&Disk::default()).level, Level::Note);
    }

    #[test]
    fn little_space_is_a_warning_and_too_little_a_problem() {
        let level = |mib: u64| space(Some(mib * MIB)).level;
        assert_eq!(
            (level(63), level(64), level(511), level(512)),
            (Level::Problem, Level::Warning, Level::Warning, Level::Ok)
        );
        assert_eq!(space(None).level, Level::Note);
    }
}
