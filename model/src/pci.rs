//! Configuration cycles of PCI: ports 0xCF8 and 0xCFC to 0xCFF (`arch_ioreq_server_get_type_addr` in
//! `xen/arch/x86/hvm/ioreq.c`). The extended registers, which AMD's processors reach in this way, are not
//! modelled.

use crate::domain::Domain;
use xen_eventfd_core::ioreq::{DATA_IS_PTR, DIR_READ, Ioreq, PCI_CONFIG, PIO};

const ADDRESS: u64 = 0xCF8;
const DATA: u64 = 0xCFC;
/// Without this bit of the address, the data port is a port like any other.
const ENABLED: u32 = 1 << 31;

impl Domain {
    /// Remembers a write to the address port (`hvm_access_cf8`), which is a request all the same.
    pub(crate) fn remember_cf8(&mut self, request: &Ioreq) {
        let whole = request.addr == ADDRESS && request.size == 4 && request.count == 1;
        if request.kind == PIO && whole && request.flags & (DIR_READ | DATA_IS_PTR) == 0 {
            self.cf8 = u32::try_from(request.data & u64::from(u32::MAX)).unwrap_or_default();
        }
    }

    /// A request as Xen routes it: what goes to the data port is one to the function that the address
    /// port names.
    pub(crate) fn routed(&self, request: &Ioreq) -> Ioreq {
        if request.kind != PIO || request.addr & !3 != DATA || self.cf8 & ENABLED == 0 {
            return *request;
        }
        let (sbdf, register) = (self.cf8 >> 8 & 0xFFFF, self.cf8 & 0xFC);
        let addr = u64::from(sbdf) << 32 | u64::from(register) | request.addr & 3;
        Ioreq { kind: PCI_CONFIG, addr, ..*request }
    }
}
