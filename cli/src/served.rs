//! The guests that are served on this machine, by whichever engine.
//!
//! The module reports its guests in debugfs ([`module_status`]), the engines of userspace by their locks in
//! the run directory. A guest that both report is one: an engine of userspace reserves its guests
//! with the module.

use crate::failure::{Exit, Failure};
use crate::module_status::{self, Interface, Owner};
use crate::session::Session;
use crate::table::{NOTHING, printable};
use clap::Args;
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use xen_eventfd::run_dir::{self, Holder};
use xen_eventfd::{DomId, DomainSelector, EngineKind, Xen};
use xen_eventfd_host::Host;
use xen_eventfd_host::linux::LinuxHost;

/// Where to look.
#[derive(Debug, Clone, Args)]
pub struct Machine {
    /// The root of the file system
    #[arg(long, hide = true, value_name = "DIR", default_value = "/")]
    pub root: PathBuf,
}

/// What turns a guest's kicks into signals.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Engine {
    /// The module.
    Kernel,
    /// A thread of its owner.
    Userspace,
}

/// The ABI by which the module was asked to serve a guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Abi {
    /// The module's own.
    Native,
    /// That of Linux's privcmd.
    Privcmd,
}

impl From<EngineKind> for Engine {
    fn from(kind: EngineKind) -> Self {
        match kind {
            EngineKind::Kernel => Self::Kernel,
            _ => Self::Userspace,
        }
    }
}

/// A guest that is served.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Guest {
    /// Its number.
    pub domid: u16,
    /// Its name, if xenstore has one.
    pub name: Option<String>,
    /// What serves it.
    pub engine: Engine,
    /// By which ABI the module serves it; `None` for the userspace engine.
    pub abi: Option<Abi>,
    /// The process that took it.
    pub owner: Owner,
    /// Its doorbell server.
    pub server: Option<u16>,
    /// What the module reports, if it serves the guest.
    #[serde(skip)]
    pub shown: Option<module_status::Guest>,
}

/// A guest whose engine was killed and that nothing has reaped: its vCPUs wait as soon as they ring.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Orphan {
    /// Its number.
    pub domid: u16,
    /// Its name, if xenstore has one.
    pub name: Option<String>,
    /// The doorbell server that was left.
    pub server: Option<u16>,
}

/// Names of guests, or why there are none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Names {
    /// As xenstore has them.
    Known(BTreeMap<DomId, String>),
    /// Xenstore does not answer.
    Unknown(String),
}

impl Machine {
    /// All guests that are served, in the order of their numbers.
    ///
    /// # Errors
    /// As [`module_status::folder::read`] and [`run_dir::holders`].
    pub fn guests(&self, session: &Session, names: &Names) -> Result<Vec<Guest>, Failure> {
        let holders = run_dir::holders(&self.run_dir(session))?;
        Ok(join(module_status::folder::read(&self.root)?, holders, names))
    }

    /// The same, without their names.
    ///
    /// # Errors
    /// As [`Machine::guests`].
    pub fn nameless_guests(&self, session: &Session) -> Result<Vec<Guest>, Failure> {
        self.guests(session, &Names::Unknown(String::new()))
    }

    /// Whether the guests are this machine's, and not those of a tree of files.
    pub fn is_real(&self) -> bool {
        self.root == Path::new("/")
    }

    /// What engines left that were killed, in the order of the guests' numbers.
    ///
    /// # Errors
    /// As [`run_dir::orphans`].
    pub fn orphans(&self, session: &Session, names: &Names) -> Result<Vec<Orphan>, Failure> {
        let orphan = |orphan: run_dir::Orphan| Orphan {
            domid: orphan.dom.0,
            name: names.of(orphan.dom),
            server: orphan.server.map(|server| server.0),
        };
        Ok(run_dir::orphans(&self.run_dir(session))?.into_iter().map(orphan).collect())
    }

    fn run_dir(&self, session: &Session) -> PathBuf {
        match &session.run_dir {
            Some(run_dir) => run_dir.clone(),
            None => self.root.join(run_dir::DEFAULT.trim_start_matches('/')),
        }
    }

    /// The names of this machine's guests; of a tree of files there are none.
    pub fn names(&self) -> Names {
        if !self.is_real() {
            return Names::Unknown(format!("{} is no machine", self.root.display()));
        }
        match LinuxHost::open().and_then(|host| host.domains()) {
            Ok(domains) => {
                let named = |domain: xen_eventfd::Domain| Some((domain.id, domain.name?));
                Names::Known(domains.into_iter().filter_map(named).collect())
            }
            Err(error) => Names::Unknown(error.to_string()),
        }
    }
}

