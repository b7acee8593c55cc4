//! What the store lies on, and how the power fails there.
//!
//! With a file system in between, its image lies on the disk that loses power. After a cut it is unmounted, which can
//! write nothing any more, then the power comes back, and it is mounted again: its journal is replayed on what survived.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use crate::args::{Arguments, Between, PowerLoss};
use crate::lazyfs::Disk;
use crate::programs::{Programs, run};

/// How long a loop device or a mount may take to go.
const PATIENCE: Duration = Duration::from_secs(60);

/// A file system in an image.
struct Volume {
    image: PathBuf,
    point: PathBuf,
    /// The loop device, while there is one.
    device: Option<String>,
    mounted: bool,
}

/// See the module's page.
pub(crate) struct Ground {
    // First, because it lies on the disk: dropped first.
    volume: Option<Volume>,
    disk: Option<Disk>,
    dir: PathBuf,
}

impl Ground {
    /// Prepares the directory, and mounts what has to be.
    pub(crate) fn prepare(arguments: &Arguments, programs: &Programs) -> Result<Ground, String> {
        let dir = arguments.data_dir.clone();
        let made = fs::create_dir_all(&dir).and_then(|()| fs::canonicalize(&dir));
        let dir = made.map_err(|error| format!("{}: {error}", arguments.data_dir.display()))?;
        let disk = match (&arguments.mounted, arguments.power_loss) {
            (_, PowerLoss::Sigkill) => None,
            (Some(point), _) => {
                let fifos = arguments.fifo.as_deref().zip(arguments.fifo_completed.as_deref());
                let (fifo, completed) = fifos.expect("the command line demands both");
                Some(Disk::mounted(point, fifo, completed)?)
            }
            (None, _) => Some(Disk::start(programs.lazyfs.as_deref().expect("it was looked for"), &dir)?),
        };
        let mut ground = Ground { volume: None, disk, dir };
        let disk = ground.disk.as_ref().filter(|_| arguments.fs != Between::None);
        if let Some(disk) = disk {
            let volume = Volume::make(arguments.fs, disk.point(), &ground.dir, arguments.image_mib)?;
            ground.volume = Some(volume);
        }
        if let Some(disk) = ground.disk.as_ref().filter(|disk| disk.is_own()) {
            let survivors = match arguments.power_loss {
                PowerLoss::Cut(_) => format!("mixed={}", arguments.seed),
                _ => "none".to_owned(),
            };
            disk.command(&format!("kifa::survivors::{survivors}"))?;
            disk.command(if arguments.lie { "kifa::lie=on" } else { "kifa::lie=off" })?;
        }
        Ok(ground)
    }

    /// Where the store lies.
    pub(crate) fn store(&self) -> PathBuf {
        let dir = match (&self.volume, &self.disk) {
            (Some(volume), _) => &volume.point,
            (None, Some(disk)) => disk.point(),
            (None, None) => &self.dir,
        };
        dir.join("data")
    }

    /// Lets the power go at the `n`-th mutating operation from now on.
    pub(crate) fn cut_at(&self, n: u64) -> Result<(), String> {
        match &self.disk {
            Some(disk) => disk.command(&format!("kifa::cut-at::n={n}")).map(drop),
            None => Ok(()),
        }
    }

    /// Whether the power has gone.
    pub(crate) fn is_off(&self) -> Result<bool, String> {
        match &self.disk {
            Some(disk) if disk.is_own() => Ok(disk.report("power")? == "off"),
            _ => Ok(false),
        }
    }

    /// Lets the power go now.
    pub(crate) fn power_off(&self) -> Result<(), String> {
        match &self.disk {
            Some(disk) if disk.is_own() => disk.command("kifa::power-off").map(drop),
            _ => Ok(()),
        }
    }

