//! The way in: Xen, and the engine that serves its guests.

use crate::driver::Driver;
use crate::engine::Engine;
use crate::engine::module::{ModuleAbi, ModuleEngine, Native};
use crate::engine::userspace::{UserspaceEngine, Workers};
use crate::guardian::Guardian;
use crate::own::Own;
use crate::probe::Probe;
use crate::{Error, Guest, Result, run_dir};
use core::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;
use xen_eventfd_core::DomId;
use xen_eventfd_host::linux::eventfd::Control;
use xen_eventfd_host::linux::{Devices, KnownGuest, LinuxHost};
use xen_eventfd_host::{Domain, Errno, Host};
use xen_eventfd_ioreq::run_dir::absolute;
use xen_eventfd_ioreq::sync::{Mutex, lock};
use xen_eventfd_ioreq::{self as ioreq, Reaped, Reserve, Role, RunDir, ThreadHook};

/// Names the engine that [`Xen::new`] takes.
pub const ENGINE_VARIABLE: &str = "XEN_EVENTFD_ENGINE";

/// What turns kicks into signals.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum EngineKind {
    /// The kernel module if it is loaded, else userspace.
    #[default]
    Auto,
    /// The kernel module, through `/dev/xen/eventfd`. No process but the backend is woken by a kick.
    Kernel,
    /// Threads of this process, or turns of its event loop (`Builder::without_threads`), on
    /// `/dev/xen/privcmd` and `/dev/xen/evtchn`.
    Userspace,
}

impl fmt::Display for EngineKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::Kernel => "kernel",
            Self::Userspace => "userspace",
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
    driver: Mutex<Option<Driver>>,
}

/// How to open [`Xen`].
#[derive(Debug, Clone, Default)]
pub struct Builder {
    engine: Option<EngineKind>,
    run_dir: Option<PathBuf>,
    guardian: Option<Guardian>,
    thread_hook: Option<ThreadHook>,
    without_threads: bool,
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

    /// Where locks and records are kept; [`run_dir::DEFAULT`] by default. All engines of a host
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
        self.run_dir = Some(absolute(&path.into()));
        self
    }

    /// What reaps the guests when this process is killed; by default [`Guardian::Auto`] on a real host,
    /// [`Guardian::None`] on any other. The kernel engine needs none, and starts none.
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

    /// Has each thread of the engine call this first, with the thread's name: to set its CPUs or its
    /// priority, or to install a seccomp filter. The userspace engine's are `xen-ioeventfd` and
    /// `xen-irqfd`, and `xen-watch`, which talks to xenstore; the kernel engine has none.
    ///
    /// An error, or a panic, has [`Builder::open`] fail with [`Error::NoEngine`].
    ///
    #[doc = example!(r#"
# let other = tempfile::tempdir()?;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
let allowed = sched_getaffinity(None)?;
let first = (0..CpuSet::MAX_CPU).find(|cpu| allowed.is_set(*cpu)).expect("we run on one");
let xen = Xen::builder()
    .on_thread_start(move |name| {
        if name == "xen-ioeventfd" {
            let mut cpus = CpuSet::new();
            cpus.set(first);
            sched_setaffinity(None, &cpus)?;
        }
        Ok(())
    })
    .run_dir(other.path())
    .open_on(host)?;
"#)]
    #[must_use]
    pub fn on_thread_start(
        mut self,
        hook: impl Fn(&str) -> std::io::Result<()> + Send + Sync + 'static,
    ) -> Self {
        self.thread_hook = Some(ThreadHook::new(hook));
        self
    }

    /// Starts no thread that serves guests: the program's own event loop gives the engine its turns, by
    /// [`Xen::driver`]. Nothing is served until it does. (With a guardian there is a thread that waits
    /// for it; [`Guardian::None`] has none.)
    ///
    #[doc = example!(r#"