/// Both tellings as one.
fn join(shown: Vec<module_status::Guest>, holders: Vec<Holder>, names: &Names) -> Vec<Guest> {
    let held = holders.into_iter().filter_map(|holder| {
        let name = holder.name().unwrap_or_default().to_owned();
        // A reaper serves no guest, and one that has not said who it is will in a moment.
        let engine = holder.engine()?.parse().map_or(Engine::Userspace, EngineKind::into);
        let guest = Guest {
            domid: holder.dom.0,
            name: names.of(holder.dom),
            engine,
            abi: engine.abi(),
            owner: Owner::new(holder.pid?, name),
            server: holder.server.map(|server| server.0),
            shown: None,
        };
        Some((holder.dom, guest))
    });
    let mut guests: BTreeMap<DomId, Guest> = held.collect();
    for shown in shown {
        if shown.interface == Interface::Reserved && guests.contains_key(&shown.dom) {
            continue;
        }
        guests.insert(shown.dom, Guest::of_module(shown, names));
    }
    guests.into_values().collect()
}

impl Guest {
    pub(crate) fn of_module(shown: module_status::Guest, names: &Names) -> Self {
        let (engine, abi) = match shown.interface {
            Interface::Native => (Engine::Kernel, Some(Abi::Native)),
            Interface::Privcmd => (Engine::Kernel, Some(Abi::Privcmd)),
            Interface::Reserved => (Engine::Userspace, None),
        };
        Self {
            domid: shown.dom.0,
            name: names.of(shown.dom),
            engine,
            abi,
            owner: shown.owner.clone(),
            server: shown.served.map(|served| served.server.0),
            shown: (engine != Engine::Userspace).then_some(shown),
        }
    }

    /// What is registered, if that is known.
    pub fn registrations(&self) -> Option<usize> {
        self.shown.as_ref().map(module_status::Guest::registrations)
    }

    /// What its doorbells have seen, if that is counted where we can see it.
    pub fn counters(&self) -> Option<module_status::Counters> {
        Some(self.shown.as_ref()?.served?.counters)
    }

    /// One that an engine of this process serves.
    pub fn of_engine(xen: &Xen, guest: &xen_eventfd::Guest) -> Self {
        let (dom, process) = (guest.dom(), std::fs::read_to_string("/proc/self/comm"));
        let name = process.unwrap_or_default().trim_end().to_owned();
        let engine = Engine::from(xen.engine());
        Self {
            domid: dom.0,
            name: xen.host().domain(dom).ok().and_then(|domain| domain.name),
            engine,
            abi: engine.abi(),
            owner: Owner::new(std::process::id(), name),
            server: Some(guest.server().0),
            shown: None,
        }
    }

    /// Its name, for people.
    pub fn name(&self) -> String {
        self.name.as_deref().map_or_else(|| NOTHING.to_owned(), printable)
    }

    /// The engine, for people.
    pub fn engine(&self) -> &'static str {
        match (self.engine, self.abi) {
            (Engine::Kernel, Some(Abi::Privcmd)) => "kernel (privcmd)",
            (engine, _) => engine.name(),
        }
    }

    /// The owner, for people.
    pub fn owner(&self) -> String {
        let Owner { pid, name, ended, .. } = &self.owner;
        let name = printable(name);
        match pid {
            _ if *ended => format!("{name} (ended)"),
            0 => format!("{name} (elsewhere)"),
            pid => format!("{pid} {name}").trim_end().to_owned(),
        }
    }
}

impl Engine {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Kernel => "kernel",
            Self::Userspace => "userspace",
        }
    }

    /// The ABI by which the library asks the module.
    fn abi(self) -> Option<Abi> {
        (self == Self::Kernel).then_some(Abi::Native)
    }
}

impl Names {
    fn of(&self, dom: DomId) -> Option<String> {
        match self {
            Self::Known(names) => names.get(&dom).cloned(),
            Self::Unknown(_) => None,
        }
    }