    /// After the end of all that used the store: what is volatile is thrown away, and everything mounted again.
    pub(crate) fn power_on(&mut self) -> Result<(), String> {
        let Some(disk) = &self.disk else { return Ok(()) };
        if let Some(volume) = &mut self.volume {
            disk.command("kifa::power-off")?;
            volume.unmount()?;
            disk.command("kifa::power-on")?;
            return volume.mount();
        }
        disk.command("lazyfs::clear-cache").map(drop)
    }

    /// Data that was written back for want of memory: what a cut could no longer take.
    pub(crate) fn written_back(&self) -> Result<u64, String> {
        match &self.disk {
            Some(disk) if disk.is_own() => disk.report("written_back")?.parse().map_err(|_| "no number".to_owned()),
            _ => Ok(0),
        }
    }

    /// Lets everything go in good order.
    pub(crate) fn end(mut self) -> Result<(), String> {
        match &mut self.volume {
            Some(volume) => volume.unmount(),
            None => Ok(()),
        }
    }
}

impl Volume {
    /// Makes a file system in a new image, or takes the one that is there; mounts it.
    fn make(fs: Between, on: &Path, dir: &Path, mib: u64) -> Result<Volume, String> {
        let image = on.join("image");
        let point = dir.join("fs");
        let fail = |error: std::io::Error| format!("{}: {error}", image.display());
        fs::create_dir_all(&point).map_err(|error| format!("{}: {error}", point.display()))?;
        if !image.exists() {
            let path = image.to_string_lossy().into_owned();
            File::create(&image).and_then(|file| file.set_len(mib << 20)).map_err(fail)?;
            let made = match fs {
                Between::Ext4 => run("mkfs.ext4", &["-q", "-F", "-E", "nodiscard,lazy_itable_init=0", &path]),
                Between::Xfs => run("mkfs.xfs", &["-q", "-f", "-K", &path]),
                Between::Btrfs => run("mkfs.btrfs", &["-q", "-f", "-K", &path]),
                Between::None => unreachable!("without a file system there is no image"),
            };
            made.map_err(|why| {
                fs::remove_file(&image).ok();
                format!("{why} (is the package with mkfs for it installed? e2fsprogs, xfsprogs, btrfs-progs)")
            })?;
            File::open(&image).and_then(|file| file.sync_all()).map_err(fail)?;
            File::open(on).and_then(|dir| dir.sync_all()).map_err(fail)?;
        }
        let mut volume = Volume { image, point, device: None, mounted: false };
        volume.mount()?;
        Ok(volume)
    }

    fn mount(&mut self) -> Result<(), String> {
        let image = self.image.to_string_lossy().into_owned();
        let device = run("losetup", &["--find", "--show", &image])?;
        self.device = Some(device.clone());
        run("mount", &[&device, &self.point.to_string_lossy()])?;
        self.mounted = true;
        Ok(())
    }

    fn unmount(&mut self) -> Result<(), String> {
        let point = self.point.to_string_lossy().into_owned();
        if self.mounted {
            patiently(|| run("umount", &[&point]))?;
            self.mounted = false;
        }
        if let Some(device) = self.device.take() {
            run("losetup", &["--detach", &device])?;
            // It goes when its last user does; the image must not be attached twice.
            let attached = Path::new("/sys/block").join(device.trim_start_matches("/dev/")).join("loop");
            patiently(|| if attached.exists() { Err(format!("{device} stays in use")) } else { Ok(()) })?;
        }
        Ok(())
    }
}

/// Tries again for a while.
fn patiently<T>(mut what: impl FnMut() -> Result<T, String>) -> Result<T, String> {
    let start = Instant::now();
    loop {
        match what() {
            Err(_) if start.elapsed() < PATIENCE => thread::sleep(Duration::from_millis(20)),
            result => return result,
        }
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        if self.mounted {
            run("umount", &["--lazy", &self.point.to_string_lossy()]).map_err(|why| eprintln!("{why}")).ok();
        }
        if let Some(device) = &self.device {
            run("losetup", &["--detach", device]).map_err(|why| eprintln!("{why}")).ok();
        }
    }
}
