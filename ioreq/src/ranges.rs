//! The ranges of a guest that Xen routes to one server.

use std::sync::Arc;
use xen_eventfd_core::doorbell::Bytes;
use xen_eventfd_core::{DomId, IoServerId, PciFunction};
use xen_eventfd_host::{Host, Result};

/// The ranges of a guest that Xen routes to one server. Cheap to clone; of no use once the server is gone.
#[derive(Debug, Clone)]
pub struct Ranges {
    host: Arc<dyn Host>,
    dom: DomId,
    server: IoServerId,
}

impl Ranges {
    pub(crate) fn new(host: Arc<dyn Host>, dom: DomId, server: IoServerId) -> Self {
        Self { host, dom, server }
    }

    /// Routes accesses to memory or ports that lie wholly in `bytes` to the server.
    ///
    /// # Errors
    /// As [`Host::map_range`].
    pub fn map(&self, bytes: Bytes) -> Result<()> {
        self.host.map_range(self.dom, self.server, bytes)
    }

    /// Takes them back. Requests that were made before still come.
    ///
    /// # Errors
    /// As [`Host::unmap_range`]: the bytes stay routed to the server then.
    pub fn unmap(&self, bytes: Bytes) -> Result<()> {
        self.host.unmap_range(self.dom, self.server, bytes)
    }

    /// Routes accesses to the configuration space of a PCI function to the server.
    ///
    /// # Errors
    /// As [`Host::map_function`].
    pub fn map_function(&self, function: PciFunction) -> Result<()> {
        self.host.map_function(self.dom, self.server, function)
    }

    /// Takes it back.
    ///
    /// # Errors
    /// As [`Host::unmap_function`].
    pub fn unmap_function(&self, function: PciFunction) -> Result<()> {
        self.host.unmap_function(self.dom, self.server, function)
    }
}
