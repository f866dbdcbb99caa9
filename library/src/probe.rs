//! What can serve guests on this machine, by the calls that an engine makes when it opens.

use crate::guardian::find_for_others;
use crate::xen::pick;
use crate::{EngineKind, Result};
use std::path::PathBuf;
use std::sync::mpsc;
use std::time::Duration;
use xen_eventfd_host::linux::LinuxHost;
use xen_eventfd_host::linux::eventfd::{Control, Info};
use xen_eventfd_host::{Call, Errno, HostError, aio, features};
use xen_eventfd_ioreq::reservable;

/// How long an answer may take. xenstore has 5 s of its own; a driver has no limit, and the kernel
/// may hold a process in an `open`.
const LIMIT: Duration = Duration::from_secs(8);

/// What each part that an engine needs has answered: see [`Builder::probe`](crate::Builder::probe).
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Probe {
    /// The engine that is asked for; an error if there is none of that name.
    pub asked: Result<EngineKind>,
    /// The kernel module: its device is opened and asked for its version and what it can do.
    pub module: xen_eventfd_host::Result<ModuleInfo>,
    /// `/dev/xen/privcmd`, `/dev/xen/evtchn` and xenstore, opened.
    pub host: xen_eventfd_host::Result<()>,
    /// Xen's ioreq servers, without which no engine serves a guest.
    pub ioreq_servers: xen_eventfd_host::Result<()>,
    /// xenstore, connected to and asked a question.
    pub xenstore: xen_eventfd_host::Result<()>,
    /// Asynchronous I/O, by which the userspace engine signals eventfds.
    pub signaller: xen_eventfd_host::Result<()>,
    /// What Linux must have beyond the devices: see [`xen_eventfd_host::features`].
    pub kernel: xen_eventfd_host::Result<()>,
    /// The directory of locks and records: there, or such that it can be made.
    pub run_dir: Result<()>,
    /// The program that [`Guardian::Auto`](crate::Guardian::Auto) starts in a program that does not lie
    /// beside the `xen-eventfd` command. One that [`GUARDIAN_VARIABLE`](crate::GUARDIAN_VARIABLE)
    /// names need not be there.
    pub guardian: Option<PathBuf>,
}

/// What the kernel module reports of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct ModuleInfo {
    /// The version of its interface.
    pub abi: u32,
    /// Whether it has all that an engine needs: doorbells, interrupts and channels.
    pub complete: bool,
}

impl ModuleInfo {
    /// What a module of this version reports.
    pub fn new(abi: u32, complete: bool) -> Self {
        Self { abi, complete }
    }
}

impl From<&Info> for ModuleInfo {
    fn from(info: &Info) -> Self {
        Self { abi: info.abi, complete: info.complete }
    }
}

impl Probe {
    /// A machine on which everything answers, without the kernel module. To see what is picked where
    /// something does not, set that field.
    ///
    /// ```
    /// use xen_eventfd::{EngineKind, ModuleInfo, Probe};
    /// let mut probe = Probe::answering(EngineKind::Auto);
    /// assert_eq!(probe.engine()?, EngineKind::Userspace);
    /// probe.module = Ok(ModuleInfo::new(1, true));
    /// assert_eq!(probe.engine()?, EngineKind::Kernel);
    /// # Ok::<(), xen_eventfd::Error>(())
    /// ```
    pub fn answering(asked: EngineKind) -> Self {
        Self {
            asked: Ok(asked),
            module: Err(HostError::new(Call::Open("/dev/xen/eventfd"), Errno::NOENT)),
            host: Ok(()),
            ioreq_servers: Ok(()),
            xenstore: Ok(()),
            signaller: Ok(()),
            kernel: Ok(()),
            run_dir: Ok(()),
            guardian: None,
        }
    }

    /// Asks this machine. What does not answer in time counts as [`Errno::TIMEDOUT`].
    pub(crate) fn ask(asked: Result<EngineKind>, run_dir: Result<()>) -> Self {
        let module = begin(LIMIT, Call::Open("/dev/xen/eventfd"), || {
            Control::open().map(|control| control.info().into())
        });
        let host = begin(LIMIT, Call::Open("/dev/xen/privcmd"), || {
            // Of a Xen that cannot be asked nothing is said.
            LinuxHost::open().map(|host| host.check_ioreq_servers())
        });
        let xenstore = begin(
            LIMIT,
            Call::Xenstore("domid".to_owned()),
            xen_eventfd_host::linux::check_xenstore,
        );
        let signaller = aio::Context::new().map(drop);
        let kernel = features::check_engine();
        let (module, host, xenstore) = (module(), host(), xenstore());
        let (host, ioreq_servers) = match host {
            Ok(ioreq_servers) => (Ok(()), ioreq_servers),
            Err(error) => (Err(error), Ok(())),
        };
        let guardian = find_for_others();
        #[rustfmt::skip]
        return Self {
            asked, module, host, ioreq_servers, xenstore, signaller, kernel, run_dir, guardian,
        };
    }