    /// The guest that a user means, by the rule of [`DomainSelector`]: also by a number that xenstore does
    /// not know.
    ///
    /// # Errors
    /// [`Exit::NoGuest`] if nothing has this name.
    pub fn find(&self, word: &str) -> Result<DomId, Failure> {
        let selector: DomainSelector = word.parse()?;
        match (self, &selector) {
            (Self::Known(names), _) => {
                Ok(selector.among(names.iter().map(|(dom, name)| (*dom, name.as_str())))?)
            }
            (_, DomainSelector::Number(dom)) => Ok(*dom),
            (Self::Unknown(why), DomainSelector::Name(name)) => {
                let sentence =
                    format!("no guest can be found by the name {name} ({why}); give its number");
                Err(Failure::new(Exit::NoGuest, sentence))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONE: Names = Names::Known(BTreeMap::new());

    fn shown(interface: &str) -> module_status::Guest {
        format!(
            "dom:\t3\ninterface:\t{interface}\nowner:\t412 backend\nserver:\t7\ndelivered:\t9\n"
        )
        .parse()
        .unwrap()
    }

    /// A run directory in which this process holds guest 3, as an engine does.
    fn holders() -> Vec<Holder> {
        let model = xen_eventfd_model::Model::new();
        for _ in 0..3 {
            model.domain(xen_eventfd_model::Config::new("guest"));
        }
        let dir = tempfile::tempdir().unwrap();
        let builder = Xen::builder().run_dir(dir.path());
        let xen = builder.open_on(model.client("engine")).unwrap();
        let _guest = xen.guest(DomId(3)).unwrap();
        run_dir::holders(dir.path()).unwrap()
    }

    #[test]
    fn the_module_serves_what_it_shows() {
        let names = Names::Known(BTreeMap::from([(DomId(3), "web".to_owned())]));
        let guests = join(vec![shown("native")], vec![], &names);
        let [guest] = &guests[..] else { panic!("{guests:?}") };
        assert_eq!((guest.domid, guest.engine, guest.server), (3, Engine::Kernel, Some(7)));
        assert_eq!(
            (guest.name.as_deref(), guest.counters().map(|all| all.delivered)),
            (Some("web"), Some(9))
        );
        assert_eq!(guest.owner(), "412 backend");
    }

    #[test]
    fn an_owner_that_has_ended_is_told_from_one_that_is_elsewhere() {
        let owner = |lines: &str| {
            let text = format!("dom:\t3\ninterface:\tnative\n{lines}server:\t7\n");
            let guest = Guest::of_module(text.parse().unwrap(), &NONE);
            (guest.owner(), serde_json::to_value(&guest).unwrap()["owner"]["ended"].clone())
        };
        assert_eq!(owner("owner:\t0 qemu\n"), ("qemu (elsewhere)".to_owned(), false.into()));
        let ended = owner("owner:\t0 qemu\nowner-state:\tended\n");
        assert_eq!(ended, ("qemu (ended)".to_owned(), true.into()));
    }

    #[test]
    fn who_holds_a_lock_serves_in_userspace() {
        let guests = join(vec![], holders(), &NONE);
        let [guest] = &guests[..] else { panic!("{guests:?}") };
        assert_eq!(
            (guest.domid, guest.engine, guest.counters().map(|all| all.delivered)),
            (3, Engine::Userspace, None)
        );
        assert_eq!(guest.owner.pid, std::process::id());
    }

    #[test]
    fn a_lock_names_its_engine_and_a_reapers_names_none() {
        let dir = tempfile::tempdir().unwrap();
        let lock = |dom: u16, what: &str| {
            let text = format!("process {} (me), {what}\n", std::process::id());
            let path = dir.path().join(format!("{dom}.lock"));
            std::fs::write(&path, text).unwrap();
            let file = std::fs::File::open(&path).unwrap();
            rustix::fs::flock(&file, rustix::fs::FlockOperation::LockExclusive).unwrap();
            file
        };
        let _locks = [lock(3, "kernel engine"), lock(4, "reaping"), lock(5, "userspace engine")];
        let guests = join(vec![], run_dir::holders(dir.path()).unwrap(), &NONE);
        let reported: Vec<_> = guests.iter().map(|guest| (guest.domid, guest.engine)).collect();
        assert_eq!(reported, [(3, Engine::Kernel), (5, Engine::Userspace)]);
        let abis: Vec<_> = guests.iter().map(|guest| guest.abi).collect();
        assert_eq!(abis, [Some(Abi::Native), None]);
    }

    #[test]
    fn the_module_serves_programs_by_either_abi() {
        for (interface, abi, engine) in
            [("native", Abi::Native, "kernel"), ("privcmd", Abi::Privcmd, "kernel (privcmd)")]
        {
            let guest = Guest::of_module(shown(interface), &NONE);
            assert_eq!((guest.engine, guest.abi), (Engine::Kernel, Some(abi)));
            assert_eq!(guest.engine(), engine);
        }
    }

    #[test]
    fn a_reservation_is_the_lock_of_an_engine_in_userspace() {
        let both = join(vec![shown("reserved")], holders(), &NONE);
        assert_eq!(both, join(vec![], holders(), &NONE));
        let guests = join(vec![shown("reserved")], vec![], &NONE);
        assert_eq!(
            (guests[0].engine, guests[0].counters().map(|all| all.delivered)),
            (Engine::Userspace, None)
        );
    }

    #[test]
    fn a_guest_of_the_module_whose_lock_is_held_is_the_modules() {
        let guests = join(vec![shown("native")], holders(), &NONE);
        assert_eq!((guests.len(), guests[0].engine), (1, Engine::Kernel));
    }

    #[test]
    fn guests_are_found_by_name_and_number() {
        let names = Names::Known(BTreeMap::from([(DomId(3), "web".to_owned())]));
        assert_eq!(names.find("web"), Ok(DomId(3)));
        assert_eq!(names.find("7"), Ok(DomId(7)));
        assert_eq!(names.find("db").unwrap_err().exit, Exit::NoGuest);
        let called = Names::Known(BTreeMap::from([(DomId(3), "7".to_owned())]));
        assert_eq!(called.find("7"), Ok(DomId(7)), "the number wins");
        assert_eq!(called.find("70000").unwrap_err().exit, Exit::NoGuest);
        let unknown = Names::Unknown("xenstore is away".to_owned()).find("web").unwrap_err();
        assert!(unknown.sentence.contains("give its number"), "{unknown}");
    }
}
