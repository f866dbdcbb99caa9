//! The PCI root in a PVH guest's ACPI tables. libxl describes none there, and Linux looks for a bus only where
//! something says that there is one.
//!
//! libxl puts the tables into pages of their own at 0xFC000000 (`libxl_x86_acpi.c`). The rest of the last page is
//! free: it gets an SSDT with the root, and a copy of the XSDT with one more entry, to which the RSDP then points.
//! The guest must not have run yet.

use crate::layout;
use acpi_tables::Aml;
use acpi_tables::aml::{
    AddressSpace, AddressSpaceCacheable, Device, EISAName, IO, Name, ResourceTemplate, Scope, ZERO,
};
use acpi_tables::sdt::Sdt;
use xen_eventfd_host::memory::FRAME;

/// Where libxl's tables begin.
pub(crate) const TABLES: u64 = 0xFC00_0000;
/// Where the RSDP is for kernels that look for it only where a BIOS has it, and its page.
pub(crate) const BIOS_PAGE: u64 = 0xF_F000;

const OEM: [u8; 6] = *b"XENEVT";
const OEM_TABLE: [u8; 8] = *b"PCIROOT ";
/// Bytes of the RSDP since ACPI 2.0, of which the first 20 have a checksum of their own.
const RSDP_SIZE: usize = 36;
const RSDP_SIZE_OF_1_0: usize = 20;
/// Where the RSDP's and the tables' fields are (ACPI 6.5, 5.2.5.3 and 5.2.6 to 5.2.9).
const RSDP_RSDT: usize = 16;
const RSDP_XSDT: usize = 24;
const RSDP_CHECKSUM: usize = 32;
const HEADER: usize = HEADER_SIZE as usize;
const HEADER_SIZE: u32 = 36;
const LENGTH: usize = 4;
const CHECKSUM: usize = 9;
const FADT_FACS: [usize; 2] = [132, 36];
const FADT_DSDT: [usize; 2] = [140, 40];
/// The strictest alignment that a table needs.
const ALIGN: u64 = 64;

/// Why a guest gets no PCI root.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum AcpiError {
    /// There are none, or they are damaged.
    #[error(
        "the guest's ACPI tables are not where libxl puts them ({0}); is it a PVH guest with \
         `acpi` on? `pci=lastbus=1` on its kernel's command line does without them"
    )]
    NotFound(&'static str),
    /// The last page of the tables is full.
    #[error(
        "the guest's ACPI tables have no room for one more of {0} bytes; `pci=lastbus=1` on its \
         kernel's command line does without it"
    )]
    Full(u64),
}

/// Bytes for the guest's memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Patch {
    /// The guest physical address.
    pub(crate) at: u64,
    pub(crate) bytes: Vec<u8>,
}

/// A copy of contiguous guest memory.
#[derive(Debug, Clone)]
pub(crate) struct Extent {
    pub(crate) base: u64,
    pub(crate) bytes: Vec<u8>,
}

impl Extent {
    fn get(&self, at: u64, length: usize) -> Option<&[u8]> {
        let first = usize::try_from(at.checked_sub(self.base)?).ok()?;
        self.bytes.get(first..first.checked_add(length)?)
    }

    fn u32(&self, at: u64) -> Option<u32> {
        self.get(at, 4)?.try_into().ok().map(u32::from_le_bytes)
    }

    fn u64(&self, at: u64) -> Option<u64> {
        self.get(at, 8)?.try_into().ok().map(u64::from_le_bytes)
    }

    /// The tables that the FADT names: FACS and DSDT.
    fn named_by_fadt(&self, fadt: u64) -> impl Iterator<Item = u64> {
        [FADT_FACS, FADT_DSDT].into_iter().filter_map(move |[wide, narrow]| {
            let wide = self.u64(fadt + wide as u64).filter(|at| *at != 0);
            wide.or(self.u32(fadt + narrow as u64).map(u64::from)).filter(|at| *at != 0)
        })
    }