# let other = tempfile::tempdir()?;
let xen = Xen::builder().without_threads().run_dir(other.path()).open_on(host)?;
let mut driver = xen.driver().expect("it is taken once");
driver.process()?; // whenever the descriptor of `driver` is readable
"#)]
    #[must_use]
    pub fn without_threads(mut self) -> Self {
        self.without_threads = true;
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
    Err(error) => println!("{error}"), // what is missing, and what to do
}
"#)]
    pub fn open(self) -> Result<Xen> {
        let kind = self.kind()?;
        let module = pick(kind, Control::open, |control| control.info().complete)?;
        let host = Arc::new(LinuxHost::open()?);
        let Some(control) = module else {
            return self.serve(host, Reserve::Loaded, Guardian::Auto);
        };
        self.serve_by_module::<Native>(host, control)
    }

    /// As [`Builder::open`] with [`EngineKind::Kernel`], by another ABI of the module than its own. The
    /// scenarios run so what programs of that ABI rely on.
    ///
    /// # Errors
    /// As [`Builder::open`].
    #[doc(hidden)]
    pub fn open_by<A: ModuleAbi>(self) -> Result<Xen> {
        let control = complete(Control::open()?, |control| control.info().complete)?;
        self.serve_by_module::<A>(Arc::new(LinuxHost::open()?), control)
    }

    fn serve_by_module<A: ModuleAbi>(self, host: Arc<LinuxHost>, control: Control) -> Result<Xen> {
        Xen::of_module(ModuleEngine::<A>::new(host, self.open_run_dir()?, control))
    }

    /// Opens Xen by devices that a launcher has opened, and perhaps [confined](Devices::confine) to one
    /// guest, for the guests that it names. No device is opened and xenstore is not asked, so the
    /// process needs neither root's rights nor their files.
    ///
    /// The kernel engine serves if the module is among the devices, else the userspace engine, unless
    /// [`Builder::engine`] names one. The run directory is one that this process may write; engines that
    /// use another one do not see the guest's lock, and only the module keeps them away. By default
    /// there is no guardian: one without root's rights could do nothing, so the launcher reaps
    /// ([`Builder::reap`] with that directory) when the process has ended, and before it starts another,
    /// as confined devices cannot recover what a dead engine left.
    ///
    /// # Errors
    /// As [`Builder::open`]. A guest to which the devices are not confined is refused when it is asked
    /// for: [`Error::Host`] with [`rustix::io::Errno::PERM`].
    ///
    /// ```no_run
    /// use xen_eventfd::{Devices, DomId, KnownGuest, Xen};
    ///
    /// // The launcher, as root:
    /// let (devices, xen) = (Devices::open()?, Xen::new()?);
    /// let guest = KnownGuest::ask(&**xen.host(), DomId(5))?;
    /// devices.confine(DomId(5))?;
    ///
    /// // A process that has inherited the descriptors, or this one with its privileges dropped:
    /// let xen = Xen::builder().run_dir("/run/backend-5").open_with(devices, [guest])?;
    /// let guest = xen.guest(DomId(5))?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn open_with(
        self,
        devices: Devices,
        guests: impl IntoIterator<Item = KnownGuest>,
    ) -> Result<Xen> {
        let Devices { privcmd, evtchn, mut more_evtchns, module, .. } = devices;
        more_evtchns.push(evtchn);
        let host = Arc::new(LinuxHost::handed(privcmd, more_evtchns, guests));
        let control = module.map(Control::over).transpose()?;
        match (self.engine.unwrap_or_default(), control) {
            (EngineKind::Auto | EngineKind::Kernel, Some(control)) => {
                let control = complete(control, |control| control.info().complete)?;
                self.serve_by_module::<Native>(host, control)
            }
            (EngineKind::Auto | EngineKind::Userspace, control) => {
                let reserve = control.map_or(Reserve::No, Reserve::Handed);
                self.serve(host, reserve, Guardian::None)
            }
            (EngineKind::Kernel, None) => {
                Err(Error::NoEngine("the kernel module was not handed over".to_owned()))
            }
        }
    }

    /// The userspace engine.
    fn serve(self, host: Arc<dyn Host>, reserve: Reserve, guardian: Guardian) -> Result<Xen> {
        let run_dir = self.open_run_dir()?;
        let workers = match self.without_threads {
            true => Workers::Caller,
            false => Workers::Threads(self.thread_hook),
        };
        let (engine, driven) = UserspaceEngine::start(host, run_dir, reserve, workers)?;
        Ok(Xen::with(engine, self.guardian.unwrap_or(guardian), driven.map(Driver::of)))
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
    Err(error) => println!("{error}"), // what is missing, and what to do
}
"#)]
    pub fn probe(&self) -> Probe {
        Probe::ask(self.kind(), RunDir::check(self.run_dir_path()).map_err(Into::into))
    }

    /// Opens another host: the model, or a wrapper of one's own. It is served by the userspace
    /// engine.
    ///
    /// # Errors
    /// Whatever that host answers; [`Error::NoEngine`] for [`EngineKind::Kernel`], which serves this
    /// machine's Xen.
    ///
    #[doc = example!(r#"
