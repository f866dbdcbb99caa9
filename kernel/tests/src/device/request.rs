//! Request numbers, and the constants of their structs.

pub(crate) const QUERY: u32 = 0xEF00;
pub(crate) const CREATE: u32 = 0xEF01;
pub(crate) const OWNER: u32 = 0xEF02;
pub(crate) const MEMORY: u32 = 0xEF03;
pub(crate) const ASSIGN: u32 = 0xEF10;
pub(crate) const DEASSIGN: u32 = 0xEF11;
pub(crate) const STATS: u32 = 0xEF12;
pub(crate) const LIST: u32 = 0xEF13;
pub(crate) const MISSED: u32 = 0xEF14;
pub(crate) const ASSIGN_IRQ: u32 = 0xEF20;
pub(crate) const DEASSIGN_IRQ: u32 = 0xEF21;
pub(crate) const IRQ_STATS: u32 = 0xEF22;
pub(crate) const LOWER: u32 = 0xEF23;
pub(crate) const SET_IRQ: u32 = 0xEF24;
pub(crate) const MASK_IRQ: u32 = 0xEF25;
pub(crate) const UNMASK_IRQ: u32 = 0xEF26;
pub(crate) const IRQ_STATE: u32 = 0xEF27;
pub(crate) const ASSIGN_CHANNEL: u32 = 0xEF30;
pub(crate) const DEASSIGN_CHANNEL: u32 = 0xEF31;
pub(crate) const ASSIGN_STATUS: u32 = 0xEF40;
pub(crate) const DEASSIGN_STATUS: u32 = 0xEF41;
pub(crate) const CHANGE_STATUS: u32 = 0xEF42;

/// The requests of a control file.
pub(crate) const OF_CONTROL: [u32; 4] = [QUERY, CREATE, OWNER, MEMORY];
/// The requests of a guest's file.
pub(crate) const OF_GUEST: [u32; 18] = [
    ASSIGN,
    DEASSIGN,
    STATS,
    LIST,
    MISSED,
    ASSIGN_IRQ,
    DEASSIGN_IRQ,
    IRQ_STATS,
    LOWER,
    SET_IRQ,
    MASK_IRQ,
    UNMASK_IRQ,
    IRQ_STATE,
    ASSIGN_CHANNEL,
    DEASSIGN_CHANNEL,
    ASSIGN_STATUS,
    DEASSIGN_STATUS,
    CHANGE_STATUS,
];

/// `IOCTL_PRIVCMD_RESTRICT`: `_IOC(_IOC_NONE, 'P', 6, sizeof(domid_t))`.
pub(crate) const RESTRICT: u32 = 0x0002_5006;
/// `IOCTL_PRIVCMD_IRQFD`: `_IOW('P', 8, struct privcmd_irqfd)`, 24 bytes.
pub(crate) const PRIVCMD_IRQFD: u32 = 0x4018_5008;
/// `IOCTL_PRIVCMD_IOEVENTFD`: `_IOW('P', 9, struct privcmd_ioeventfd)`, 48 bytes.
pub(crate) const PRIVCMD_IOEVENTFD: u32 = 0x4030_5009;

pub(crate) const CREATE_RESERVE: u32 = 1;
pub(crate) const CREATE_SHARE: u32 = 2;
pub(crate) const CREATE_OWN: u32 = 4;

pub(crate) const MMIO: u32 = 0;
pub(crate) const PIO: u32 = 1;

pub(crate) const VALUE: u32 = 0;
pub(crate) const WIDTH: u32 = 1;
pub(crate) const ANY: u32 = 2;
pub(crate) const FALLBACK: u32 = 3;

pub(crate) const LIST_DOORBELLS: u32 = 0;
pub(crate) const LIST_HELD: u32 = 1;

pub(crate) const IRQ_CHANNEL: u32 = 0;
pub(crate) const IRQ_MSI: u32 = 1;
pub(crate) const IRQ_ISA: u32 = 2;
pub(crate) const IRQ_INTX: u32 = 3;
pub(crate) const IRQ_SPI: u32 = 4;
pub(crate) const IRQ_STATUS: u32 = 5;

pub(crate) const PULSE: u32 = 0;
pub(crate) const LEVEL: u32 = 1;