    /// The engine that serves a guest of [`Builder::open`](crate::Builder::open) and
    /// [`Xen::guest`](crate::Xen::guest), or why none can.
    ///
    /// # Errors
    /// What those would fail with on this machine.
    pub fn engine(&self) -> Result<EngineKind> {
        let asked = self.asked.clone()?;
        let module = pick(asked, || self.module.clone(), |info| info.complete)?;
        self.host.clone()?;
        self.ioreq_servers.clone()?;
        self.xenstore.clone()?;
        self.run_dir.clone()?;
        if module.is_some() {
            return Ok(EngineKind::Kernel);
        }
        // It reserves its guests in the module, if that is there.
        reservable(self.module.clone())?;
        self.signaller.clone()?;
        self.kernel.clone()?;
        Ok(EngineKind::Userspace)
    }

    /// The same, if this engine were asked for.
    ///
    /// # Errors
    /// As [`Probe::engine`].
    pub fn engine_if_asked(&self, asked: EngineKind) -> Result<EngineKind> {
        Self { asked: Ok(asked), ..self.clone() }.engine()
    }
}

/// Asks in a thread of its own, which is left behind if no answer comes. The result waits for it.
fn begin<T: Send + 'static>(
    limit: Duration,
    call: Call,
    ask: impl FnOnce() -> xen_eventfd_host::Result<T> + Send + 'static,
) -> impl FnOnce() -> xen_eventfd_host::Result<T> {
    let (tell, answer) = mpsc::channel();
    std::thread::spawn(move || _ = tell.send(ask()));
    move || answer.recv_timeout(limit).unwrap_or(Err(HostError::new(call, Errno::TIMEDOUT)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_module(answer: xen_eventfd_host::Result<ModuleInfo>) -> Probe {
        Probe { module: answer, ..Probe::answering(EngineKind::Auto) }
    }

    fn refused(errno: Errno) -> xen_eventfd_host::Result<ModuleInfo> {
        Err(HostError::new(Call::Open("/dev/xen/eventfd"), errno))
    }

    #[test]
    fn a_module_that_lacks_features_is_not_picked() {
        let old = with_module(Ok(ModuleInfo::new(1, false)));
        assert_eq!(old.engine().unwrap(), EngineKind::Userspace);
        let asked = old.engine_if_asked(EngineKind::Kernel).unwrap_err();
        assert!(asked.to_string().contains("lacks"), "{asked}");
    }

    #[test]
    fn a_module_of_another_version_serves_nothing_and_no_guest_can_be_reserved_in_it() {
        for kind in [EngineKind::Auto, EngineKind::Kernel, EngineKind::Userspace] {
            let why = with_module(refused(Errno::PROTO)).engine_if_asked(kind).unwrap_err();
            assert!(why.to_string().contains("another version of the module"), "{why}");
        }
    }

    #[test]
    fn without_xenstore_no_engine_takes_a_guest() {
        let silent = HostError::new(Call::Xenstore("domid".to_owned()), Errno::TIMEDOUT);
        for module in [Ok(ModuleInfo::new(1, true)), refused(Errno::NOENT)] {
            let probe = Probe { xenstore: Err(silent.clone()), ..with_module(module) };
            let why = probe.engine().unwrap_err();
            assert!(why.to_string().contains("xenstore"), "{why}");
        }
    }

    #[test]
    fn a_xen_without_ioreq_servers_has_no_engine_and_the_error_says_what_to_boot() {
        for module in [Ok(ModuleInfo::new(1, true)), refused(Errno::NOENT)] {
            let none = HostError::new(Call::IoreqServers, Errno::NOSYS);
            let probe = Probe { ioreq_servers: Err(none), ..with_module(module) };
            let why = probe.engine().unwrap_err().to_string();
            assert!(why.contains("built without CONFIG_IOREQ_SERVER"), "{why}");
        }
    }

    #[test]
    fn what_userspace_alone_needs_does_not_hinder_the_module() {
        let failed = HostError::new(Call::EventFd, Errno::NOSYS);
        let mut probe = with_module(Ok(ModuleInfo::new(1, true)));
        probe.signaller = Err(failed);
        assert_eq!(probe.engine().unwrap(), EngineKind::Kernel);
        assert!(probe.engine_if_asked(EngineKind::Userspace).is_err());
    }

    #[test]
    fn a_kernel_that_is_too_old_for_userspace_is_reported_and_the_module_does_without() {
        let lacks = features::Feature::ReadWithoutWaiting;
        let mut probe = with_module(Ok(ModuleInfo::new(1, true)));
        probe.kernel = Err(HostError::new(Call::Kernel(lacks), Errno::OPNOTSUPP));
        assert_eq!(probe.engine().unwrap(), EngineKind::Kernel);
        let why = probe.engine_if_asked(EngineKind::Userspace).unwrap_err();
        assert!(why.to_string().contains("Linux 5.8"), "{why}");
    }

    #[test]
    fn what_never_answers_is_not_waited_for() {
        let (answer, never) = mpsc::channel::<()>();
        let call = Call::Open("/dev/xen/eventfd");
        let asked = begin(Duration::from_millis(10), call, move || Ok(never.recv().is_err()));
        assert_eq!(asked().unwrap_err().errno, Errno::TIMEDOUT);
        drop(answer);
    }

    #[test]
    fn an_engine_that_does_not_exist_is_none() {
        let mut probe = Probe::answering(EngineKind::Auto);
        probe.asked = "steam".parse();
        assert!(probe.engine().unwrap_err().to_string().contains("steam"));
    }
}
