//! The capabilities, by which a driver finds MSI-X and virtio's structures (virtio 1.3, section 4.1.4).

use crate::config_space::ConfigSpace;
use crate::layout::{
    COMMON, DEVICE, DOORBELL_BAR, DOORBELL_SIZE, ISR, PENDING, REGISTERS_BAR, TABLE,
};
use crate::msix::{ENABLE, MASK_ALL};
use crate::value::word;
use virtio_spec::pci::CapCfgType;

/// Capability IDs (PCI Code and ID Assignment).
const CAP_VENDOR: u8 = 0x09;
const CAP_MSIX: u8 = 0x11;

/// Where in the configuration space the registers of capabilities are.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Places {
    /// MSI-X's message control.
    pub(crate) msix_control: usize,
    /// `bar`, `offset`, `length` and `pci_cfg_data` of the PCI configuration access capability.
    pub(crate) window: usize,
}

/// Adds all capabilities of a function with so many vectors and bytes of device configuration.
pub(crate) fn add(space: &mut ConfigSpace, vectors: usize, config: usize) -> Places {
    let [low, high] = word(vectors as u64 - 1).to_le_bytes();
    let mut body = alloc::vec![low, high];
    for block in [TABLE, PENDING] {
        body.extend((block.start | u32::from(REGISTERS_BAR)).to_le_bytes());
    }
    let msix_control = space.add_capability(CAP_MSIX, &body) + 2;
    space.allow(msix_control, &(ENABLE | MASK_ALL).to_le_bytes());

    let mut add = |kind: CapCfgType, bar: u8, offset: u32, length: u32, more: &[u8]| {
        let len = 16 + more.len();
        let mut body = alloc::vec![len.to_le_bytes()[0], kind.into(), bar, 0, 0, 0];
        body.extend(offset.to_le_bytes());
        body.extend(length.to_le_bytes());
        body.extend(more);
        space.add_capability(CAP_VENDOR, &body)
    };
    let length = COMMON.end - COMMON.start;
    add(CapCfgType::Common, REGISTERS_BAR, COMMON.start, length, &[]);
    // One doorbell for all queues: `notify_off_multiplier` is 0.
    add(CapCfgType::Notify, DOORBELL_BAR, 0, DOORBELL_SIZE, &0_u32.to_le_bytes());
    add(CapCfgType::Isr, REGISTERS_BAR, ISR.start, ISR.end - ISR.start, &[]);
    if config > 0 {
        add(CapCfgType::Device, REGISTERS_BAR, DEVICE.start, word(config as u64).into(), &[]);
    }
    let window = add(CapCfgType::Pci, 0, 0, 0, &0_u32.to_le_bytes()) + 4;
    space.allow(window, &[0xFF]);
    space.allow(window + 4, &[0xFF; 12]);
    Places { msix_control, window }
}
