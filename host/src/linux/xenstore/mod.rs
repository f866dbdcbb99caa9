//! Two clients of xenstore: one for an engine, which needs the list of domains and a watch on their end, and
//! one that writes ([`XenstoreClient`]).

mod client;
mod connection;
#[cfg(test)]
pub(super) mod fake;
mod wire;

#[cfg(fuzzing)]
pub use wire::fuzz;

pub use client::XenstoreClient;
pub(super) use connection::Connection;

use super::sys::xenstore::{DIRECTORY, DIRECTORY_PART, READ, WATCH};
use crate::process::ProcessTag;
use crate::{Call, Domain, HostError, Result};
use connection::Failure;
use rustix::io::Errno;
use std::sync::{Mutex, PoisonError};
use xen_eventfd_core::DomId;

const DOMAINS: &str = "/local/domain";
/// How often a long directory may change while it is read, before the read fails.
const ATTEMPTS: usize = 8;

/// Requests to xenstore, from any thread. After a connection broke, the next request opens a new one.
#[derive(Debug)]
pub(super) struct Store {
    connection: Mutex<Option<Connection>>,
    connect: fn() -> Result<Connection>,
    /// A forked child shares the connection: its requests would get the parent's answers.
    process: ProcessTag,
}

impl Store {
    pub(super) fn open() -> Result<Self> {
        let connect = Connection::open;
        let connection = Mutex::new(Some(connect()?));
        Ok(Self { connection, connect, process: ProcessTag::current() })
    }

    /// All domains, in the order of their ids.
    pub(super) fn domains(&self) -> Result<Vec<Domain>> {
        let names = self.directory(DOMAINS)?;
        let mut ids: Vec<DomId> = names.iter().filter_map(|name| id_of(name)).collect();
        ids.sort_unstable();
        let mut domains = Vec::new();
        for id in ids {
            match self.domain(id) {
                Ok(domain) => domains.push(domain),
                // A domain may be gone since the directory was read.
                Err(error) if error.errno == Errno::NOENT => {}
                Err(error) => return Err(error),
            }
        }
        Ok(domains)
    }

    /// One domain; of a dying one, the nodes that are left.
    pub(super) fn domain(&self, id: DomId) -> Result<Domain> {
        let home = format!("{DOMAINS}/{}", id.0);
        self.read(&home)?;
        let name = present(self.read(&format!("{home}/name")))?.filter(|name| !name.is_empty());
        let uuid = present(self.read(&format!("{home}/vm")))?;
        Ok(Domain { id, name, uuid: uuid.as_deref().and_then(uuid_of).map(str::to_owned) })
    }

    /// Whether a domain has interrupt controllers: from what toolstacks write for an HVM guest, where
    /// the guest cannot write. That is its type, or, if it was not created by libxl, the settings of
    /// its firmware.
    pub(super) fn has_lines(&self, id: DomId) -> Result<bool> {
        if let Some(kind) = present(self.read(&format!("/libxl/{}/type", id.0)))? {
            return Ok(kind == "hvm");
        }
        let firmware = self.read(&format!("{DOMAINS}/{}/hvmloader/bios", id.0));
        Ok(present(firmware)?.is_some())
    }

    fn read(&self, path: &str) -> Result<String> {
        let value = self.request(READ, &[path])?;
        Ok(String::from_utf8_lossy(&value).into_owned())
    }

    fn directory(&self, path: &str) -> Result<Vec<String>> {
        match self.request(DIRECTORY, &[path]) {
            Err(error) if error.errno == Errno::TOOBIG => self.long_directory(path),
            names => Ok(wire::strings(&names?).map(str::to_owned).collect()),
        }
    }

    /// A directory that does not fit a message, in parts that are consistent only while its
    /// generation stays the same. A part without names is the end.
    fn long_directory(&self, path: &str) -> Result<Vec<String>> {
        for _ in 0..ATTEMPTS {
            let (mut names, mut offset, mut generation) = (Vec::new(), 0, None);
            loop {
                let part = self.request(DIRECTORY_PART, &[path, &offset.to_string()])?;
                let mut strings = wire::strings(&part);
                let Some(current) = strings.next().map(str::to_owned) else {
                    return Err(failed(path, Errno::PROTO));
                };
                if generation.get_or_insert_with(|| current.clone()) != &current {
                    break;
                }
                let (before, length) = (names.len(), part.len() - (current.len() + 1));
                names.extend(strings.filter(|name| !name.is_empty()).map(str::to_owned));
                if names.len() == before {
                    return Ok(names);
                }
                offset += length;
            }
        }
        Err(failed(path, Errno::AGAIN))
    }

