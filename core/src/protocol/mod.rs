//! The protocol: one module for each rule.

pub mod claims;
pub mod dispatch;
pub mod doorbell;
pub mod held;
pub mod id;
pub mod interrupt_state;
pub mod interrupt_status;
pub mod ioreq;
pub mod irq;
pub mod pci;
pub mod slot;
pub mod status;
mod sync;
pub mod table;
pub mod unmatched;
pub mod wire;

pub use self::doorbell::{Doorbell, Filter, Invalid};
pub use self::id::{DomId, IoServerId, Port, VcpuId};
pub use self::ioreq::{Access, Kick, Odd, Request, Space, Width};
pub use self::pci::{ConfigAccess, PciFunction};
pub use self::status::Counters;
