//! Which processor takes the interrupts of a disk, as the kernel counts them in /sys.
//!
//! Only a disk with one hardware queue has a processor of its own: with several, interrupts go where requests come from.
//!
//! It has the interrupts of the nearest device above it that has any of its own (`msi_irqs`: PCI), or those that are
//! named after one (`actions`: SD cards, virtio without PCI). Their counts by processor are in /sys/kernel/irq
//! (Documentation/ABI/testing/sysfs-kernel-irq, since Linux 4.9), one for each possible processor in their order. Only counts
//! since the last look are compared: interrupts move.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Interrupts that are too few to judge by.
const FEW: u64 = 64;

/// The interrupts of a disk.
pub(super) struct Interrupts {
    /// A file with the counts of each.
    counters: Vec<PathBuf>,
    /// By processor, when `most_on` was last decided.
    counts: Vec<u64>,
    most_on: Option<usize>,
}

impl Interrupts {
    /// Of the disk that `dir` lies on; `None` where the system does not tell.
    pub(super) fn of_disk_below(dir: &Path) -> Option<Interrupts> {
        let dev = fs::metadata(dir).ok()?.dev();
        Interrupts::find(Path::new("/sys"), (rustix::fs::major(dev), rustix::fs::minor(dev)))
    }

    fn find(sys: &Path, (major, minor): (u32, u32)) -> Option<Interrupts> {
        let disk = lowest(sys.join(format!("dev/block/{major}:{minor}")))?;
        if !has_one_queue(&disk) {
            return None;
        }
        let numbers = numbers_above(&disk).or_else(|| numbers_by_name(sys, &disk))?;
        let counters = numbers.iter().map(|number| sys.join("kernel/irq").join(number).join("per_cpu_count")).collect();
        let mut interrupts = Interrupts { counters, counts: Vec::new(), most_on: None };
        interrupts.counts = interrupts.count();
        (interrupts.counts.len() == processors(sys)?).then_some(interrupts)
    }

    /// The processor that took at least three in four of them since that was last decided. Where there were few since, what
    /// was decided stays.
    pub(super) fn most_on(&mut self) -> Option<usize> {
        let counts = self.count();
        let since = counts.iter().zip(&self.counts).map(|(now, before)| now.checked_sub(*before));
        let since: Option<Vec<u64>> = since.collect();
        let Some(since) = since.filter(|since| since.len() == self.counts.len()) else {
            // Counts have begun anew, or their interrupts are gone.
            (self.counts, self.most_on) = (counts, None);
            return None;
        };
        let all: u64 = since.iter().sum();
        if all >= FEW {
            self.most_on = since.iter().position(|&count| count >= all - all / 4);
            self.counts = counts;
        }
        self.most_on
    }

    fn count(&self) -> Vec<u64> {
        let mut sums = Vec::new();
        for text in self.counters.iter().filter_map(|path| fs::read_to_string(path).ok()) {
            for (cpu, count) in text.trim().split(',').enumerate() {
                sums.resize(sums.len().max(cpu + 1), 0);
                sums[cpu] += count.parse().unwrap_or(0);
            }
        }
        sums
    }
}

/// Possible processors, where these are numbered without a gap.
fn processors(sys: &Path) -> Option<usize> {
    let possible = fs::read_to_string(sys.join("devices/system/cpu/possible")).ok()?;
    match possible.trim().split_once('-') {
        Some(("0", last)) => last.parse::<usize>().ok()?.checked_add(1),
        _ => None,
    }
}

/// Whether a disk, or the disk of a partition, has one hardware queue.
fn has_one_queue(disk: &Path) -> bool {
    disk.ancestors().take(2).any(|disk| entries(&disk.join("mq")).len() == 1)
}

/// The device at the bottom of a volume that lies on one other (encrypted, mapped), without links.
fn lowest(device: PathBuf) -> Option<PathBuf> {
    let device = fs::canonicalize(device).ok()?;
    match &entries(&device.join("slaves"))[..] {
        [below] => lowest(device.join("slaves").join(below)),
        _ => Some(device),
    }
}