    /// Whether the daemon answers at all, even with an error.
    pub(super) fn answers(&self) -> Result<()> {
        match self.exchange(READ, &["domid"])? {
            Ok(_) | Err(Failure::Refused(_)) => Ok(()),
            Err(Failure::Broken(errno)) => Err(failed("domid", errno)),
        }
    }

    fn request(&self, kind: u32, parts: &[&str]) -> Result<Vec<u8>> {
        let path = parts.first().copied().unwrap_or_default();
        self.exchange(kind, parts)?.map_err(|failure| failed(path, failure.errno()))
    }

    fn exchange(
        &self,
        kind: u32,
        parts: &[&str],
    ) -> Result<core::result::Result<Vec<u8>, Failure>> {
        if !self.process.is_current() {
            return Ok(Err(Failure::Refused(Errno::STALE)));
        }
        // After a panic in here the connection is usable, or there is none.
        let mut slot = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        let mut connection = match slot.take() {
            Some(connection) => connection,
            None => (self.connect)()?,
        };
        let answer = connection.request(kind, parts, |_| {});
        if !matches!(answer, Err(Failure::Broken(_))) {
            *slot = Some(connection);
        }
        Ok(answer)
    }
}

fn failed(path: &str, errno: Errno) -> HostError {
    HostError::new(Call::Xenstore(path.to_owned()), errno)
}

/// Turns ENOENT into `None`.
fn present(value: Result<String>) -> Result<Option<String>> {
    match value {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.errno == Errno::NOENT => Ok(None),
        Err(error) => Err(error),
    }
}

/// A domain id as xenstore writes it; `05` and `+5` are not.
fn id_of(name: &str) -> Option<DomId> {
    let id: u16 = name.parse().ok()?;
    (id.to_string() == name).then_some(DomId(id))
}

/// The UUID in `/vm/<uuid>`, to which old toolstacks add a number.
fn uuid_of(vm: &str) -> Option<&str> {
    let uuid = vm.strip_prefix("/vm/")?.get(..36)?;
    let shape = |(at, byte): (usize, u8)| match at {
        8 | 13 | 18 | 23 => byte == b'-',
        _ => byte.is_ascii_hexdigit(),
    };
    uuid.bytes().enumerate().all(shape).then_some(uuid)
}

/// A watch, alone on its connection.
#[derive(Debug)]
pub(super) struct Watch {
    connection: Connection,
    path: &'static str,
}

impl Watch {
    /// Sets a watch and waits for the initial event that every new watch has, which is not reported.
    pub(super) fn set(mut connection: Connection, path: &'static str) -> Result<Self> {
        let mut fired = false;
        connection
            .request(WATCH, &[path, path], |event| fired |= wire::is_event_of(event, path))
            .map_err(|failure| failed(path, failure.errno()))?;
        if !fired {
            connection
                .wait_for_event(|event| wire::is_event_of(event, path))
                .map_err(|errno| failed(path, errno))?;
        }
        Ok(Self { connection, path })
    }

    pub(super) fn connection(&self) -> &Connection {
        &self.connection
    }

    /// Takes all events that have arrived. Never waits.
    pub(super) fn drain(&mut self) -> Result<bool> {
        let mut fired = false;
        let path = self.path;
        self.connection
            .events(|event| fired |= wire::is_event_of(event, path))
            .map_err(|errno| failed(path, errno))?;
        Ok(fired)
    }
}

#[cfg(test)]
mod tests {
    use super::fake::Daemon;
    use super::*;
    use crate::linux::sys::xenstore::WATCH_EVENT;
    use std::io::Write;
    use std::os::unix::net::{UnixListener, UnixStream};
    use std::time::Duration;

    const UUID: &str = "b7d3a1f0-1234-4cde-8f00-0123456789ab";

    fn store(daemon: &Daemon) -> Store {
        let connection = Mutex::new(Some(daemon.connect()));
        let connect = || Err(HostError::new(Call::Open("nothing"), Errno::CONNREFUSED));
        Store { connection, connect, process: ProcessTag::current() }
    }

    #[test]
    fn domains_come_in_the_order_of_their_numbers_named_or_not() {
        let daemon = Daemon::new(&[
            ("/local/domain/10", ""),
            ("/local/domain/10/name", "ten"),
            ("/local/domain/10/vm", &format!("/vm/{UUID}")),
            ("/local/domain/9", ""),
            ("/local/domain/2", ""),
            ("/local/domain/2/name", "two"),
            ("/local/domain/strange", ""),
            ("/local/domain/+7", ""),
            ("/local/domain/08", ""),
            ("/local/domain/70000/name", "beyond"),
        ]);
        let found = store(&daemon).domains().unwrap();
        let ten = Domain { id: DomId(10), name: Some("ten".into()), uuid: Some(UUID.into()) };
        let two = Domain { id: DomId(2), name: Some("two".into()), uuid: None };
        let nine = Domain { id: DomId(9), name: None, uuid: None };
        assert_eq!(found, [two, nine, ten]);
    }

