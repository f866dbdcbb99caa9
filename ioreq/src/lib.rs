//! Ioreq servers of Xen guests.
//!
//! A guest's access to an address that a device model emulates stops the vCPU. Xen puts the request into the
//! page of an *ioreq server* whose ranges hold the address, and sends an event. This crate is that server's
//! life, from end to end:
//!
//! ```text
//! take      hold         lock, record, recovery, reservation in the kernel module    (run_dir, reservation)
//! create    server       at the rank of its Role; page, state, ports                 (rank)
//! route     Ranges       memory, ports and PCI functions
//! serve     event_loop   an event -> the vCPU's slot -> Handler -> the answer        (threads, turns)
//! watch     liveness     whether the guest still has it                              (release_watch)
//! end       server       one teardown: of a guest that is let go of, one that died, and an orphan
//! recover   orphan       what a killed process left
//! ```
//!
//! [`GuestServer::take`] does the first three; a [`Handler`] answers the requests. The doorbells of the
//! crate `xen-eventfd` are one handler; the registers of a device are another, in the same process or not.
//!
//! All of it runs on a [`Host`](xen_eventfd_host::Host). It belongs to one process: a child that is forked
//! must neither use nor drop it.

/// A running example on the model: a guest `dom` whose server of registers is held as `registers`.
macro_rules! example {
    ($code:literal) => {
        concat!(
            "```\n",
            "# use std::sync::Arc;\n",
            "# use xen_eventfd_core::doorbell::Bytes;\n",
            "# use xen_eventfd_core::{Kick, Request, Space, VcpuId, Width};\n",
            "# use xen_eventfd_ioreq::*;\n",
            "# #[derive(Debug)]\n",
            "# struct Magic;\n",
            "# impl Handler for Magic {\n",
            "#     fn begin(&self, _: Ranges, _: Vec<Kick>) {}\n",
            "#     fn request(&self, _: VcpuId, _: &Request) -> u64 { 0x7472_6976 }\n",
            "# }\n",
            "# let model = xen_eventfd_model::Model::new();\n",
            "# let dom = model.domain(xen_eventfd_model::Config::new(\"guest\"));\n",
            "# let dir = tempfile::tempdir()?;\n",
            "# let run_dir = RunDir::open(dir.path(), Role::Registers)?;\n",
            "# let event_loop = EventLoop::new(model.client(\"device\"), run_dir)?;\n",
            "# let names = ThreadNames { ports: \"ports\", fds: \"fds\", watch: \"watch\" };\n",
            "# let _threads = Threads::start(&event_loop, names, None)?;\n",
            "# let claim = Claim { role: Role::Registers, serves: \"devices\", reserve: &Reserve::No };\n",
            "# let registers = GuestServer::take(&event_loop, dom, &claim, Arc::new(Magic))?;\n",
            $code,
            "# Ok::<(), Box<dyn std::error::Error>>(())\n",
            "```"
        )
    };
}

mod error;
mod event_loop;
mod guest;
mod handler;
mod hold;
mod liveness;
mod orphan;
mod ranges;
mod rank;
mod record;
mod release_watch;
mod reservation;
mod role;
pub mod run_dir;
mod server;
#[doc(hidden)]
pub mod sync;
mod thread;
mod threads;
mod turns;

pub use error::{Error, Result};
pub use event_loop::{EventLoop, FdSource, PortSource, new_eventfd};
pub use guest::{Changes, Claim, GuestServer};
pub use handler::Handler;
pub use hold::Hold;
pub use orphan::{Reaped, reap};
pub use ranges::Ranges;
pub use record::MAX_HELD;
pub use reservation::{Reserve, is_absent, reservable, take_in_module};
pub use role::Role;
pub use run_dir::RunDir;
pub use thread::Thread;
pub use threads::{ThreadHook, ThreadNames, Threads};
pub use turns::{Turn, Turns};

/// Entry points for the fuzzers of `fuzz/`; no program has them.
#[cfg(fuzzing)]
pub mod fuzzing {
    pub use crate::record::fuzz_record as record;
    pub use crate::run_dir::fuzz_lock as lock;
}
