//! The way in: Xen, and the engine that serves its guests.

use crate::engine::Engine;
use crate::engine::module::{ModuleEngine, Native, Privcmd, is_absent};
use crate::engine::orphan::{self, Reaped};
use crate::engine::userspace::UserspaceEngine;
use crate::guardian::Guardian;
use crate::own::Own;
use crate::probe::Probe;
use crate::run_dir::{self, Purpose, RunDir};
use crate::{Error, Guest, Result};
use core::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use xen_eventfd_core::DomId;
use xen_eventfd_host::linux::LinuxHost;
use xen_eventfd_host::linux::eventfd::Control;
use xen_eventfd_host::{Domain, Host};

/// Names the engine that [`Xen::new`] takes.
pub const ENGINE_VARIABLE: &str = "XEN_EVENTFD_ENGINE";

/// Who turns kicks into signals.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum EngineKind {
    /// The kernel module if it is loaded, else userspace.
    #[default]
    Auto,
    /// The kernel module, through `/dev/xen/eventfd`. No process but the backend is woken by a kick.
    Kernel,
    /// A thread of this process, on `/dev/xen/privcmd` and `/dev/xen/evtchn`.
    Userspace,
    /// The kernel module, by the requests of the kernel patch (`IOCTL_PRIVCMD_IOEVENTFD` and
    /// `IOCTL_PRIVCMD_IRQFD`) instead of its own. Never picked by itself: it is there for who must
    /// know that these still work.
    ///
    /// They can say little, and the rest is [`Error::Unsupported`]. A doorbell is in memory, takes
    /// one value of at most 16 bits, and only the low 16 bits of a write are compared, whatever its
    /// width (`3_u32` takes 0x80010003 too); an eventfd has one doorbell of a guest. An interrupt is
    /// an MSI, or a line that is raised and never lowered. There are no fallbacks, no event channels
    /// in either direction, and no news of a guest's death: [`Guest::gone`] is readable once a call
    /// has found the guest dead.
    Privcmd,
}

impl fmt::Display for EngineKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::Kernel => "kernel",
            Self::Userspace => "userspace",
            Self::Privcmd => "privcmd",
        })
    }
}

impl FromStr for EngineKind {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        match name {
            "auto" => Ok(Self::Auto),
            "kernel" => Ok(Self::Kernel),
            "userspace" => Ok(Self::Userspace),
            "privcmd" => Ok(Self::Privcmd),
            other => Err(Error::NoEngine(format!("there is no engine called {other:?}"))),
        }
    }
}

/// Xen, with an engine that serves guests. Cheap to clone; the engine ends with the last clone
/// and the last [`Guest`].
///
/// # Fork
/// It belongs to the process that opened it. In a child that is forked, its calls fail with
/// [`Error::Forked`] and dropping it does nothing; the child may open Xen for itself. See [`Guest`].
///
#[doc = example!(r#"
let kick = eventfd(0, EventfdFlags::empty())?;
let queue = guest.register_ioevent(&kick, &IoEventAddress::Mmio(0xfe00_0050), 3_u32)?;

// The guest writes 3 to its doorbell, and the eventfd is readable.
# vcpu.write(Space::Mmio, 0xfe00_0050, Width::Four, 3)?;
let mut count = [0; 8];
rustix::io::read(&kick, &mut count)?;
assert_eq!(u64::from_ne_bytes(count), 1);
drop(queue); // the registration ends
"#)]
#[derive(Debug, Clone)]
pub struct Xen(Own<Inner>);

#[derive(Debug)]
struct Inner {
    engine: Arc<dyn Engine>,
    guardian: Guardian,
}

/// How to open [`Xen`].
#[derive(Debug, Clone, Default)]
pub struct Builder {
    engine: Option<EngineKind>,
    run_dir: Option<PathBuf>,
    guardian: Option<Guardian>,
}

impl Builder {
    /// Names the engine, instead of the best one or `XEN_EVENTFD_ENGINE`.
    ///
    #[doc = example!(r#"
# let other = tempfile::tempdir()?;
// On a real host: .open()
let xen = Xen::builder().engine(EngineKind::Userspace).run_dir(other.path()).open_on(host)?;
"#)]
    #[must_use]
    pub fn engine(mut self, kind: EngineKind) -> Self {
        self.engine = Some(kind);
        self
    }

