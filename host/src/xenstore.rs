//! A xenstore that can be written to, for a process that serves devices. It stands beside
//! [`Host`](crate::Host), which an engine of doorbells needs alone.

use crate::Result;
use core::fmt;
use std::os::fd::BorrowedFd;
use xen_eventfd_core::DomId;

/// A transaction of one connection: what is written in it becomes visible when it is committed, all at
/// once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Transaction(pub(crate) u32);

impl Transaction {
    /// No transaction: each request takes effect at once.
    pub const NONE: Self = Self(0);
}

/// What one domain may do with a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Access {
    /// Neither read nor write it.
    None,
    /// Read it.
    Read,
    /// Write it.
    Write,
    /// Read and write it.
    Both,
}

/// An event of a watch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WatchEvent {
    /// The node that changed, at the watched path or below it.
    pub path: String,
    /// The token with which the watch was set.
    pub token: String,
}

/// A connection to xenstore that reads, writes and watches.
///
/// # Contract
/// Paths are absolute, or relative to the own domain's. A request waits for the daemon, for 5 s at most.
/// Each fails with [`Call::Xenstore`](crate::Call::Xenstore): [`Errno::NOENT`](crate::Errno::NOENT) if there
/// is no such node, [`Errno::ACCESS`](crate::Errno::ACCESS) if this domain may not. After
/// [`Errno::CONNRESET`](crate::Errno::CONNRESET) and [`Errno::TIMEDOUT`](crate::Errno::TIMEDOUT) the connection
/// is of no use, and its watches are gone: open another.
pub trait Xenstore: Send + fmt::Debug {
    /// A node's value.
    fn read(&mut self, within: Transaction, path: &str) -> Result<Vec<u8>>;

    /// The names of a node's children. [`Errno::TOOBIG`](crate::Errno::TOOBIG): they do not fit a message of
    /// 4096 bytes.
    fn directory(&mut self, within: Transaction, path: &str) -> Result<Vec<String>>;

    /// Writes a node, making it and the nodes above it if need be. A new node has the permissions of the one
    /// above it.
    fn write(&mut self, within: Transaction, path: &str, value: &[u8]) -> Result<()>;

    /// Removes a node and all below it.
    fn remove(&mut self, within: Transaction, path: &str) -> Result<()>;

    /// Sets who may use a node: its owner, who may do everything; all domains that are not named; and those
    /// that are named.
    fn set_permissions(
        &mut self,
        within: Transaction,
        path: &str,
        owner: DomId,
        others: Access,
        named: &[(DomId, Access)],
    ) -> Result<()>;

    /// Begins a transaction.
    fn begin(&mut self) -> Result<Transaction>;

    /// Ends a transaction. [`Errno::AGAIN`](crate::Errno::AGAIN): something that it used was changed
    /// meanwhile; nothing of it took effect, and it is to be done anew.
    fn commit(&mut self, transaction: Transaction) -> Result<()>;

    /// Ends a transaction without effect.
    fn abort(&mut self, transaction: Transaction) -> Result<()>;

    /// Watches a node and all below it. One event comes at once.
    fn watch(&mut self, path: &str, token: &str) -> Result<()>;

    /// Ends a watch. Events that were sent before may still come.
    fn unwatch(&mut self, path: &str, token: &str) -> Result<()>;

    /// Takes the events that have come, in their order. Never waits.
    fn events(&mut self) -> Result<Vec<WatchEvent>>;

    /// Readable when events may have come. Those that come while a request waits are kept for
    /// [`Xenstore::events`] without the descriptor becoming readable, so call it after requests too.
    fn fd(&self) -> BorrowedFd<'_>;
}
