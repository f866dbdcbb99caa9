//! Fault injection: failures and kills that a test plans for the calls of one client.

use core::fmt;
use rustix::io::Errno;
use std::sync::Arc;
use xen_eventfd_host::Call;

/// The calls of a host, one for each method of its traits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum CallKind {
    /// `Host::domains`.
    Domains,
    /// `Host::domain`.
    Domain,
    /// `Host::vcpus`.
    Vcpus,
    /// `Host::create_server`.
    CreateServer,
    /// `Host::destroy_server`.
    DestroyServer,
    /// `Host::set_server_state`.
    SetServerState,
    /// `Host::server_alive`.
    ServerAlive,
    /// `Host::map_page`.
    MapPage,
    /// `Host::map_range`.
    MapRange,
    /// `Host::unmap_range`.
    UnmapRange,
    /// `Host::map_function`.
    MapFunction,
    /// `Host::unmap_function`.
    UnmapFunction,
    /// `Host::inject_msi`.
    InjectMsi,
    /// `Host::has_lines`.
    HasLines,
    /// `Host::set_line`.
    SetLine,
    /// `Host::event_channels`.
    EventChannels,
    /// `Host::binding`.
    Binding,
    /// `Host::notify_port`.
    NotifyPort,
    /// `Host::releases`.
    Releases,
    /// `Host::signaller`.
    Signaller,
    /// `EventChannels::bind`.
    Bind,
    /// `EventChannels::unbind`.
    Unbind,
    /// `EventChannels::notify`.
    Notify,
    /// `EventChannels::pending`.
    Pending,
    /// `EventChannels::eoi`.
    Eoi,
    /// `Releases::drain`.
    Drain,
    /// `Signaller::signal`.
    Signal,
}

/// One call of a client, about to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallSite {
    /// The number of this call of the client, from 1.
    pub index: u64,
    /// The method.
    pub kind: CallKind,
    /// The operation, with its guest.
    pub call: Call,
}

/// The decision of a hook about a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is made.
    Proceed,
    /// It is not made and fails.
    Fail(Errno),
    /// The client is killed first; the call is not made.
    KillBefore,
    /// The call is made, and the client is killed before it receives the result.
    KillAfter,
}

pub(crate) type Hook = Arc<dyn Fn(&CallSite) -> Verdict + Send + Sync>;

/// The planned faults of one client.
#[derive(Default)]
pub(crate) struct Faults {
    pub(crate) made: u64,
    planned: Vec<(CallKind, u64, Errno)>,
    pub(crate) hook: Option<Hook>,
}

impl Faults {
    pub(crate) fn plan(&mut self, kind: CallKind, nth: u64, errno: Errno) {
        self.planned.push((kind, nth, errno));
    }

    /// Counts one call; returns its number and the planned error, if any.
    pub(crate) fn count(&mut self, kind: CallKind) -> (u64, Option<Errno>) {
        self.made += 1;
        let mut due = None;
        self.planned.retain_mut(|(planned, left, errno)| {
            if *planned != kind {
                return true;
            }
            *left = left.saturating_sub(1);
            if *left == 0 {
                due = Some(*errno);
            }
            *left > 0
        });
        (self.made, due)
    }
}

impl fmt::Debug for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Faults")
            .field("made", &self.made)
            .field("planned", &self.planned)
            .field("hook", &self.hook.is_some())
            .finish()
    }
}
