//! Event channels that are allocated in a guest's name, for a process that serves devices. It stands beside
//! [`Host`](crate::Host), which an engine of doorbells needs alone.

use crate::Result;
use core::fmt;
use xen_eventfd_core::{DomId, Port};

/// Allocates event channels in the name of guests.
pub trait GuestPorts: Send + Sync + fmt::Debug {
    /// Allocates a port of a guest for this domain to bind (`EVTCHNOP_alloc_unbound`), by
    /// [`EventChannels::bind`](crate::EventChannels::bind). The guest learns the number from its device, and
    /// the port is the guest's to close.
    ///
    /// Fails with [`Call::AllocatePort`](crate::Call::AllocatePort). A confined device may not do this.
    fn allocate_port(&self, dom: DomId) -> Result<Port>;
}