    /// Where locks and records are kept; [`run_dir::DEFAULT`] unless told. All engines of a host
    /// must agree on it. A relative path is one of the working directory of this moment.
    ///
    /// It is made with mode 0700, its files with 0600, whatever the umask. One that is a link, that
    /// belongs to another user than this one or root, or to which others can write is refused.
    ///
    #[doc = example!(r#"
# let other = tempfile::tempdir()?;
let xen = Xen::builder().run_dir(other.path()).open_on(host)?;
"#)]
    #[must_use]
    pub fn run_dir(mut self, path: impl Into<PathBuf>) -> Self {
        self.run_dir = Some(run_dir::absolute(&path.into()));
        self
    }

    /// Who looks after the guests when this process is killed; [`Guardian::Auto`] unless told on
    /// a real host, [`Guardian::None`] on any other. The kernel engine needs none, and starts none.
    ///
    #[doc = example!(r#"
# let other = tempfile::tempdir()?;
# let builder = Xen::builder().run_dir(other.path());
let xen = builder.guardian(Guardian::Program("/no/such".into())).open_on(host)?;
// It is started with the first guest.
assert!(matches!(xen.guest(dom), Err(Error::NoGuardian(_))));
"#)]
    #[must_use]
    pub fn guardian(mut self, guardian: Guardian) -> Self {
        self.guardian = Some(guardian.absolute());
        self
    }

    /// Opens this machine's Xen.
    ///
    /// # Errors
    /// [`Error::Host`] names the device that is missing or forbidden; [`Error::NoEngine`] if the
    /// engine that was asked for cannot run here.
    ///
    #[doc = example!(r#"
# // Whatever this machine is.
match Xen::builder().engine(EngineKind::Userspace).run_dir(dir.path()).open() {
    Ok(_) => println!("this is a Xen domain with its devices"),
    Err(error) => println!("{error}"), // says what is missing, and what to do
}
"#)]
    pub fn open(self) -> Result<Xen> {
        let kind = self.kind()?;
        let module = pick(kind, Control::open, |control| control.info().complete)?;
        let host = Arc::new(LinuxHost::open()?);
        let run_dir = self.open_run_dir()?;
        Ok(match module {
            // Nothing is left when they end, so nobody need look after that.
            Some(control) if kind == EngineKind::Privcmd => {
                Xen::with(ModuleEngine::<Privcmd>::new(host, run_dir, control), Guardian::None)
            }
            Some(control) => {
                Xen::with(ModuleEngine::<Native>::new(host, run_dir, control), Guardian::None)
            }
            None => {
                let engine = UserspaceEngine::start(host, run_dir, true)?;
                Xen::with(engine, self.guardian.unwrap_or(Guardian::Auto))
            }
        })
    }

    /// The engine that is asked for.
    fn kind(&self) -> Result<EngineKind> {
        match (self.engine, std::env::var(ENGINE_VARIABLE)) {
            (Some(kind), _) => Ok(kind),
            (None, Ok(name)) => name.parse(),
            (None, Err(_)) => Ok(EngineKind::Auto),
        }
    }

    /// Asks everything that [`Builder::open`] and [`Xen::guest`] would need, by the same code: what
    /// can serve guests here, and what is in the way. No guest is touched and no file made. It ends
    /// within seconds, also where a driver or xenstore never answers.
    ///
    #[doc = example!(r#"
let probe = Xen::builder().run_dir(dir.path()).probe();
match probe.engine() {
    Ok(engine) => println!("the {engine} engine serves here"),
    Err(error) => println!("{error}"), // says what is missing, and what to do
}
"#)]
    pub fn probe(&self) -> Probe {
        let path = self.run_dir.as_deref().unwrap_or(Path::new(run_dir::DEFAULT));
        Probe::ask(self.kind(), RunDir::check(path))
    }

