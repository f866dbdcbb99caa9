//! A connection that reads, writes and watches.

use super::connection::{Connection, Failure};
use super::failed;
use super::wire::{Body, strings};
use crate::linux::sys::xenstore as sys;
use crate::process::ProcessTag;
use crate::xenstore::{Access, Transaction, WatchEvent, Xenstore};
use crate::{Errno, Result};
use std::os::fd::BorrowedFd;
use xen_eventfd_core::DomId;

/// This machine's xenstore, over a connection of its own.
#[derive(Debug)]
pub struct XenstoreClient {
    connection: Connection,
    events: Vec<WatchEvent>,
    /// A forked child shares the connection: its requests would get the parent's answers.
    process: ProcessTag,
}

impl XenstoreClient {
    /// Connects to the daemon's socket.
    ///
    /// # Errors
    /// [`Call::Open`](crate::Call::Open): [`Errno::OPNOTSUPP`] if there is no socket in this domain, as the
    /// kernel's device can neither wait with a time limit nor watch without being waited for.
    pub fn open() -> Result<Self> {
        Ok(Self::over(Connection::open_for_watch()?))
    }

    pub(super) fn over(connection: Connection) -> Self {
        Self { connection, events: Vec::new(), process: ProcessTag::current() }
    }

    fn request(&mut self, kind: u32, body: &Body<'_>) -> Result<Vec<u8>> {
        let path = body.parts.first().copied().unwrap_or_default();
        if !self.process.is_current() {
            return Err(failed(path, Errno::STALE));
        }
        let events = &mut self.events;
        let answer = self.connection.send_request(kind, body, |event| events.extend(parse(event)));
        answer.map_err(|failure| failed(path, Failure::errno(&failure)))
    }

    fn change(&mut self, kind: u32, within: Transaction, parts: &[&str]) -> Result<()> {
        self.request(kind, &Body { transaction: within.0, parts, value: &[] }).map(drop)
    }

    fn end(&mut self, transaction: Transaction, how: &str) -> Result<()> {
        self.change(sys::TRANSACTION_END, transaction, &[how])
    }
}

/// An event is a path and a token.
fn parse(event: &[u8]) -> Option<WatchEvent> {
    let mut strings = strings(event).map(str::to_owned);
    Some(WatchEvent { path: strings.next()?, token: strings.next()? })
}

/// Permissions as xenstore writes them: a letter and a domain.
fn permission(dom: DomId, access: Access) -> String {
    let letter = match access {
        Access::None => 'n',
        Access::Read => 'r',
        Access::Write => 'w',
        Access::Both => 'b',
    };
    format!("{letter}{}", dom.0)
}

impl Xenstore for XenstoreClient {
    fn read(&mut self, within: Transaction, path: &str) -> Result<Vec<u8>> {
        let body = Body { transaction: within.0, parts: &[path], value: &[] };
        self.request(sys::READ, &body)
    }

    fn directory(&mut self, within: Transaction, path: &str) -> Result<Vec<String>> {
        let body = Body { transaction: within.0, parts: &[path], value: &[] };
        let names = self.request(sys::DIRECTORY, &body)?;
        Ok(strings(&names).map(str::to_owned).collect())
    }

    fn write(&mut self, within: Transaction, path: &str, value: &[u8]) -> Result<()> {
        self.request(sys::WRITE, &Body { transaction: within.0, parts: &[path], value }).map(drop)
    }

    fn remove(&mut self, within: Transaction, path: &str) -> Result<()> {
        self.change(sys::RM, within, &[path])
    }

    fn set_permissions(
        &mut self,
        within: Transaction,
        path: &str,
        owner: DomId,
        others: Access,
        named: &[(DomId, Access)],
    ) -> Result<()> {
        // The first names the owner, and what all may do that are not named.
        let all = [(owner, others)].into_iter().chain(named.iter().copied());
        let words: Vec<String> = all.map(|(dom, access)| permission(dom, access)).collect();
        let parts: Vec<&str> = [path].into_iter().chain(words.iter().map(String::as_str)).collect();
        self.change(sys::SET_PERMS, within, &parts)
    }

    fn begin(&mut self) -> Result<Transaction> {
        let body = Body { transaction: 0, parts: &[""], value: &[] };
        let answer = self.request(sys::TRANSACTION_START, &body)?;
        let number = strings(&answer).next().and_then(|number| number.parse().ok());
        number.filter(|number| *number != 0).map(Transaction).ok_or(failed("", Errno::PROTO))
    }

    fn commit(&mut self, transaction: Transaction) -> Result<()> {
        self.end(transaction, "T")
    }

    fn abort(&mut self, transaction: Transaction) -> Result<()> {
        self.end(transaction, "F")
    }

    fn watch(&mut self, path: &str, token: &str) -> Result<()> {
        self.change(sys::WATCH, Transaction::NONE, &[path, token])
    }

    fn unwatch(&mut self, path: &str, token: &str) -> Result<()> {
        self.change(sys::UNWATCH, Transaction::NONE, &[path, token])
    }

