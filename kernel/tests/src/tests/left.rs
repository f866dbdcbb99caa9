//! What must not be left behind, by the kernel's and by Xen's own lists.

use super::common::until;
use anyhow::{Result, ensure};
use xen_eventfd::DomId;
use xen_eventfd_scenarios::TestContext;
use xen_eventfd_scenarios::lists::{self, Lists};

/// Event channels that the module has bound.
pub(super) fn interrupts() -> Result<usize> {
    lists::module_interrupts()
}

/// The ports of this domain that Xen has connected to a guest's.
pub(super) fn ports(dom: DomId) -> Result<usize> {
    Ok(Lists::look()?.channels_to.get(&dom).copied().unwrap_or(0))
}

/// Waits until nothing of this domain leads to a guest that is dead, and nobody serves it: those
/// who serve every guest let go of it a little later than the module.
pub(super) fn nothing_of_the_dead(test: &TestContext<'_>, dom: DomId) -> Result<()> {
    let servers = test.environment().servers(dom)?;
    ensure!(servers.is_empty(), "servers {servers:?} of a dead guest are left");
    until("no port leads to a dead guest", || Ok(ports(dom)? == 0))
}

/// What a guest has of others before the module takes it.
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

    /// Whether the module, of which no file is open, has left the guest as it was.
    pub(super) fn nothing_is_left(&self, test: &TestContext<'_>) -> Result<()> {
        let servers = test.environment().servers(self.dom)?;
        ensure!(servers == self.servers, "servers {servers:?}, and before {:?}", self.servers);
        let interrupts = interrupts()?;
        ensure!(interrupts == 0, "{interrupts} of the module's interrupts are left");
        let ports = ports(self.dom)?;
        ensure!(ports == self.ports, "{ports} ports to the guest, and before {}", self.ports);
        Ok(())
    }
}