    /// Opens another host: the model, or a wrapper of one's own. It is served by the userspace
    /// engine.
    ///
    /// # Errors
    /// Whatever that host answers; [`Error::NoEngine`] for the engines of the kernel module, which
    /// serves this machine's Xen.
    ///
    #[doc = example!(r#"
# let other = tempfile::tempdir()?;
let host = model.client("backend"); // any Host
let xen = Xen::builder().run_dir(other.path()).open_on(host)?;
"#)]
    pub fn open_on(self, host: Arc<dyn Host>) -> Result<Xen> {
        if matches!(self.engine, Some(EngineKind::Kernel | EngineKind::Privcmd)) {
            let why = "the kernel module serves this machine's Xen and no other host";
            return Err(Error::NoEngine(why.to_owned()));
        }
        let engine = UserspaceEngine::start(host, self.open_run_dir()?, false)?;
        Ok(Xen::with(engine, self.guardian.unwrap_or(Guardian::None)))
    }

    fn open_run_dir(&self) -> Result<RunDir> {
        RunDir::open(self.run_dir.as_deref().unwrap_or(Path::new(run_dir::DEFAULT)))
    }

    /// Sweeps up after engines that were killed: every guest that has a record and no living
    /// engine. Needs no engine of its own.
    ///
    /// # Errors
    /// The first failure of each guest stands beside it; the call itself fails only if the
    /// directory cannot be read or the host not be opened.
    ///
    #[doc = example!(r#"
if let Ok(reaped) = Xen::builder().run_dir(dir.path()).reap() {
    for (dom, result) in reaped {
        println!("{dom}: {result:?}");
    }
}
"#)]
    pub fn reap(self) -> Result<Vec<(DomId, Result<Reaped>)>> {
        self.reap_on(&LinuxHost::open()?)
    }

    /// The same on another host.
    ///
    /// # Errors
    /// As [`Builder::reap`].
    ///
    #[doc = example!(r#"
// A guest with a living engine is left alone.
let reaped = Xen::builder().run_dir(dir.path()).reap_on(&*model.client("reaper"))?;
assert!(matches!(reaped[..], [(_, Ok(Reaped::InUse))]));
"#)]
    pub fn reap_on(self, host: &dyn Host) -> Result<Vec<(DomId, Result<Reaped>)>> {
        let run_dir = self.open_run_dir()?;
        let reap = |dom: DomId| -> Result<Reaped> {
            let _lock = match run_dir.lock(dom, Purpose::Reap) {
                Err(Error::InUse { .. }) => return Ok(Reaped::InUse),
                lock => lock?,
            };
            match run_dir.read(dom)? {
                Some(mut record) => orphan::recover(host, &run_dir, &mut record),
                None => Ok(Reaped::NotOurs),
            }
        };
        Ok(run_dir.recorded()?.into_iter().map(|dom| (dom, reap(dom))).collect())
    }
}

/// Why the requests of the patch are not made on Linux's own device.
const NOT_ON_PRIVCMD: &str = "the privcmd engine asks our kernel module, which is not loaded \
    (`modprobe xen-eventfd`); on Linux's own /dev/xen/privcmd kernel and device model would share \
    one slot, which loses kicks or crashes the guest; use the userspace engine there";

/// The module, if it is what serves guests. `is_complete`: whether it has all that an engine needs.
pub(crate) fn pick<T>(
    kind: EngineKind,
    open: impl FnOnce() -> xen_eventfd_host::Result<T>,
    is_complete: impl FnOnce(&T) -> bool,
) -> Result<Option<T>> {
    let complete = |module: T| {
        let lacks = "the kernel module lacks some of what an engine does; install a newer one";
        let complete = is_complete(&module);
        complete.then_some(module).ok_or_else(|| Error::NoEngine(lacks.to_owned()))
    };
    let refused = |error| match kind {
        EngineKind::Privcmd if is_absent(&error) => Error::NoEngine(NOT_ON_PRIVCMD.to_owned()),
        _ => error.into(),
    };
    let module = || open().map_err(refused).and_then(complete);
    match kind {
        EngineKind::Kernel | EngineKind::Privcmd => module().map(Some),
        EngineKind::Userspace => Ok(None),
        EngineKind::Auto => Ok(module()
            .inspect_err(|why| tracing::debug!(%why, "the userspace engine serves"))
            .ok()),
    }
}

impl Xen {
    fn with(engine: impl Engine + 'static, guardian: Guardian) -> Self {
        let (engine, guardian) = (Arc::new(engine), guardian.found());
        Self(Own::new(Inner { engine, guardian }))
    }