    /// A whole table.
    fn table(&self, at: u64) -> Option<&[u8]> {
        let length = self.u32(at.checked_add(LENGTH as u64)?)?;
        self.get(at, length as usize)
    }
}

/// What to write so that the guest finds a PCI root: nothing, if it has this one already. `tables` are the pages
/// from [`TABLES`] on, `bios` is [`BIOS_PAGE`] if the guest has it.
pub(crate) fn add_root(tables: &Extent, bios: Option<&Extent>) -> Result<Vec<Patch>, AcpiError> {
    let missing = |what| AcpiError::NotFound(what);
    let (rsdp, root) = [Some(tables), bios]
        .into_iter()
        .flatten()
        .find_map(find_rsdp)
        .ok_or(missing("there is no RSDP"))?;
    let xsdt_at = field(root, RSDP_XSDT);
    let xsdt = tables.table(xsdt_at).filter(|table| table.starts_with(b"XSDT") && sum(table) == 0);
    let xsdt = xsdt.filter(|table| table.len() >= HEADER).ok_or(missing("there is no XSDT"))?;
    let mut end = xsdt_at + xsdt.len() as u64;
    // The table of those who know no XSDT is not changed: Linux takes the other.
    let rsdt_at = field(root, RSDP_RSDT) & u64::from(u32::MAX);
    if let Some(rsdt) = tables.table(rsdt_at).filter(|_| rsdt_at != 0) {
        end = end.max(rsdt_at + rsdt.len() as u64);
    }
    let mut others: Vec<u64> =
        xsdt[HEADER..].chunks_exact(8).map(|entry| field(entry, 0)).collect();
    while let Some(at) = others.pop() {
        let table = tables.table(at).ok_or(missing("a table is elsewhere"))?;
        if table.starts_with(b"SSDT") && table.get(10..16) == Some(&OEM) {
            return Ok(Vec::new());
        }
        end = end.max(at + table.len() as u64);
        if table.starts_with(b"FACP") {
            others.extend(tables.named_by_fadt(at));
        }
    }
    let ssdt = ssdt();
    let ssdt_at = end.next_multiple_of(ALIGN);
    let new_xsdt_at = (ssdt_at + ssdt.len() as u64).next_multiple_of(ALIGN);
    let new_xsdt = with_entry(xsdt, ssdt_at);
    let needed = new_xsdt_at + new_xsdt.len() as u64 - end;
    let page_end = end.next_multiple_of(FRAME as u64);
    let free = usize::try_from(page_end - end).ok().and_then(|length| tables.get(end, length));
    let is_free =
        free.is_some_and(|free| free.len() as u64 >= needed && free.iter().all(|byte| *byte == 0));
    if !is_free {
        return Err(AcpiError::Full(needed));
    }
    let mut new_root = root.to_vec();
    new_root[RSDP_XSDT..RSDP_XSDT + 8].copy_from_slice(&new_xsdt_at.to_le_bytes());
    set_sum(&mut new_root, RSDP_CHECKSUM);
    Ok(vec![
        Patch { at: ssdt_at, bytes: ssdt },
        Patch { at: new_xsdt_at, bytes: new_xsdt },
        Patch { at: rsdp, bytes: new_root },
    ])
}

/// The RSDP of ACPI 2.0 or later.
fn find_rsdp(extent: &Extent) -> Option<(u64, &[u8])> {
    (0..extent.bytes.len()).step_by(16).find_map(|at| {
        let root = extent.bytes.get(at..at + RSDP_SIZE)?;
        let valid = root.starts_with(b"RSD PTR ")
            && root[15] >= 2
            && sum(&root[..RSDP_SIZE_OF_1_0]) == 0
            && sum(root) == 0;
        valid.then_some((extent.base + at as u64, root))
    })
}