    #[test]
    fn a_dying_domain_may_lack_everything_but_a_missing_one_is_an_error() {
        let daemon = Daemon::new(&[("/local/domain/9", "")]);
        let store = store(&daemon);
        let dying = Domain { id: DomId(9), name: None, uuid: None };
        assert_eq!(store.domain(DomId(9)), Ok(dying));
        let missing = store.domain(DomId(8)).unwrap_err();
        assert_eq!(missing, failed("/local/domain/8", Errno::NOENT));
        assert!(missing.is_gone());
    }

    #[test]
    fn only_a_known_hvm_guest_has_lines() {
        let daemon = Daemon::new(&[
            ("/libxl/1/type", "hvm"),
            ("/libxl/2/type", "pvh"),
            ("/local/domain/2/hvmloader/bios", "seabios"),
            ("/local/domain/3/hvmloader/bios", "seabios"),
            ("/local/domain/4", ""),
        ]);
        let store = store(&daemon);
        let lines: Vec<bool> = (1..=5).map(|id| store.has_lines(DomId(id)).unwrap()).collect();
        assert_eq!(lines, [true, false, true, false, false]);
    }

    #[test]
    fn a_long_directory_is_read_in_parts() {
        let paths: Vec<String> = (0..2000).map(|id| format!("/local/domain/{id}/name")).collect();
        let nodes: Vec<_> = paths.iter().map(|path| (path.as_str(), "x")).collect();
        let daemon = Daemon::new(&nodes);
        let names = store(&daemon).directory(DOMAINS).unwrap();
        assert_eq!(names.len(), 2000);
    }

    #[test]
    fn a_long_directory_that_always_changes_is_an_error() {
        let paths: Vec<String> = (0..2000).map(|id| format!("/local/domain/{id}/name")).collect();
        let nodes: Vec<_> = paths.iter().map(|path| (path.as_str(), "x")).collect();
        let daemon = Daemon::restless(&nodes);
        let refused = store(&daemon).directory(DOMAINS).unwrap_err();
        assert_eq!(refused.errno, Errno::AGAIN);
    }

    #[test]
    fn events_between_request_and_answer_are_skipped() {
        let daemon = Daemon::new(&[("/local/domain/9/name", "nine")]);
        let store = store(&daemon);
        daemon.chatter();
        for _ in 0..3 {
            assert_eq!(store.domain(DomId(9)).unwrap().name.as_deref(), Some("nine"));
        }
    }

    #[test]
    fn a_hang_up_is_an_error_and_the_next_request_reconnects() {
        let daemon = Daemon::new(&[]);
        let store = store(&daemon);
        daemon.hang_up();
        assert_eq!(store.domains().unwrap_err().errno, Errno::CONNRESET);
        let again = store.domains().unwrap_err();
        assert_eq!(again, HostError::new(Call::Open("nothing"), Errno::CONNREFUSED));
    }

    #[test]
    fn an_error_is_an_answer_and_silence_is_not() {
        let daemon = Daemon::new(&[]);
        assert_eq!(store(&daemon).read("domid").unwrap_err().errno, Errno::NOENT);
        assert_eq!(store(&daemon).answers(), Ok(()));
        let (_silent, client) = UnixStream::pair().unwrap();
        let silent = Connection::to(client).patient_for(Duration::from_millis(30));
        let silent = Store { connection: Mutex::new(Some(silent)), ..store(&daemon) };
        assert_eq!(silent.answers(), Err(failed("domid", Errno::TIMEDOUT)));
    }

    #[test]
    fn a_request_times_out_on_a_silent_daemon_and_on_one_that_sends_other_messages() {
        let brief = Duration::from_millis(30);
        let (_silent, client) = UnixStream::pair().unwrap();
        let mut connection = Connection::to(client).patient_for(brief);
        let answer = connection.request(READ, &["/"], |_| {});
        assert_eq!(answer, Err(Failure::Broken(Errno::TIMEDOUT)));

        let (mut talker, client) = UnixStream::pair().unwrap();
        let mut connection = Connection::to(client).patient_for(brief);
        let event = wire::encode(WATCH_EVENT, 0, &["/a", "b"]).unwrap();
        let talk = std::thread::spawn(move || while talker.write_all(&event).is_ok() {});
        let answer = connection.request(READ, &["/"], |_| {});
        assert_eq!(answer, Err(Failure::Broken(Errno::TIMEDOUT)));
        connection.events(|_| {}).unwrap();
        drop(connection);
        talk.join().unwrap();
    }

