//! Whether a guest still has our server, asked without pausing the guest.

use xen_eventfd_core::{DomId, IoServerId, Port};
use xen_eventfd_host::{Binding, Host, LocalPort};

/// What tells a server of ours from one that has its id after it was destroyed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Liveness {
    dom: DomId,
    server: IoServerId,
    /// The event channel of the first vCPU, the guest's end and ours. It ends with the server.
    channel: Option<(Port, LocalPort)>,
}

impl Liveness {
    pub(crate) fn new(dom: DomId, server: IoServerId, channel: Option<(Port, LocalPort)>) -> Self {
        Self { dom, server, channel }
    }

    /// Whether the guest has lost the server. One of which Xen does not say so has it.
    ///
    /// A server with its id may be another process's: once ours was destroyed, its id is free. Ours is
    /// there as long as the event channel that came with it leads to our end. A process that is confined to
    /// its guest may not ask for that.
    pub(crate) fn is_lost(&self, host: &dyn Host) -> bool {
        let is_foreign = |(remote, local)| {
            host.binding(self.dom, remote).is_ok_and(|binding| match binding {
                Binding::Bound { port, .. } => port != local,
                Binding::Unbound { .. } | Binding::Other => true,
            })
        };
        matches!(host.server_alive(self.dom, self.server), Ok(false))
            || self.channel.is_some_and(is_foreign)
    }
}
