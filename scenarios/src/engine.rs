//! The engines under test.

use crate::privcmd_abi::Privcmd;
use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use xen_eventfd::{Builder, EngineKind, Result, Xen};

/// An engine, on real Xen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
pub enum Engine {
    /// The userspace engine.
    Userspace,
    /// The kernel module, by its own ABI.
    Kernel,
    /// The kernel module, by the privcmd ABI: an engine of these tests.
    Privcmd,
}

impl Engine {
    /// Opens this machine's Xen with it.
    ///
    /// # Errors
    /// It cannot run here.
    pub fn open(self, builder: Builder) -> Result<Xen> {
        match self {
            Self::Userspace => builder.engine(EngineKind::Userspace).open(),
            Self::Kernel => builder.engine(EngineKind::Kernel).open(),
            Self::Privcmd => builder.open_by::<Privcmd>(),
        }
    }
}