/// The SSDT: bus 0, the ports of configuration mechanism 1, and windows for the BARs.
fn ssdt() -> Vec<u8> {
    let bus = AddressSpace::new_bus_number(0_u16, 0);
    let mechanism = IO::new(0xCF8, 0xCF8, 1, 8);
    let ports = AddressSpace::new_io(*layout::PORTS.start(), *layout::PORTS.end(), None);
    let (first, last) = (*layout::MEMORY.start(), *layout::MEMORY.end());
    let memory =
        AddressSpace::new_memory(AddressSpaceCacheable::NotCacheable, true, first, last, None);
    let resources = ResourceTemplate::new(vec![&bus, &mechanism, &ports, &memory]);
    let hid = EISAName::new("PNP0A03");
    let names = [
        Name::new("_HID".into(), &hid),
        Name::new("_UID".into(), &ZERO),
        Name::new("_BBN".into(), &ZERO),
        Name::new("_CRS".into(), &resources),
    ];
    let root = Device::new("PCI0".into(), names.iter().map(|name| name as &dyn Aml).collect());
    let mut aml = Vec::new();
    Scope::new("\\_SB_".into(), vec![&root]).to_aml_bytes(&mut aml);
    let mut table = Sdt::new(*b"SSDT", HEADER_SIZE, 2, OEM, OEM_TABLE, 1);
    table.append_slice(&aml);
    table.as_slice().to_vec()
}

/// A table of addresses with one more.
fn with_entry(table: &[u8], entry: u64) -> Vec<u8> {
    let mut new = [table, &entry.to_le_bytes()].concat();
    let length = u32::try_from(new.len()).unwrap_or(u32::MAX);
    new[LENGTH..LENGTH + 4].copy_from_slice(&length.to_le_bytes());
    set_sum(&mut new, CHECKSUM);
    new
}

fn field(bytes: &[u8], at: usize) -> u64 {
    let field = bytes.get(at..at + 8).and_then(|field| field.try_into().ok());
    field.map_or(0, u64::from_le_bytes)
}

fn sum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0, |sum: u8, byte| sum.wrapping_add(*byte))
}