/// Those of the nearest device above that has any.
fn numbers_above(disk: &Path) -> Option<Vec<String>> {
    disk.ancestors().map(|device| entries(&device.join("msi_irqs"))).find(|numbers| !numbers.is_empty())
}

/// Those that are named after the disk or a device above it.
fn numbers_by_name(sys: &Path, disk: &Path) -> Option<Vec<String>> {
    let irq = sys.join("kernel/irq");
    let is_of_disk = |number: &String| {
        let actions = fs::read_to_string(irq.join(number).join("actions")).unwrap_or_default();
        actions.trim().split(',').any(|name| disk.iter().any(|part| part == OsStr::new(name)))
    };
    let numbers: Vec<String> = entries(&irq).into_iter().filter(is_of_disk).collect();
    (!numbers.is_empty()).then_some(numbers)
}

/// Names in a directory; none where there is none.
fn entries(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    /// A /sys that is made up.
    struct Sys(tempfile::TempDir);

    impl Sys {
        fn new() -> Sys {
            let sys = Sys(tempfile::tempdir().expect("a directory"));
            sys.put("devices/system/cpu/possible", "0-1\n");
            sys
        }

        fn put(&self, path: &str, text: &str) {
            let path = self.0.path().join(path);
            fs::create_dir_all(path.parent().expect("it lies in a directory")).expect("a directory");
            fs::write(path, text).expect("a file");
        }

        fn link(&self, path: &str, target: &str) {
            let path = self.0.path().join(path);
            fs::create_dir_all(path.parent().expect("it lies in a directory")).expect("a directory");
            fs::create_dir_all(self.0.path().join(target)).expect("a directory");
            symlink(self.0.path().join(target), path).expect("a link");
        }

        fn irq(&self, number: u32, actions: &str, counts: &str) {
            self.put(&format!("kernel/irq/{number}/actions"), &format!("{actions}\n"));
            self.put(&format!("kernel/irq/{number}/per_cpu_count"), &format!("{counts}\n"));
        }

        fn find(&self, number: (u32, u32)) -> Option<Interrupts> {
            Interrupts::find(self.0.path(), number)
        }
    }

    /// A partition of a disk behind PCI.
    fn pci() -> Sys {
        let sys = Sys::new();
        sys.link("dev/block/254:1", "devices/pci0000:00/0000:00:02.0/virtio1/block/vda/vda1");
        sys.put("devices/pci0000:00/0000:00:02.0/virtio1/block/vda/mq/0/cpu_list", "0, 1");
        sys.put("devices/pci0000:00/0000:00:02.0/msi_irqs/35", "msix");
        sys.put("devices/pci0000:00/0000:00:02.0/msi_irqs/36", "msix");
        sys.irq(34, "virtio0-input", "9,9");
        sys.irq(35, "virtio1-config", "7,0");
        sys.irq(36, "virtio1-req.0", "500,1000");
        sys
    }

    #[test]
    fn the_processor_with_most_since_the_last_look_is_found() {
        let sys = pci();
        let mut interrupts = sys.find((254, 1)).expect("the disk has interrupts");
        assert_eq!(interrupts.most_on(), None, "none since it was found");
        sys.irq(34, "virtio0-input", "9000,9");
        sys.irq(36, "virtio1-req.0", "515,1045");
        assert_eq!(interrupts.most_on(), None, "60 are few");
        sys.irq(36, "virtio1-req.0", "516,1048");
        assert_eq!(interrupts.most_on(), Some(1), "48 of 64 since it was found");
    }

    #[test]
    fn what_was_decided_stays_until_there_are_enough_again() {
        let sys = pci();
        let mut interrupts = sys.find((254, 1)).expect("the disk has interrupts");
        sys.irq(36, "virtio1-req.0", "525,1075");
        assert_eq!(interrupts.most_on(), Some(1), "75 of 100");
        sys.irq(36, "virtio1-req.0", "588,1075");
        assert_eq!(interrupts.most_on(), Some(1), "63 elsewhere are few");
        sys.irq(36, "virtio1-req.0", "589,1075");
        assert_eq!(interrupts.most_on(), Some(0), "they have moved");
        sys.irq(36, "virtio1-req.0", "689,1175");
        assert_eq!(interrupts.most_on(), None, "half and half");
    }

    #[test]
    fn counts_that_begin_anew_decide_nothing() {
        let sys = pci();
        let mut interrupts = sys.find((254, 1)).expect("the disk has interrupts");
        sys.irq(36, "virtio1-req.0", "500,1100");
        assert_eq!(interrupts.most_on(), Some(1));
        sys.irq(36, "virtio1-req.0", "600,0");
        assert_eq!(interrupts.most_on(), None, "one fell");
        sys.irq(36, "virtio1-req.0", "600,100");
        assert_eq!(interrupts.most_on(), Some(1));
        fs::remove_dir_all(sys.0.path().join("kernel/irq")).expect("they are there");
        assert_eq!(interrupts.most_on(), None, "they are gone");
    }

    #[test]
    fn a_card_is_found_by_its_name_also_below_an_encrypted_volume() {
        let sys = Sys::new();
        sys.link("dev/block/179:2", "devices/platform/soc/mmc_host/mmc1/mmc1:aaaa/block/mmcblk1/mmcblk1p2");
        sys.link("dev/block/253:0", "devices/virtual/block/dm-0");
        sys.link(
            "devices/virtual/block/dm-0/slaves/mmcblk1p2",
            "devices/platform/soc/mmc_host/mmc1/mmc1:aaaa/block/mmcblk1/mmcblk1p2",
        );
        sys.put("devices/platform/soc/mmc_host/mmc1/mmc1:aaaa/block/mmcblk1/mq/0/cpu_list", "0, 1, 2, 3");
        sys.put("devices/system/cpu/possible", "0-3\n");
        sys.irq(20, "mmc0", "0,0,0,0");
        sys.irq(21, "mmc1,uart", "0,0,0,0");
        for number in [(179, 2), (253, 0)] {
            sys.irq(21, "mmc1,uart", "0,0,0,0");
            let mut interrupts = sys.find(number).expect("the card has interrupts");
            sys.irq(21, "mmc1,uart", "100,0,0,0");
            assert_eq!(interrupts.most_on(), Some(0));
        }
    }

    #[test]
    fn what_has_no_interrupts_has_none() {
        let sys = pci();
        sys.link("dev/block/7:0", "devices/virtual/block/loop0");
        assert!(sys.find((7, 0)).is_none(), "a loop device");
        assert!(sys.find((0, 25)).is_none(), "a file system without a disk");
        sys.link("dev/block/253:1", "devices/virtual/block/dm-1");
        sys.link("devices/virtual/block/dm-1/slaves/vda1", "devices/pci0000:00/0000:00:02.0/virtio1/block/vda/vda1");
        sys.link("devices/virtual/block/dm-1/slaves/loop0", "devices/virtual/block/loop0");
        assert!(sys.find((253, 1)).is_none(), "a volume on two");
        assert!(sys.find((254, 1)).is_some());
        sys.put("devices/system/cpu/possible", "0,2\n");
        assert!(sys.find((254, 1)).is_none(), "a count's place is no processor's number");
        sys.put("devices/system/cpu/possible", "0-3\n");
        assert!(sys.find((254, 1)).is_none(), "there are more processors than counts");
        sys.put("devices/system/cpu/possible", "0-1\n");
        sys.put("devices/pci0000:00/0000:00:02.0/virtio1/block/vda/mq/1/cpu_list", "1");
        assert!(sys.find((254, 1)).is_none(), "two queues");
    }
}
