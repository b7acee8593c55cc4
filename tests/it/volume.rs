//! A small ext4 on a loop device, for tests of what a real file system does.

use std::fs;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::Command;

use crate::program::Place;

/// What a terminal's disk is mounted with.
const MOUNT_OPTIONS: &str = "loop,errors=remount-ro";

/// A small ext4 of the test's own, mounted until it is dropped.
pub(crate) struct Volume {
    image: PathBuf,
    pub(crate) mountpoint: PathBuf,
}

impl Volume {
    /// `None`, with the reason on stdout, where there are no loop mounts to be had.
    pub(crate) fn new(place: &Place) -> Option<Volume> {
        Volume::of(place, 64)
    }

    /// The same with so many MiB.
    pub(crate) fn of(place: &Place, mib: u64) -> Option<Volume> {
        let (image, mountpoint) = (place.beside("image"), place.beside("volume"));
        fs::File::create(&image).unwrap().set_len(mib << 20).unwrap();
        fs::create_dir(&mountpoint).unwrap();
        let mut steps = [Command::new("mkfs.ext4"), Command::new("mount")];
        steps[0].args(["-q", "-F", "-m", "0"]).arg(&image);
        steps[1].args(["-o", MOUNT_OPTIONS]).arg(&image).arg(&mountpoint);
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

    /// Leaves no space; the file that takes it.
    pub(crate) fn fill(&self) -> PathBuf {
        let ballast = self.mountpoint.join("ballast");
        let mut file = fs::File::create(&ballast).unwrap();
        while file.write_all(&[7; 1 << 16]).is_ok() {}
        while file.write_all(&[7; 1 << 12]).is_ok() {}
        let _ = file.sync_all();
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