/// Makes all bytes add up to 0.
fn set_sum(bytes: &mut [u8], at: usize) {
    bytes[at] = 0;
    bytes[at] = sum(bytes).wrapping_neg();
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A table of this signature and length, with a right sum.
    fn table(signature: &[u8; 4], length: usize, put: &[(usize, u64)]) -> Vec<u8> {
        let mut table = vec![0; length];
        table[..4].copy_from_slice(signature);
        table[LENGTH..LENGTH + 4].copy_from_slice(&u32::try_from(length).unwrap().to_le_bytes());
        for (at, value) in put {
            table[*at..at + 8].copy_from_slice(&value.to_le_bytes());
        }
        set_sum(&mut table, CHECKSUM);
        table
    }

    /// Tables as libxl lays them out: FACS, DSDT, FADT, MADT, XSDT, RSDT, and the RSDP in the next page.
    fn tables(madt: usize) -> Extent {
        let mut extent = Extent { base: TABLES, bytes: vec![0; 4 * FRAME] };
        let mut put = |at: usize, bytes: &[u8]| {
            extent.bytes[at..at + bytes.len()].copy_from_slice(bytes);
            TABLES + at as u64
        };
        let facs = put(0x1000, &table(b"FACS", 64, &[]));
        let dsdt = put(0x1040, &table(b"DSDT", 0x100, &[]));
        let fadt = put(0x1180, &table(b"FACP", 244, &[(132, facs), (140, dsdt)]));
        let apic = put(0x1280, &table(b"APIC", madt, &[]));
        let xsdt_at = (0x1280 + madt).next_multiple_of(16);
        let xsdt = put(xsdt_at, &table(b"XSDT", 52, &[(36, fadt), (44, apic)]));
        let rsdt_at = (xsdt_at + 52).next_multiple_of(16);
        let rsdt = put(rsdt_at, &table(b"RSDT", 44, &[(36, fadt | apic << 32)]));
        let mut root = b"RSD PTR ".to_vec();
        root.resize(RSDP_SIZE, 0);
        root[15] = 2;
        root[16..20].copy_from_slice(&u32::try_from(rsdt).unwrap().to_le_bytes());
        set_sum(&mut root[..RSDP_SIZE_OF_1_0], 8);
        root[RSDP_XSDT..RSDP_XSDT + 8].copy_from_slice(&xsdt.to_le_bytes());
        set_sum(&mut root, RSDP_CHECKSUM);
        put(0x3000, &root);
        extent
    }

    fn apply(extent: &mut Extent, patches: &[Patch]) {
        for Patch { at, bytes } in patches {
            let at = usize::try_from(at - extent.base).unwrap();
            extent.bytes[at..at + bytes.len()].copy_from_slice(bytes);
        }
    }

    /// The tables that a kernel finds from the RSDP on, each with a right sum.
    fn found(extent: &Extent) -> Vec<Vec<u8>> {
        let (_, root) = find_rsdp(extent).unwrap();
        let xsdt = extent.table(field(root, RSDP_XSDT)).unwrap();
        assert_eq!(sum(xsdt), 0);
        let at = |entry: &[u8]| extent.table(field(entry, 0)).unwrap().to_vec();
        xsdt[HEADER..].chunks_exact(8).map(at).collect()
    }

    #[test]
    fn a_kernel_finds_the_old_tables_and_the_root() {
        let before = tables(80);
        let mut after = before.clone();
        apply(&mut after, &add_root(&before, None).unwrap());
        let (old, new) = (found(&before), found(&after));
        assert_eq!(new.len(), 3);
        assert_eq!(new[..2], old);
        assert!(new[2].starts_with(b"SSDT") && sum(&new[2]) == 0);
        let changed = (0..after.bytes.len()).filter(|at| before.bytes[*at] != after.bytes[*at]);
        let old_end = 0x1280 + 80 + 64 + 44;
        assert!(changed.into_iter().all(|at| (old_end..0x2000).contains(&at) || at >= 0x3000));
    }

    #[test]
    fn a_root_that_is_there_is_not_added_again() {
        let mut extent = tables(80);
        let patches = add_root(&extent, None).unwrap();
        apply(&mut extent, &patches);
        assert_eq!(add_root(&extent, None), Ok(vec![]));
    }

    #[test]
    fn the_rsdp_may_be_where_a_bios_has_it() {
        let mut extent = tables(80);
        let root = extent.bytes[0x3000..0x3000 + RSDP_SIZE].to_vec();
        extent.bytes[0x3000] = 0;
        assert!(matches!(add_root(&extent, None), Err(AcpiError::NotFound(_))));
        let mut bios = Extent { base: BIOS_PAGE, bytes: vec![0; FRAME] };
        bios.bytes[0xFC0..0xFC0 + RSDP_SIZE].copy_from_slice(&root);
        let patches = add_root(&extent, Some(&bios)).unwrap();
        assert_eq!(patches[2].at, 0xF_FFC0);
    }

    #[test]
    fn without_room_nothing_is_written() {
        // The last page is full but for 64 bytes.
        let refused = add_root(&tables(0xD00), None).unwrap_err();
        assert!(matches!(refused, AcpiError::Full(_)));
        assert!(refused.to_string().contains("pci=lastbus=1"));
        // Something else is in the rest of it.
        let mut extent = tables(80);
        extent.bytes[0x1FFF] = 1;
        assert!(matches!(add_root(&extent, None), Err(AcpiError::Full(_))));
    }

    #[test]
    fn damaged_tables_are_refused() {
        for at in [0x1280 + 80 + 16, 0x3000 + 25] {
            let mut extent = tables(80);
            extent.bytes[at] ^= 1;
            assert!(matches!(add_root(&extent, None), Err(AcpiError::NotFound(_))), "{at:#x}");
        }
        // A length beyond all pages.
        let mut extent = tables(80);
        extent.bytes[0x1280 + LENGTH + 3] = 0xFF;
        assert!(matches!(add_root(&extent, None), Err(AcpiError::NotFound(_))));
    }
}
