//! A small file system on a loop device, for tests of what a real one does.

use std::fs;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::Command;

use crate::program::Place;

/// What a terminal's disk is mounted with.
const MOUNT_OPTIONS: &str = "loop,errors=remount-ro";

/// What the volume is formatted as.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum FileSystem {
    Ext4,
    Xfs,
    Btrfs,
}

impl FileSystem {
    /// The program that makes one, with its options.
    fn mkfs(self) -> Command {
        let (program, options): (_, &[&str]) = match self {
            FileSystem::Ext4 => ("mkfs.ext4", &["-q", "-F", "-m", "0"]),
            FileSystem::Xfs => ("mkfs.xfs", &["-q", "-f"]),
            FileSystem::Btrfs => ("mkfs.btrfs", &["-q", "-f"]),
        };
        let mut command = Command::new(program);
        command.args(options);
        command
    }

    fn mount_options(self) -> &'static str {
        if self == FileSystem::Ext4 { MOUNT_OPTIONS } else { "loop" }
    }

    /// The smallest that its mkfs makes, in MiB.
    fn mib_min(self) -> u64 {
        match self {
            FileSystem::Ext4 => 1,
            FileSystem::Xfs => 300,
            FileSystem::Btrfs => 128,
        }
    }
}

/// A small file system of the test's own, mounted until it is dropped.
pub(crate) struct Volume {
    image: PathBuf,
    pub(crate) mountpoint: PathBuf,
}

impl Volume {
    /// An ext4 of 64 MiB. `None`, with the reason on stdout, where there are no loop mounts to be had.
    pub(crate) fn new(place: &Place) -> Option<Volume> {
        Volume::of(place, 64)
    }

    /// An ext4 of so many MiB.
    pub(crate) fn of(place: &Place, mib: u64) -> Option<Volume> {
        Volume::on(FileSystem::Ext4, place, mib)
    }

    /// So many MiB of another file system, or the least that it takes.
    pub(crate) fn on(file_system: FileSystem, place: &Place, mib: u64) -> Option<Volume> {
        let mib = mib.max(file_system.mib_min());
        let (image, mountpoint) = (place.beside("image"), place.beside("volume"));
        fs::File::create(&image).unwrap().set_len(mib << 20).unwrap();
        fs::create_dir(&mountpoint).unwrap();
        let mut steps = [file_system.mkfs(), Command::new("mount")];
        steps[0].arg(&image);
        steps[1].args(["-o", file_system.mount_options()]).arg(&image).arg(&mountpoint);
        for step in &mut steps {
            match step.output() {
                Ok(output) if output.status.success() => {}
                Ok(output) => {
                    println!("SKIPPED: {step:?}: {}", String::from_utf8_lossy(&output.stderr).trim());
                    return None;
                }
                Err(cause) => {
                    println!("SKIPPED: {step:?}: {cause}");
                    return None;
                }
            }
        }
        Some(Volume { image, mountpoint })
    }

    /// Leaves no space; the file that takes it, which holds what it held before.
    pub(crate) fn fill(&self) -> PathBuf {
        let ballast = self.mountpoint.join("ballast");
        let mut file = fs::OpenOptions::new().create(true).append(true).open(&ballast).unwrap();
        // What was only buffered may yet find no room: each length goes on until a sync of it fails, too.
        for bytes in [1 << 20, 1 << 12, 1] {
            while file.write_all(&vec![7; bytes]).and_then(|()| file.sync_data()).is_ok() {}
        }
        ballast
    }

    /// Makes the file system believe that it is damaged: it turns read-only by itself, whatever is open. `false`, with the
    /// reason on stdout, where the kernel has no such switch.
    pub(crate) fn turn_read_only(&self) -> bool {
        let mut findmnt = Command::new("findmnt");
        let found = findmnt.args(["-n", "-o", "SOURCE"]).arg(&self.mountpoint).output().unwrap().stdout;
        let device = String::from_utf8(found).unwrap();
        let name = device.trim().trim_start_matches("/dev/").to_owned();
        let switch = format!("/sys/fs/ext4/{name}/trigger_fs_error");
        let pulled = fs::write(&switch, "a test");
        if let Err(cause) = &pulled {
            println!("SKIPPED: {switch}: {cause}");
        }
        pulled.is_ok()
    }

    /// Mounts it again, checked, as a restart of the machine does.
    pub(crate) fn mount_again(&self) {
        let run = |command: &mut Command| command.output().unwrap().status;
        assert!(run(Command::new("umount").arg(&self.mountpoint)).success());
        assert!(run(Command::new("fsck.ext4").arg("-fy").arg(&self.image)).code().is_some_and(|code| code <= 1));
        assert!(
            run(Command::new("mount").args(["-o", MOUNT_OPTIONS]).arg(&self.image).arg(&self.mountpoint)).success()
        );
    }

    pub(crate) fn freeze(&self, how: &str) {
        assert!(Command::new("fsfreeze").arg(how).arg(&self.mountpoint).status().unwrap().success());
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        let _ = Command::new("fsfreeze").arg("-u").arg(&self.mountpoint).output();
        let _ = Command::new("umount").arg("-l").arg(&self.mountpoint).output();
    }
}