    /// Opens this machine's Xen with the best engine that it has.
    ///
    /// # Errors
    /// As [`Builder::open`].
    ///
    #[doc = example!(r#"
match Xen::new() {
    Ok(_) => println!("this is a Xen domain with its devices"),
    Err(error) => println!("{error}"),
}
"#)]
    pub fn new() -> Result<Self> {
        Self::builder().open()
    }

    /// Settings.
    ///
    #[doc = example!(r#"
# let other = tempfile::tempdir()?;
let xen = Xen::builder().run_dir(other.path()).guardian(Guardian::None).open_on(host)?;
"#)]
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// Takes a guest: from now on this engine serves its doorbells, and no other can.
    ///
    /// Kicks go to the VMM as before until the first doorbell is registered.
    ///
    /// # Errors
    /// [`Error::UnknownDomain`]; [`Error::InUse`] names the other engine; [`Error::Host`] if the
    /// guest can have no ioreq server (a PV guest) or no further one; [`Error::NoGuardian`].
    ///
    #[doc = example!(r#"
let refused = xen.guest(DomId(77)).unwrap_err();
assert_eq!(refused.to_string(), "no domain 77; `xl list` shows those that are");
"#)]
    pub fn guest(&self, dom: DomId) -> Result<Guest> {
        let Inner { engine, guardian } = self.0.get()?;
        let guard = guardian.guard(engine.run_dir().path())?;
        Guest::new(Arc::clone(engine), dom, guard)
    }

    /// Finds a domain by its number or its name, by the rule of [`crate::DomainSelector`].
    ///
    /// # Errors
    /// [`Error::UnknownDomain`]; [`Error::AmbiguousName`].
    ///
    #[doc = example!(r#"
assert_eq!(xen.find("guest")?.id, dom);
assert_eq!(xen.find("1")?.id, dom);
assert!(matches!(xen.find("nobody"), Err(Error::UnknownDomain(_))));
"#)]
    pub fn find(&self, name: &str) -> Result<Domain> {
        self.0.get()?;
        crate::find(&**self.host(), name)
    }

    /// The host on which the engine runs.
    ///
    #[doc = example!(r#"
assert_eq!(xen.host().vcpus(dom)?, 1);
"#)]
    pub fn host(&self) -> &Arc<dyn Host> {
        self.0.constant().engine.host()
    }

    /// The engine that serves; never [`EngineKind::Auto`].
    ///
    #[doc = example!(r#"
assert_eq!(xen.engine(), EngineKind::Userspace); // the only one for the model
"#)]
    pub fn engine(&self) -> EngineKind {
        self.0.constant().engine.kind()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use xen_eventfd_host::{Call, Errno, HostError};

    fn no_module() -> xen_eventfd_host::Result<Control> {
        Err(HostError::new(Call::Open("/dev/xen/eventfd"), Errno::NOENT))
    }

    fn complete(control: &Control) -> bool {
        control.info().complete
    }

    #[test]
    fn without_the_module_the_userspace_engine_is_the_best() {
        assert!(matches!(pick(EngineKind::Auto, no_module, complete), Ok(None)));
    }

    #[test]
    fn a_kernel_engine_that_was_asked_for_is_not_replaced() {
        let refused = pick(EngineKind::Kernel, no_module, complete).unwrap_err();
        assert!(refused.to_string().contains("modprobe xen-eventfd"), "{refused}");
    }

    #[test]
    fn the_requests_of_the_patch_are_not_made_on_linuxs_own_device() {
        let refused = pick(EngineKind::Privcmd, no_module, complete).unwrap_err();
        assert!(matches!(refused, Error::NoEngine(_)));
        for way_out in ["modprobe xen-eventfd", "userspace"] {
            assert!(refused.to_string().contains(way_out), "{refused}");
        }
        let forbidden = || Err(HostError::new(Call::Open("/dev/xen/eventfd"), Errno::ACCESS));
        let refused = pick(EngineKind::Privcmd, forbidden, complete).unwrap_err();
        assert!(refused.to_string().contains("run as root"), "{refused}");
    }

    #[test]
    fn the_userspace_engine_does_not_ask_whether_there_is_another() {
        let opened = || -> xen_eventfd_host::Result<Control> { panic!("the device was opened") };
        assert!(matches!(pick(EngineKind::Userspace, opened, complete), Ok(None)));
    }
}
