//! Resources that must not be left behind, in the kernel's and in Xen's own lists.

use super::common::until;
use anyhow::{Result, ensure};
use xen_eventfd::DomId;
use xen_eventfd_scenarios::TestContext;
use xen_eventfd_scenarios::lists::{self, Lists};

/// The event channels that the module has bound.
pub(super) fn interrupts() -> Result<usize> {
    lists::module_interrupts()
}

/// The ports of this domain that are connected to the guest.
pub(super) fn ports(dom: DomId) -> Result<usize> {
    Ok(Lists::look()?.channels_to.get(&dom).copied().unwrap_or(0))
}

/// Waits until no port of this domain is connected to a dead guest and the guest has no server. Daemons
/// that serve every guest release it a little later than the module does.
pub(super) fn nothing_of_the_dead(test: &TestContext<'_>, dom: DomId) -> Result<()> {
    let servers = test.environment().servers(dom)?;
    ensure!(servers.is_empty(), "servers {servers:?} of a dead guest are left");
    until("no port is connected to a dead guest", || Ok(ports(dom)? == 0))
}

/// The resources of a guest before the module takes it.
#[derive(Debug)]
pub(super) struct Before {
    dom: DomId,
    servers: Vec<u16>,
    ports: usize,
}

impl Before {
    pub(super) fn look(test: &TestContext<'_>, dom: DomId) -> Result<Self> {
        Ok(Self { dom, servers: test.environment().servers(dom)?, ports: ports(dom)? })
    }

    /// Checks that the module, of which no file is open, has left the guest as it was.
    pub(super) fn nothing_is_left(&self, test: &TestContext<'_>) -> Result<()> {
        let servers = test.environment().servers(self.dom)?;
        ensure!(servers == self.servers, "servers {servers:?} instead of {:?}", self.servers);
        let interrupts = interrupts()?;
        ensure!(interrupts == 0, "{interrupts} of the module's interrupts are left");
        let ports = ports(self.dom)?;
        ensure!(ports == self.ports, "{ports} ports to the guest instead of {}", self.ports);
        Ok(())
    }
}
