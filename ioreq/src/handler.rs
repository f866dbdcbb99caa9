//! What answers the requests that a guest makes of one ioreq server.

use crate::ranges::Ranges;
use core::fmt;
use xen_eventfd_core::{Kick, Request, VcpuId};

/// Answers the requests that a guest makes of one ioreq server ([`GuestServer`]).
///
/// [`GuestServer`]: crate::GuestServer
pub trait Handler: Send + Sync + fmt::Debug {
    /// Called once, before any request: the ranges that are routed here, none so far, and the writes that
    /// were answered for a killed process and that it has not acted on.
    fn begin(&self, ranges: Ranges, held: Vec<Kick>);

    /// Acts on a vCPU's request and returns the answer to a read, with no bits beyond its width. The vCPU
    /// goes on once this has returned.
    ///
    /// One call at a time for each guest. The server is locked meanwhile, so this must neither let go of
    /// the guest nor wait for a thread that does; it may change [`Ranges`].
    fn request(&self, vcpu: VcpuId, request: &Request) -> u64;

    /// An event of a vCPU came without a request.
    fn spurious(&self, vcpu: VcpuId) {
        let _ = vcpu;
    }

    /// The guest is about to be let go of, or has died. Called once; requests may still come.
    fn ending(&self) {}

    /// No request comes any more, and the server is gone. Returns the writes that the guest's next process
    /// is to act on.
    fn left(&self) -> Vec<Kick> {
        Vec::new()
    }

    /// The last call: gives up what is kept for the guest.
    fn ended(&self) {}
}