# let other = tempfile::tempdir()?;
let host = model.client("backend"); // any Host
let xen = Xen::builder().run_dir(other.path()).open_on(host)?;
"#)]
    pub fn open_on(self, host: Arc<dyn Host>) -> Result<Xen> {
        if self.engine == Some(EngineKind::Kernel) {
            let why = "the kernel module serves this machine's Xen and no other host";
            return Err(Error::NoEngine(why.to_owned()));
        }
        self.serve(host, Reserve::No, Guardian::None)
    }

    fn open_run_dir(&self) -> Result<RunDir> {
        Ok(RunDir::open(self.run_dir_path(), Role::Doorbells)?)
    }

    fn run_dir_path(&self) -> &Path {
        self.run_dir.as_deref().unwrap_or(Path::new(run_dir::DEFAULT))
    }

    /// Reaps after engines that were killed: every guest that has a record and no living
    /// engine. Needs no engine of its own. Servers of device registers (`xen-eventfd-ioreq`) in the same
    /// directory are recovered too; a guest that has both is named twice.
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
        let reaped = ioreq::reap(host, self.run_dir_path())?.into_iter();
        Ok(reaped.map(|(dom, result)| (dom, result.map_err(Into::into))).collect())
    }
}

/// The module, if it has all that an engine needs.
fn complete<T>(module: T, is_complete: impl FnOnce(&T) -> bool) -> Result<T> {
    let lacks = "the kernel module lacks some of what an engine does; install a newer one";
    let complete = is_complete(&module);
    complete.then_some(module).ok_or_else(|| Error::NoEngine(lacks.to_owned()))
}

/// The module, if it is what serves guests. `is_complete`: whether it has all that an engine needs.
pub(crate) fn pick<T>(
    kind: EngineKind,
    open: impl FnOnce() -> xen_eventfd_host::Result<T>,
    is_complete: impl FnOnce(&T) -> bool,
) -> Result<Option<T>> {
    let module = || complete(open()?, is_complete);
    match kind {
        EngineKind::Kernel => module().map(Some),
        EngineKind::Userspace => Ok(None),
        EngineKind::Auto => match module() {
            Ok(module) => Ok(Some(module)),
            // That it could not be opened for want of memory or descriptors says nothing of the module.
            Err(why) if matches!(why.errno(), Errno::MFILE | Errno::NFILE | Errno::NOMEM) => {
                Err(why)
            }
            Err(why) => {
                tracing::debug!(%why, "the userspace engine serves");
                Ok(None)
            }
        },
    }
}

impl Xen {
    fn with(engine: impl Engine + 'static, guardian: Guardian, driver: Option<Driver>) -> Self {
        let (engine, guardian) = (Arc::new(engine), guardian.found());
        Self(Own::new(Inner { engine, guardian, driver: Mutex::new(driver) }))
    }

    /// Nothing is left when the module's engine ends, so it needs no guardian. It has no threads.
    fn of_module(engine: impl Engine + 'static) -> Result<Self> {
        Ok(Self::with(engine, Guardian::None, Some(Driver::idle()?)))
    }

    /// What the program's own event loop gives turns to, if the engine was opened
    /// [without threads](Builder::without_threads), or has none. The first call takes it.
    ///
    #[doc = example!(r#"
assert!(xen.driver().is_none(), "this engine has threads");
"#)]
    pub fn driver(&self) -> Option<Driver> {
        self.0.get().ok().and_then(|inner| lock(&inner.driver).take())
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
assert_eq!(refused.to_string(), "no domain 77; `xl list` lists all domains");
"#)]
    pub fn guest(&self, dom: DomId) -> Result<Guest> {
        let Inner { engine, guardian, .. } = self.0.get()?;
        let guard = guardian.guard(engine.run_dir().path(), Duration::ZERO)?;
        Guest::new(Arc::clone(engine), dom, guard)
    }

    /// That this is the process that opened it.
    pub(crate) fn check_process(&self) -> Result<()> {
        self.0.get().map(drop)
    }

    /// Finds a domain by its number or its name, by the rule of [`crate::DomainSelector`].
    ///
    /// # Errors
    /// [`Error::UnknownDomain`]; [`Error::AmbiguousName`].
    ///
    #[doc = example!(r#"
assert_eq!(xen.find("guest")?.id, dom);
assert_eq!(xen.find("1")?.id, dom);
assert!(matches!(xen.find("absent"), Err(Error::UnknownDomain(_))));
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
    use xen_eventfd_host::{Call, HostError};

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
    fn the_userspace_engine_does_not_ask_whether_there_is_another() {
        let opened = || -> xen_eventfd_host::Result<Control> { panic!("the device was opened") };
        assert!(matches!(pick(EngineKind::Userspace, opened, complete), Ok(None)));
    }
}
