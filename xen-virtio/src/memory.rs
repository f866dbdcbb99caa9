//! A guest's memory: where it is, and what a backend maps to have it.

use crate::error::{Error, Result};
use crate::hvm_info;
use crate::layout::Layout;
use core::ops::Range;
use std::os::fd::{AsFd, OwnedFd};
use xen_eventfd_core::DomId;
use xen_eventfd_host::memory::{FRAME, ForeignMemory};
use xen_eventfd_vhost::{Memory, Region};

/// libxl gives an x86 PVH guest memory from 0 up to here, and the rest from 4 GiB on (`libxl__build_hvm`). No guest has as
/// much as the second can be.
const BANKS: [Range<u64>; 2] = [0..0xFC00_0000, 1 << 32..1 << 46];
/// Where an Arm guest has memory (`GUEST_RAM0_BASE`, `GUEST_RAM1_BASE` and their sizes in Xen's `public/arch-arm.h`).
const ARM_BANKS: [Range<u64>; 2] = [0x4000_0000..1 << 32, 0x2_0000_0000..0x100_0000_0000];

/// A guest's memory, for its backends.
pub(crate) trait Regions {
    /// What a backend maps; `maps_guests` is [`Backend::maps_guests`](xen_eventfd_vhost::Backend::maps_guests).
    fn regions_for(&mut self, maps_guests: bool) -> Result<Vec<Region<'_>>>;
}

/// The memory of a guest of this machine that has not run yet, or has given none of it back.
#[derive(Debug)]
pub(crate) struct GuestRam<'a> {
    dom: DomId,
    open: &'a dyn Open,
    ranges: Vec<Range<u64>>,
    /// What backends map: an object of the module for each range, or privcmd.
    files: Vec<OwnedFd>,
    privcmd: Option<OwnedFd>,
}

/// What opens guest memory for backends.
pub(crate) trait Open: core::fmt::Debug {
    /// A file whose `mmap` is this memory of the guest.
    fn memory(&self, dom: DomId, range: Range<u64>) -> Result<OwnedFd>;

    /// A `/dev/xen/privcmd` that can map this guest's memory and no other's.
    fn privcmd(&self, dom: DomId) -> Result<OwnedFd>;
}

impl<'a> GuestRam<'a> {
    /// Finds where the guest has memory.
    pub(crate) fn find(
        foreign: &dyn ForeignMemory,
        open: &'a dyn Open,
        dom: DomId,
        layout: &Layout,
    ) -> Result<Self> {
        let ranges = match layout {
            Layout::OwnBus => by_mapping(foreign, dom, BANKS)?,
            Layout::BesideQemu => by_table(foreign, dom)?,
            Layout::DeviceTree(_) => by_mapping(foreign, dom, ARM_BANKS)?,
        };
        Ok(Self::known(open, dom, ranges))
    }

    /// The same of a guest that has run, where it was found to have memory before.
    pub(crate) fn known(open: &'a dyn Open, dom: DomId, ranges: Vec<Range<u64>>) -> Self {
        Self { dom, open, ranges, files: Vec::new(), privcmd: None }
    }

    /// Where it is.
    pub(crate) fn ranges(&self) -> &[Range<u64>] {
        &self.ranges
    }

    /// Its size in bytes.
    pub(crate) fn size(&self) -> u64 {
        self.ranges.iter().map(|range| range.end - range.start).sum()
    }
}

impl Regions for GuestRam<'_> {
    /// It is opened for the first backend of a kind.
    fn regions_for(&mut self, maps_guests: bool) -> Result<Vec<Region<'_>>> {
        let region = |range: &Range<u64>, memory| Region {
            guest_address: range.start,
            size: range.end - range.start,
            memory,
        };
        if maps_guests {
            let privcmd = match self.privcmd.take() {
                Some(privcmd) => privcmd,
                None => self.open.privcmd(self.dom)?,
            };
            let privcmd: &OwnedFd = self.privcmd.insert(privcmd);
            let memory = Memory::Foreign { privcmd: privcmd.as_fd(), domain: self.dom };
            return Ok(self.ranges.iter().map(|range| region(range, memory)).collect());
        }
        if self.files.is_empty() {
            let opened = self.ranges.iter().map(|range| self.open.memory(self.dom, range.clone()));
            self.files = opened.collect::<Result<_>>()?;
        }
        let files = self.ranges.iter().zip(self.files.iter().map(AsFd::as_fd));
        Ok(files.map(|(range, file)| region(range, Memory::File { file, offset: 0 })).collect())
    }
}

/// Finds where a guest has memory, by mapping frames: from the beginning of each bank on.
fn by_mapping(
    foreign: &dyn ForeignMemory,
    dom: DomId,
    banks: [Range<u64>; 2],
) -> Result<Vec<Range<u64>>> {
    let first = [banks[0].start / FRAME as u64];
    // Without the first frame there is no guest, or no right to it.
    drop(foreign.map(dom, &first).map_err(Error::Memory)?);
    let found = banks.map(|bank| bank.start..end_of(foreign, dom, bank));
    // A frame of a guest that is gone is refused like one that never was.
    drop(foreign.map(dom, &first).map_err(Error::Memory)?);
    Ok(found.into_iter().filter(|range| !range.is_empty()).collect())
}

/// Reads where an HVM guest has memory, in what its firmware gets.
fn by_table(foreign: &dyn ForeignMemory, dom: DomId) -> Result<Vec<Range<u64>>> {
    let page = foreign.map(dom, &[hvm_info::PAGE / FRAME as u64]).map_err(Error::Memory)?;
    let mut copy = [0; FRAME];
    page.read(0, &mut copy);
    hvm_info::memory(&copy).ok_or(Error::NoMemoryMap)
}

