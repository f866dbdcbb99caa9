//! What an engine calls of Xen, to put a host of one's own below it: one that counts,
//! records, or fails on demand, or another way to Xen. [`Builder::open_on`](crate::Builder::open_on)
//! takes it.
//!
//! All that [`Host`] and [`HostError`] need is here. A host that passes calls on to another, and lets a caller see how
//! often an interrupt was raised:
//!
//! ```
//! use std::sync::Arc;
//! use std::sync::atomic::{AtomicU64, Ordering};
//! use xen_eventfd::host::{
//!     Binding, Bytes, Call, Domain, Errno, EventChannels, Host, HostError, IoreqPage, LocalPort, Releases,
//!     Result,
//! };
//! use xen_eventfd::{DomId, IoServerId, Line, Port, Xen};
//!
//! #[derive(Debug)]
//! struct Counting {
//!     inner: Arc<dyn Host>,
//!     interrupts: AtomicU64,
//! }
//!
//! impl Host for Counting {
//!     fn inject_msi(&self, dom: DomId, addr: u64, data: u32) -> Result<()> {
//!         if self.interrupts.fetch_add(1, Ordering::Relaxed) == 2 {
//!             return Err(HostError::new(Call::Interrupt(dom), Errno::AGAIN));
//!         }
//!         self.inner.inject_msi(dom, addr, data)
//!     }
//!     // All others are the inner one's.
//! #   fn domains(&self) -> Result<Vec<Domain>> {
//! #       self.inner.domains()
//! #   }
//! #   fn domain(&self, dom: DomId) -> Result<Domain> {
//! #       self.inner.domain(dom)
//! #   }
//! #   fn vcpus(&self, dom: DomId) -> Result<u32> {
//! #       self.inner.vcpus(dom)
//! #   }
//! #   fn create_server(&self, dom: DomId) -> Result<IoServerId> {
//! #       self.inner.create_server(dom)
//! #   }
//! #   fn destroy_server(&self, dom: DomId, server: IoServerId) -> Result<()> {
//! #       self.inner.destroy_server(dom, server)
//! #   }
//! #   fn set_server_state(&self, dom: DomId, server: IoServerId, enabled: bool) -> Result<()> {
//! #       self.inner.set_server_state(dom, server, enabled)
//! #   }
//! #   fn server_alive(&self, dom: DomId, server: IoServerId) -> Result<bool> {
//! #       self.inner.server_alive(dom, server)
//! #   }
//! #   fn map_page(&self, dom: DomId, server: IoServerId) -> Result<Box<dyn IoreqPage>> {
//! #       self.inner.map_page(dom, server)
//! #   }
//! #   fn map_range(&self, dom: DomId, server: IoServerId, bytes: Bytes) -> Result<()> {
//! #       self.inner.map_range(dom, server, bytes)
//! #   }
//! #   fn unmap_range(&self, dom: DomId, server: IoServerId, bytes: Bytes) -> Result<()> {
//! #       self.inner.unmap_range(dom, server, bytes)
//! #   }
//! #   fn has_lines(&self, dom: DomId) -> Result<bool> {
//! #       self.inner.has_lines(dom)
//! #   }
//! #   fn set_line(&self, dom: DomId, line: Line, up: bool) -> Result<()> {
//! #       self.inner.set_line(dom, line, up)
//! #   }
//! #   fn event_channels(&self) -> Result<Box<dyn EventChannels>> {
//! #       self.inner.event_channels()
//! #   }
//! #   fn binding(&self, dom: DomId, port: Port) -> Result<Binding> {
//! #       self.inner.binding(dom, port)
//! #   }
//! #   fn notify_port(&self, port: LocalPort) -> Result<()> {
//! #       self.inner.notify_port(port)
//! #   }
//! #   fn releases(&self) -> Result<Box<dyn Releases>> {
//! #       self.inner.releases()
//! #   }
//! }
//!
//! # let model = xen_eventfd_model::Model::new();
//! # let dom = model.domain(xen_eventfd_model::Config::new("guest"));
//! # let inner = model.client("backend");
//! # let dir = tempfile::tempdir()?;
//! // On a real host, `inner` is `LinuxHost::open()?`.
//! let host = Arc::new(Counting { inner, interrupts: AtomicU64::new(0) });
//! let xen = Xen::builder().run_dir(dir.path()).open_on(host.clone())?;
//! let guest = xen.guest(dom)?;
//! assert_eq!(host.interrupts.load(Ordering::Relaxed), 0);
//! # drop(guest);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

pub use xen_eventfd_core::doorbell::Bytes;
pub use xen_eventfd_core::ioreq::SLOTS;
pub use xen_eventfd_core::slot::Slot;
pub use xen_eventfd_host::aio::Context as AioContext;
pub use xen_eventfd_host::linux::LinuxHost;
pub use xen_eventfd_host::{
    Binding, Call, Domain, Errno, EventChannels, Host, HostError, IoreqPage, LocalPort, Releases,
    Result, Signaller,
};
