//! A guest's memory, mapped by this process.

use crate::{Error, Memory, Region, Result};
use rustix::io::Errno;
use std::fs::File;
use std::os::fd::BorrowedFd;
use vhost::VhostUserMemoryRegionInfo;
use vm_memory::mmap::MmapRegionError;
use vm_memory::{FileOffset, GuestAddress, GuestMemoryMmap, GuestRegionMmap, MmapRegion};

/// Maps all regions. Returns where they are, in the kernel's struct.
pub(super) fn map(
    regions: &[Region<'_>],
) -> Result<(GuestMemoryMmap, Vec<VhostUserMemoryRegionInfo>)> {
    let mapped = regions.iter().map(map_one).collect::<Result<Vec<_>>>()?;
    let table = mapped.iter().map(VhostUserMemoryRegionInfo::from_guest_region).collect();
    let table: core::result::Result<Vec<_>, vhost::Error> = table;
    let unusable = Error::Memory { why: "its regions overlap, or there is none" };
    match (GuestMemoryMmap::from_regions(mapped), table) {
        (Ok(memory), Ok(table)) => Ok((memory, table)),
        _ => Err(unusable),
    }
}

fn map_one(region: &Region<'_>) -> Result<GuestRegionMmap> {
    let Memory::File { file, offset } = region.memory else {
        return Err(Error::Memory { why: "Linux's vhost needs a file that can be mapped" });
    };
    let failed = |errno| Error::System { what: "map the guest's memory", errno };
    let file = file_of(file).map_err(failed)?;
    let size = usize::try_from(region.size).map_err(|_| failed(Errno::OVERFLOW))?;
    let mapping = MmapRegion::from_file(FileOffset::new(file, offset), size);
    let mapping = mapping.map_err(|error| failed(errno_of(&error)))?;
    let beyond = Error::Memory { why: "a region ends beyond the last address" };
    GuestRegionMmap::new(mapping, GuestAddress(region.guest_address)).ok_or(beyond)
}

fn file_of(file: BorrowedFd<'_>) -> core::result::Result<File, Errno> {
    let own = file.try_clone_to_owned();
    own.map(File::from).map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::MFILE))
}

fn errno_of(error: &MmapRegionError) -> Errno {
    match error {
        MmapRegionError::Mmap(error) => Errno::from_io_error(error).unwrap_or(Errno::INVAL),
        _ => Errno::INVAL,
    }
}
