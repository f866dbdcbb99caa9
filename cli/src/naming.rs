//! The names of served guests, for a command that looks at them again and again: Xen's devices and
//! xenstore are opened once, and a guest's name is asked for once.

use crate::module_status::Owner;
use crate::served::Guest;
use crate::session::Session;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use xen_eventfd::{DomId, Host};
use xen_eventfd_host::linux::LinuxHost;

/// How long nothing is asked of a xenstore that did not answer: an answer is waited for, up to 5 s.
const PAUSE: Duration = Duration::from_secs(30);

/// Knows the names of the guests that it has seen.
#[derive(Debug)]
pub struct Naming {
    host: Option<Arc<dyn Host>>,
    /// Whether there is a host to be opened.
    on_machine: bool,
    /// Until then nothing is asked.
    silent_until: Option<Instant>,
    known: BTreeMap<u16, Known>,
}

/// A guest's name, as long as it is held by the same process through the same server. A number is used
/// again, and then another has taken it.
#[derive(Debug)]
struct Known {
    owner: Owner,
    server: Option<u16>,
    name: Option<String>,
}

impl Naming {
    /// Knows none yet. `on_machine`: the guests are this machine's, and not those of a tree of files.
    pub fn new(session: &Session, on_machine: bool) -> Self {
        let (host, known) = (session.host.clone(), BTreeMap::new());
        Self { host, on_machine, silent_until: None, known }
    }

    /// Gives guests their names. Those that are not among them are forgotten.
    pub fn name(&mut self, guests: &mut [Guest]) {
        self.known.retain(|domid, known| guests.iter().any(|guest| known.is_of(*domid, guest)));
        for guest in guests {
            if !self.known.contains_key(&guest.domid) {
                let Some(name) = self.ask(DomId(guest.domid)) else { continue };
                let (owner, server) = (guest.owner.clone(), guest.server);
                self.known.insert(guest.domid, Known { owner, server, name });
            }
            guest.name = self.known.get(&guest.domid).and_then(|known| known.name.clone());
        }
    }

    /// A guest's name, if it has one. `None`: there was no answer.
    fn ask(&mut self, dom: DomId) -> Option<Option<String>> {
        if self.silent_until.is_some_and(|end| Instant::now() < end) {
            return None;
        }
        if self.host.is_none() && self.on_machine {
            self.host = LinuxHost::open().ok().map(|host| Arc::new(host) as Arc<dyn Host>);
        }
        let answer = self.host.as_ref().map(|host| host.domain(dom));
        match answer {
            Some(Ok(domain)) => return Some(domain.name),
            Some(Err(error)) if error.is_gone() => return Some(None),
            Some(Err(_)) | None => self.silent_until = Instant::now().checked_add(PAUSE),
        }
        None
    }
}

impl Known {
    fn is_of(&self, domid: u16, guest: &Guest) -> bool {
        let Self { owner, server, .. } = self;
        domid == guest.domid && *owner == guest.owner && *server == guest.server
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::served::{Abi, Engine};
    use xen_eventfd_host::Errno;
    use xen_eventfd_model::{CallKind, Client, Config, Model};

    fn guest(domid: u16, pid: u32) -> Guest {
        let owner = Owner::new(pid, "backend".to_owned());
        let (engine, abi, server) = (Engine::Kernel, Some(Abi::Native), Some(7));
        Guest { domid, name: None, engine, abi, owner, server, shown: None }
    }

    fn machine(count: u16) -> (Arc<Client>, Naming) {
        let model = Model::new();
        for number in 1..=count {
            model.domain(Config::new(format!("guest{number}")));
        }
        let client = model.client("top");
        let host: Arc<dyn Host> = client.clone();
        let session = Session { host: Some(host), ..Session::default() };
        (client, Naming::new(&session, false))
    }

    fn named(naming: &mut Naming, mut guests: Vec<Guest>) -> Vec<Option<String>> {
        naming.name(&mut guests);
        guests.into_iter().map(|guest| guest.name).collect()
    }

    #[test]
    fn a_guest_is_asked_for_once_and_others_never() {
        let (client, mut naming) = machine(100);
        for _ in 0..10 {
            let names = named(&mut naming, vec![guest(1, 412), guest(2, 412)]);
            assert_eq!(names, [Some("guest1".to_owned()), Some("guest2".to_owned())]);
        }
        assert_eq!(client.calls(), 2);
        named(&mut naming, vec![guest(1, 412), guest(2, 412), guest(3, 500)]);
        assert_eq!(client.calls(), 3, "one that appears is asked for");
    }

    #[test]
    fn a_number_that_another_has_taken_is_asked_for_again() {
        let (client, mut naming) = machine(1);
        named(&mut naming, vec![guest(1, 412)]);
        named(&mut naming, vec![guest(1, 413)]);
        assert_eq!(client.calls(), 2);
        named(&mut naming, vec![]);
        named(&mut naming, vec![guest(1, 413)]);
        assert_eq!(client.calls(), 3);
    }

    #[test]
    fn a_xenstore_that_does_not_answer_is_left_alone() {
        let (client, mut naming) = machine(2);
        client.fail(CallKind::Domain, 1, Errno::TIMEDOUT);
        for _ in 0..10 {
            assert_eq!(named(&mut naming, vec![guest(1, 412), guest(2, 412)]), [None, None]);
        }
        assert_eq!(client.calls(), 1);
        naming.silent_until = Some(Instant::now());
        let names = named(&mut naming, vec![guest(1, 412), guest(9, 412)]);
        assert_eq!(names, [Some("guest1".to_owned()), None]);
    }
}