    #[test]
    fn a_daemon_is_found_by_its_socket() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("socket");
        let path = path.to_str().unwrap();
        assert_eq!(Connection::at(path).unwrap_err(), Errno::NOENT);
        let listener = UnixListener::bind(path).unwrap();
        assert!(Connection::at(path).is_ok());
        drop(listener);
        assert_eq!(Connection::at(path).unwrap_err(), Errno::CONNREFUSED);
    }

    /// The path of a file in a folder.
    fn path_in(place: &tempfile::TempDir, name: &str) -> &'static str {
        Box::leak(place.path().join(name).to_str().unwrap().to_owned().into_boxed_str())
    }

    /// Linux waits there for the answer, and nothing ends that wait.
    #[test]
    fn a_watch_is_never_set_through_the_kernels_device() {
        let place = tempfile::tempdir().unwrap();
        let (missing, device) = (path_in(&place, "socket"), path_in(&place, "xenbus"));
        std::fs::write(device, "").unwrap();
        assert!(Connection::open_there([missing, missing], device).is_ok(), "requests may use it");
        let refused = Connection::open_for_watch_there([missing, missing]).unwrap_err();
        assert_eq!(refused, HostError::new(Call::Open(missing), Errno::OPNOTSUPP));
    }

    #[test]
    fn after_a_refused_connection_the_kernels_device_is_not_tried() {
        let place = tempfile::tempdir().unwrap();
        let (socket, device) = (path_in(&place, "socket"), path_in(&place, "xenbus"));
        std::fs::write(device, "").unwrap();
        drop(UnixListener::bind(socket).unwrap());
        let refused = HostError::new(Call::Open(socket), Errno::CONNREFUSED);
        let opened = Connection::open_there([socket, socket], device);
        assert_eq!(opened.unwrap_err(), refused);
        assert_eq!(Connection::open_for_watch_there([socket, socket]).unwrap_err(), refused);
    }

    /// xenstored's backlog is one connection.
    #[test]
    fn a_full_connection_queue_is_retried() {
        use rustix::net::{AddressFamily, SocketAddrUnix, SocketType, bind, listen, socket};
        let place = tempfile::tempdir().unwrap();
        let path = path_in(&place, "socket");
        let daemon = socket(AddressFamily::UNIX, SocketType::STREAM, None).unwrap();
        bind(&daemon, &SocketAddrUnix::new(path).unwrap()).unwrap();
        listen(&daemon, 0).unwrap();
        let first = UnixStream::connect(path).unwrap();
        let daemon = UnixListener::from(daemon);
        std::thread::scope(|scope| {
            let second = scope.spawn(|| Connection::at(path));
            // It is refused at least once.
            std::thread::sleep(Duration::from_millis(50));
            let accepted = daemon.accept().unwrap();
            assert!(second.join().unwrap().is_ok());
            drop(accepted);
        });
        drop(first);
    }

    /// It has created its socket, and does not listen yet.
    #[test]
    fn a_daemon_that_does_not_listen_yet_is_retried() {
        use rustix::net::{AddressFamily, SocketAddrUnix, SocketType, bind, listen, socket};
        let place = tempfile::tempdir().unwrap();
        let path = path_in(&place, "socket");
        let daemon = socket(AddressFamily::UNIX, SocketType::STREAM, None).unwrap();
        bind(&daemon, &SocketAddrUnix::new(path).unwrap()).unwrap();
        std::thread::scope(|scope| {
            let connects = scope.spawn(|| Connection::at(path));
            while !connects.is_finished() {
                std::thread::sleep(Duration::from_millis(1));
                listen(&daemon, 1).unwrap();
            }
            assert!(connects.join().unwrap().is_ok());
        });
    }

    #[test]
    fn a_uuid_has_the_usual_format() {
        assert_eq!(uuid_of(&format!("/vm/{UUID}")), Some(UUID));
        assert_eq!(uuid_of(&format!("/vm/{UUID}-1")), Some(UUID));
        for odd in
            ["", "/vm/", UUID, "/vm/b7d3a1f0", "/vm/b7d3a1f0-1234-4cde-8f00-0123456789\u{e9}"]
        {
            assert_eq!(uuid_of(odd), None, "{odd}");
        }
    }
}