    fn events(&mut self) -> Result<Vec<WatchEvent>> {
        if !self.process.is_current() {
            return Err(failed("", Errno::STALE));
        }
        let events = &mut self.events;
        let read = self.connection.events(|event| events.extend(parse(event)));
        // What came before the connection broke is not lost.
        match read {
            Err(errno) if self.events.is_empty() => Err(failed("", errno)),
            _ => Ok(std::mem::take(&mut self.events)),
        }
    }

    fn fd(&self) -> BorrowedFd<'_> {
        self.connection.fd()
    }
}

#[cfg(test)]
mod tests {
    use super::super::fake::Daemon;
    use super::*;

    const NONE: Transaction = Transaction::NONE;

    fn client(daemon: &Daemon) -> XenstoreClient {
        XenstoreClient::over(daemon.connect())
    }

    #[test]
    fn what_is_written_can_be_read_listed_and_removed() {
        let daemon = Daemon::new(&[("/local/domain/0", "")]);
        let mut store = client(&daemon);
        // Any bytes, and none at the end that were not there.
        store.write(NONE, "/backend/virtio/1/0/state", b"4\0\xFF").unwrap();
        store.write(NONE, "/backend/virtio/1/1/state", b"").unwrap();
        assert_eq!(store.read(NONE, "/backend/virtio/1/0/state").unwrap(), b"4\0\xFF");
        assert_eq!(store.read(NONE, "/backend/virtio/1/1/state").unwrap(), b"");
        assert_eq!(store.directory(NONE, "/backend/virtio/1").unwrap(), ["0", "1"]);
        store.remove(NONE, "/backend/virtio/1/0").unwrap();
        assert_eq!(store.directory(NONE, "/backend/virtio/1").unwrap(), ["1"]);
        let gone = store.read(NONE, "/backend/virtio/1/0/state").unwrap_err();
        assert_eq!(gone, failed("/backend/virtio/1/0/state", Errno::NOENT));
    }

    #[test]
    fn a_transaction_takes_effect_as_a_whole_or_not_at_all() {
        let daemon = Daemon::new(&[("/a", "1")]);
        let (mut one, mut other) = (client(&daemon), client(&daemon));
        let first = one.begin().unwrap();
        one.write(first, "/a", b"2").unwrap();
        assert_eq!(one.read(first, "/a").unwrap(), b"2");
        assert_eq!(other.read(NONE, "/a").unwrap(), b"1");
        one.commit(first).unwrap();
        assert_eq!(other.read(NONE, "/a").unwrap(), b"2");

        let second = one.begin().unwrap();
        assert_ne!(second, first);
        one.write(second, "/b", b"3").unwrap();
        other.write(NONE, "/a", b"4").unwrap();
        assert_eq!(one.commit(second).unwrap_err().errno, Errno::AGAIN);
        assert_eq!(one.read(NONE, "/b").unwrap_err().errno, Errno::NOENT);

        let third = one.begin().unwrap();
        one.write(third, "/b", b"5").unwrap();
        one.abort(third).unwrap();
        assert_eq!(one.read(NONE, "/b").unwrap_err().errno, Errno::NOENT);
    }

    #[test]
    fn several_watches_share_a_connection_and_no_event_is_lost_to_a_request() {
        let daemon = Daemon::new(&[("/a", "1")]);
        let mut store = client(&daemon);
        let event = |path: &str, token: &str| WatchEvent { path: path.into(), token: token.into() };
        store.watch("/a", "one").unwrap();
        store.watch("/b", "two").unwrap();
        assert_eq!(store.events().unwrap(), [event("/a", "one"), event("/b", "two")]);
        daemon.fire("/b/c", "two");
        store.read(NONE, "/a").unwrap();
        daemon.fire("/a", "one");
        assert_eq!(store.events().unwrap(), [event("/b/c", "two"), event("/a", "one")]);
        assert_eq!(store.events().unwrap(), []);
        store.unwatch("/a", "one").unwrap();
        let unknown = store.unwatch("/a", "one").unwrap_err();
        assert_eq!(unknown.errno, Errno::NOENT);
        daemon.fire("/b", "two");
        daemon.hang_up();
        assert_eq!(store.events().unwrap(), [event("/b", "two")]);
        let lost = store.events().unwrap_err();
        assert_eq!(lost.errno, Errno::CONNRESET);
        assert!(lost.to_string().starts_with("cannot follow xenstore: "), "{lost}");
    }

    #[test]
    fn permissions_name_the_owner_first() {
        let daemon = Daemon::new(&[("/a", "1")]);
        let mut store = client(&daemon);
        let guest = [(DomId(3), Access::Read), (DomId(4), Access::Both)];
        store.set_permissions(NONE, "/a", DomId(0), Access::None, &guest).unwrap();
        assert_eq!(daemon.permissions("/a"), ["n0", "r3", "b4"]);
    }
}
