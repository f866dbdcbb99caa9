//! ioeventfd and irqfd for Xen guests.
//!
//! A virtio guest rings a doorbell; a backend waits on an eventfd. [`Xen`] connects the two, with
//! the verbs of kvm-ioctls: [`Guest::register_ioevent`] signals an eventfd for a guest's write,
//! [`Guest::register_irqfd`] raises a guest's interrupt for a signal. The VMM is not woken.
//!
//! Start at [`Xen`]. [`Guest`] has what differs from KVM; `docs/embedding.md` says what a program
//! must do about fork, signals, descriptors, threads, seccomp and privileges. [`Driver`] is an engine on
//! the program's own event loop, [`Devices`] are for a process that may open none.
//!
//! What happens beside the calls (a guest that died, a guardian that ended) is reported through `tracing`;
//! in a program that has no subscriber of that, through `log`.

/// A running example on the model: a guest `dom` with a `vcpu`, taken as `guest` by `xen`.
macro_rules! example {
    ($code:literal) => {
        concat!(
            "```\n",
            "# use rustix::event::{EventfdFlags, eventfd};\n",
            "# use xen_eventfd::*;\n",
            "# let model = xen_eventfd_model::Model::new();\n",
            "# let dom = model.domain(xen_eventfd_model::Config::new(\"guest\").kind(xen_eventfd_model::Kind::Hvm));\n",
            "# let vcpu = model.vcpu(dom, VcpuId(0));\n",
            "# let dir = tempfile::tempdir()?;\n",
            "# let host = model.client(\"backend\");\n",
            "# let xen = Xen::builder().run_dir(dir.path()).open_on(host.clone())?;\n",
            "# let guest = xen.guest(dom)?;\n",
            $code,
            "# Ok::<(), Box<dyn std::error::Error>>(())\n",
            "```"
        )
    };
}

mod address;
mod as_eventfd;
mod driver;
mod engine;
mod error;
mod eventfd;
mod find;
mod guardian;
mod guest;
pub mod host;
mod memory;
pub mod module_status;
mod own;
mod probe;
pub mod run_dir;
mod xen;

pub use address::{AnyValue, Datamatch, IoEventAddress, Masked, NoDatamatch};
#[cfg(feature = "vmm-sys-util")]
pub use as_eventfd::ByVmmSysUtil;
pub use as_eventfd::{AsEventFd, ByAsFd};
pub use driver::{Driver, Turn};
pub use engine::doorbells::{MAX_REGISTRATIONS, MAX_UNMATCHED, Registered};
#[doc(hidden)]
pub use engine::module::ModuleAbi;
pub use error::{Error, Result};
pub use find::{DomainSelector, find};
pub use guardian::{
    Guarded, Guardian, VARIABLE as GUARDIAN_VARIABLE, keep_descriptors, kept_descriptors,
};
pub use guest::{ChannelFd, Fallback, Guest, InterruptStatus, IoEvent, IrqFd, UnmatchedKicks};
pub use probe::{ModuleInfo, Probe};
pub use xen::{Builder, ENGINE_VARIABLE, EngineKind, Xen};
pub use xen_eventfd_core::interrupt_status::Registers;
pub use xen_eventfd_core::irq::{Arch, InvalidIrq, Irq, Line, Trigger};
pub use xen_eventfd_core::status::DeviceStatus;
pub use xen_eventfd_core::{
    Counters, DomId, Doorbell, Filter, Invalid, IoServerId, Kick, Port, Space, VcpuId, Width,
};
pub use xen_eventfd_host::linux::{Devices, KnownGuest};
pub use xen_eventfd_host::{Domain, Host, HostError};
pub use xen_eventfd_ioreq::Reaped;

/// Doors for the fuzzers of `fuzz/`; no program has them.
#[cfg(fuzzing)]
pub mod fuzzing {
    pub use crate::module_status::fuzz as module_status;
    pub use xen_eventfd_ioreq::fuzzing::{lock, record};
}