/// Where the memory that begins with a range ends: its beginning if the guest has none there.
fn end_of(foreign: &dyn ForeignMemory, dom: DomId, range: Range<u64>) -> u64 {
    let frame = FRAME as u64;
    let (first, mut there, mut missing) =
        (range.start / frame, 0, (range.end - range.start) / frame);
    // The first `there` frames are there, and none from `missing` on. Guests are small, so from below.
    let mut step = 1;
    while there < missing {
        let next = (there + step).min(missing);
        if foreign.map(dom, &[first + next - 1]).is_ok() {
            there = next;
            step *= 2;
        } else if step == 1 {
            missing = there;
        } else {
            missing = next - 1;
            step = ((missing - there) / 2).max(1);
        }
    }
    (first + there) * frame
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::sync::atomic::AtomicU8;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use xen_eventfd_host::memory::GuestMemory;
    use xen_eventfd_host::{Call, Errno, HostError};

    /// A guest that has these frames.
    #[derive(Debug)]
    struct Frames {
        frames: Vec<Range<u64>>,
        maps: AtomicUsize,
        /// What is in each.
        content: Vec<u8>,
    }

    #[derive(Debug)]
    struct Mapped(Vec<AtomicU8>);

    impl GuestMemory for Mapped {
        fn bytes(&self) -> &[AtomicU8] {
            &self.0
        }
    }

    impl Frames {
        fn new(frames: &[Range<u64>]) -> Self {
            Self { frames: frames.to_vec(), maps: AtomicUsize::new(0), content: vec![0; FRAME] }
        }

        fn find(&self, layout: &Layout) -> Result<Vec<Range<u64>>> {
            GuestRam::find(self, self, DomId(1), layout).map(|ram| ram.ranges)
        }
    }

    impl Open for Frames {
        fn memory(&self, _: DomId, _: Range<u64>) -> Result<OwnedFd> {
            Err(Error::Eventfd(Errno::NOSYS))
        }

        fn privcmd(&self, _: DomId) -> Result<OwnedFd> {
            Err(Error::Eventfd(Errno::NOSYS))
        }
    }

    impl ForeignMemory for Frames {
        fn map(
            &self,
            dom: DomId,
            frames: &[u64],
        ) -> xen_eventfd_host::Result<Box<dyn GuestMemory>> {
            self.maps.fetch_add(1, Ordering::Relaxed);
            let missing = |frame: &&u64| !self.frames.iter().any(|range| range.contains(frame));
            match frames.iter().find(missing) {
                None => {
                    Ok(Box::new(Mapped(self.content.iter().copied().map(AtomicU8::new).collect())))
                }
                Some(frame) => Err(HostError::new(Call::MapMemory(dom, *frame), Errno::NOENT)),
            }
        }
    }

    fn ranges(frames: &[Range<u64>]) -> Result<Vec<Range<u64>>> {
        let guest = Frames::new(frames);
        let found = guest.find(&Layout::OwnBus);
        assert!(guest.maps.load(Ordering::Relaxed) < 200, "too many maps");
        found
    }

    #[test]
    fn memory_is_found_to_the_frame() {
        for frames in [1, 2, 3, 5, 0x1000, 0x1001, 0x8_0000, 0xF_BFFF, 0xF_C000] {
            let all = 0..frames;
            let found = ranges(std::slice::from_ref(&all)).unwrap();
            assert_eq!(found, vec![all.start..all.end << 12], "{frames:#x}");
        }
    }

    #[test]
    fn what_does_not_fit_below_the_hole_is_above_4_gib() {
        for high in [1, 0x4000, 0x1234_5678] {
            let both = [0..0xF_C000, 0x10_0000..0x10_0000 + high];
            let expected = both.clone().map(|range| range.start << 12..range.end << 12);
            // The tables of ACPI are no memory.
            let tables = 0xF_C000..0xF_C007;
            let all = [both.as_slice(), std::slice::from_ref(&tables)].concat();
            assert_eq!(ranges(&all).unwrap(), expected, "{high:#x}");
        }
    }

    #[test]
    fn an_arm_guest_has_memory_from_1_gib_on_and_more_from_8_gib_on() {
        let low = 0x4_0000..0x10_0000;
        let high = 0x20_0000..0x20_1234;
        for frames in [&[low.clone(), high][..], std::slice::from_ref(&low)] {
            let expected: Vec<_> =
                frames.iter().map(|range| range.start << 12..range.end << 12).collect();
            // The grant table and the console's page are no memory.
            let all = [frames, &[0x3_8000..0x3_8040, 0x3_9000..0x3_9004]].concat();
            assert_eq!(Frames::new(&all).find(&Layout::DeviceTree(vec![])).unwrap(), expected);
        }
    }

    #[test]
    fn a_guest_without_memory_is_an_error() {
        assert!(matches!(ranges(&[]), Err(Error::Memory(_))));
        let hvm = Frames::new(&[]).find(&Layout::BesideQemu);
        assert!(matches!(hvm, Err(Error::Memory(_))));
    }

    #[test]
    fn what_qemu_adds_is_no_memory_of_an_hvm_guest() {
        // The frames of a screen follow the memory.
        let low = 0..0xA0;
        let high = 0xC0..0x8000;
        let mut guest = Frames::new(&[low, high]);
        guest.content = hvm_info::tests::page(0x7800, 0);
        assert_eq!(guest.find(&Layout::BesideQemu).unwrap(), [0..0xA_0000, 0xC_0000..0x780_0000]);
        guest.content.fill(0);
        assert!(matches!(guest.find(&Layout::BesideQemu), Err(Error::NoMemoryMap)));
    }
}
