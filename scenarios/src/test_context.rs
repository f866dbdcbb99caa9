//! What a scenario works with: guests, processes, engines, and the trace of what happened.

use crate::environment::{End, Environment, EnvironmentGuest, EnvironmentProcess};
use crate::link::Link;
use crate::roles::kill::Kill;
use crate::roles::{Ask, Role, Say, confined, engine, vmm};
use crate::{PATIENCE, Trace};
use anyhow::{Context, Result, bail, ensure};
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use std::collections::{BTreeMap, VecDeque};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};
use xen_eventfd::{Devices, DomId, EngineKind, Guardian, Port, Xen};
use xen_eventfd_guest_script::{Report, Ticks};

/// One performance of one scenario.
#[derive(Debug)]
pub struct TestContext<'a> {
    environment: &'a dyn Environment,
    /// What happened so far, as far as it is the same everywhere.
    pub trace: Trace,
}

impl std::fmt::Debug for dyn Environment + '_ {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Environment")
    }
}

impl<'a> TestContext<'a> {
    /// On this environment.
    pub fn new(environment: &'a dyn Environment) -> Self {
        Self { environment, trace: Trace::default() }
    }

    /// The environment itself.
    pub fn environment(&self) -> &dyn Environment {
        self.environment
    }

    /// Adds a line to the trace: what `who` did or saw.
    pub fn note(&mut self, who: &str, what: impl Into<String>) {
        self.trace.note(who, what);
    }

    /// Tells a person something that is not the same everywhere, and is no verdict.
    pub fn show(&self, text: &str) {
        println!("        {text}");
    }

    /// Xen with an engine in this process.
    ///
    /// # Errors
    /// No engine can run.
    pub fn xen(&self) -> Result<Xen> {
        let builder = Xen::builder().run_dir(self.environment.run_dir()).guardian(Guardian::None);
        Ok(match self.environment.engine() {
            Some(engine) => builder.engine(engine).open()?,
            None => builder.open_on(self.environment.host())?,
        })
    }

    /// Creates a guest with these script. It waits for [`Guest::start`].
    ///
    /// # Errors
    /// The script are bad, or the guest cannot be created.
    pub fn guest(&self, script: &str) -> Result<Guest> {
        let source = self.environment.guest(script)?;
        let (reports, ports, rounds, ticks) = Default::default();
        Ok(Guest { source, reports, ports, rounds, ticks, done: false })
    }

    /// Starts a device model over these bytes, in a process of its own.
    ///
    /// # Errors
    /// It could not begin.
    pub fn vmm(&self, dom: DomId, ranges: &[(vmm::Place, u64, u64)]) -> Result<Vmm> {
        let spec = vmm::Spec { dom: dom.0, ranges: ranges.to_vec() };
        let (process, server) = self.process(&Role::Vmm(spec), &[])?;
        Ok(Vmm { process, server })
    }

    /// Starts an engine in a process of its own that signals these eventfds for writes of 4 bytes,
    /// and dies where it is told to.
    ///
    /// # Errors
    /// It could not begin; an error of the library keeps its text.
    pub fn engine(
        &self,
        dom: DomId,
        doorbells: &[(u64, u32, &OwnedFd)],
        kill: Option<Kill>,
    ) -> Result<Engine> {
        let fds: Vec<BorrowedFd<'_>> = doorbells.iter().map(|(_, _, fd)| fd.as_fd()).collect();
        let doorbells = doorbells.iter().map(|(addr, value, _)| (*addr, *value)).collect();
        let engine = self.environment.engine().map(|engine| engine.to_string());
        let spec = engine::Spec { dom: dom.0, doorbells, engine, kill };
        let (process, server) = self.process(&Role::Engine(spec), &fds)?;
        Ok(Engine { process, server })
    }

    /// Opens devices, confines them to a guest, and starts an engine that has no others, in a process
    /// without privileges.
    ///
    /// # Errors
    /// It could not begin.
    pub fn confined(&self, spec: confined::Spec, kick: &OwnedFd, call: &OwnedFd) -> Result<Engine> {
        let devices = Devices::open()?;
        devices.confine(DomId(spec.dom))?;
        let fds: Vec<_> = [kick.as_fd(), call.as_fd()].into_iter().chain(devices.fds()).collect();
        let (process, server) = self.process(&Role::Confined(spec), &fds)?;
        Ok(Engine { process, server })
    }

    fn process(&self, role: &Role, fds: &[BorrowedFd<'_>]) -> Result<(Process, u16)> {
        let mut process = Process(self.environment.process()?);
        process.0.link().send(role, fds)?;
        match process.hear()? {
            Some(Say::Ready { server }) => Ok((process, server)),
            Some(Say::Failed { why, .. }) => bail!("{why}"),
            Some(other) => bail!("a process began with {other:?}"),
            None => bail!("a process ended before it began: {:?}", process.0.wait()?),
        }
    }

    /// Waits until an engine has noticed that its guest died. `false`: it has not, in time.
    ///
    /// # Errors
    /// It cannot be waited for.
    pub fn notices_death(&self, guest: &xen_eventfd::Guest) -> Result<bool> {
        if self.environment.engine() == Some(EngineKind::Privcmd) {
            // The patch has no news of it: this engine notices when it is asked something.
            let since = Instant::now();
            while guest.is_served() && since.elapsed() < PATIENCE {
                std::thread::sleep(Duration::from_millis(20));
            }
        }
        readable(guest.gone(), PATIENCE)
    }

    /// Waits until no dead domain is kept by anybody.
    ///
    /// # Errors
    /// Somebody still holds one.
    pub fn no_zombies(&self) -> Result<()> {
        let since = Instant::now();
        loop {
            let zombies = self.environment.zombies()?;
            if zombies.is_empty() {
                return Ok(());
            }
            ensure!(since.elapsed() < PATIENCE, "zombies are left: {zombies:?}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// A new eventfd, as a backend makes one.
///
/// # Errors
/// Out of descriptors.
pub fn new_eventfd() -> Result<OwnedFd> {
    Ok(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?)
}

/// What an eventfd has counted; 0 if nothing.
///
/// # Errors
/// It cannot be read.
pub fn taken(fd: &OwnedFd) -> Result<u64> {
    let mut count = [0; 8];
    match rustix::io::read(fd, &mut count) {
        Ok(_) => Ok(u64::from_ne_bytes(count)),
        Err(rustix::io::Errno::AGAIN) => Ok(0),
        Err(errno) => Err(errno.into()),
    }
}

/// Adds 1 to an eventfd.
///
/// # Errors
/// It is full.
pub fn signal(fd: &OwnedFd) -> Result<()> {
    rustix::io::write(fd, &1_u64.to_ne_bytes())?;
    Ok(())
}

/// Waits until a descriptor is readable. `false`: it is not, in time.
///
/// # Errors
/// It cannot be waited for.
pub fn readable(fd: impl AsFd, patience: Duration) -> Result<bool> {
    let mut fds = [PollFd::new(&fd, PollFlags::IN)];
    Ok(poll(&mut fds, Some(&Timespec::try_from(patience)?))? > 0)
}

/// Waits until an eventfd has counted `wanted` in all; returns what it has.
///
/// # Errors
/// It does not come so far.
pub fn await_count(fd: &OwnedFd, wanted: u64) -> Result<u64> {
    let mut count = 0;
    while count < wanted {
        ensure!(readable(fd, PATIENCE)?, "only {count} of {wanted} signals came");
        count += taken(fd)?;
    }
    Ok(count)
}

/// Waits until a vCPU that rings something and then its beat, in turn, has rung that from now on. If
/// its eventfd were to be signalled, it has been when this returns.
///
/// # Errors
/// The beat does not come.
pub fn rung_again(beat: &OwnedFd) -> Result<()> {
    taken(beat)?;
    // Between two beats it rings the other once, and each kick is answered before the next.
    await_count(beat, 2).map(drop)
}

/// A guest that carries out script.
pub struct Guest {
    source: Box<dyn EnvironmentGuest>,
    /// What each vCPU said.
    reports: BTreeMap<String, Vec<String>>,
    ports: BTreeMap<String, Port>,
    rounds: BTreeMap<String, u64>,
    ticks: VecDeque<Ticks>,
    done: bool,
}

impl std::fmt::Debug for Guest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Guest").field("reports", &self.reports).finish_non_exhaustive()
    }
}

impl Guest {
    /// Its number.
    pub fn dom(&self) -> DomId {
        self.source.dom()
    }

    /// Lets it run.
    ///
    /// # Errors
    /// It does not.
    pub fn start(&mut self) -> Result<()> {
        self.source.start()
    }

    /// Destroys it.
    ///
    /// # Errors
    /// It could not be destroyed.
    pub fn destroy(&mut self) -> Result<()> {
        self.source.destroy()
    }

    /// Takes the next line that it says.
    fn hear(&mut self) -> Result<()> {
        let line = self.source.line(PATIENCE)?;
        let line =
            line.with_context(|| format!("the guest fell silent after {:?}", self.reports))?;
        self.heard(&line)
    }

    fn heard(&mut self, line: &str) -> Result<()> {
        let who = line.split(' ').next().unwrap_or_default().to_owned();
        let told = match Report::parse(line) {
            Ok(Report::Port { name, port, .. }) => {
                self.ports.insert(name.to_owned(), Port(port));
                format!("port {name}")
            }
            // How often, and how long, is not the same everywhere.
            Ok(Report::Rounds { name, rounds, .. }) => {
                *self.rounds.entry(name.to_owned()).or_default() += rounds;
                format!("rounds {name}")
            }
            Ok(Report::Ticks { ticks, .. }) => {
                self.ticks.push_back(ticks);
                "ticks".to_owned()
            }
            Ok(Report::GuestDone) => {
                self.done = true;
                return Ok(());
            }
            Ok(Report::Error { .. } | Report::Fault { .. }) => bail!("{line}"),
            Ok(_) => line.split_once(' ').map(|(_, what)| what.to_owned()).unwrap_or_default(),
            // Xen's own console may put a line of its own in between.
            Err(_) => return Ok(()),
        };
        self.reports.entry(who).or_default().push(told);
        Ok(())
    }

    /// Waits until all its vCPUs are done.
    ///
    /// # Errors
    /// It does not come to its end.
    pub fn finish(&mut self) -> Result<()> {
        while !self.done {
            self.hear()?;
        }
        Ok(())
    }

    /// Whether a vCPU has said `words` up to now.
    ///
    /// # Errors
    /// It has something worse to say.
    pub fn has_said(&mut self, vcpu: usize, words: &str) -> Result<bool> {
        while let Some(line) = self.source.line(Duration::ZERO)? {
            self.heard(&line)?;
        }
        let (who, what) = (format!("v{vcpu}"), format!("say {words}"));
        Ok(self.reports.get(&who).is_some_and(|lines| lines.contains(&what)))
    }

    /// Waits until a vCPU has said `words`.
    ///
    /// # Errors
    /// It does not.
    pub fn said(&mut self, vcpu: usize, words: &str) -> Result<()> {
        let (who, what) = (format!("v{vcpu}"), format!("say {words}"));
        while !self.reports.get(&who).is_some_and(|lines| lines.contains(&what)) {
            ensure!(!self.done, "the guest ended and never said {words:?}");
            self.hear()?;
        }
        Ok(())
    }

    /// Waits until the guest has allocated the event channel of this name.
    ///
    /// # Errors
    /// It does not.
    pub fn port(&mut self, name: &str) -> Result<Port> {
        loop {
            if let Some(port) = self.ports.get(name) {
                return Ok(*port);
            }
            ensure!(!self.done, "the guest ended without a port {name:?}");
            self.hear()?;
        }
    }

    /// How often the loops that this listener ended have run.
    pub fn rounds(&self, name: &str) -> u64 {
        self.rounds.get(name).copied().unwrap_or(0)
    }

    /// Waits for the next measurement that it tells.
    ///
    /// # Errors
    /// It does not.
    pub fn measured(&mut self) -> Result<Ticks> {
        loop {
            if let Some(ticks) = self.ticks.pop_front() {
                return Ok(ticks);
            }
            ensure!(!self.done, "the guest ended without a measurement");
            self.hear()?;
        }
    }

    /// Puts what it said into the trace, vCPU by vCPU.
    pub fn tell(&self, test: &mut TestContext<'_>) {
        for (who, lines) in &self.reports {
            for line in lines {
                test.note(who, line.clone());
            }
        }
    }
}

/// A process with a role.
struct Process(Box<dyn EnvironmentProcess>);

impl std::fmt::Debug for Process {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Process")
    }
}

impl Process {
    fn link(&self) -> &Link {
        self.0.link()
    }

    fn hear(&self) -> Result<Option<Say>> {
        Ok(self.link().receive(PATIENCE)?.map(|(said, _)| said))
    }

    fn stop(&mut self) -> Result<()> {
        self.link().send(&Ask::Stop, &[])?;
        while let Some(said) = self.hear()? {
            if let Say::Failed { why, .. } = said {
                bail!("a process did not end well: {why}");
            }
        }
        self.ended(End::Left)
    }

    /// Waits until it has ended, like this.
    fn ended(&mut self, expected: End) -> Result<()> {
        let end = self.0.wait()?;
        ensure!(end == expected, "a process ended otherwise than expected: {end:?}");
        Ok(())
    }
}

/// A device model in a process of its own. Dropping it stops it.
#[derive(Debug)]
pub struct Vmm {
    process: Process,
    /// The id of its ioreq server.
    pub server: u16,
}

impl Vmm {
    /// Its process.
    pub fn pid(&self) -> u32 {
        self.process.0.pid()
    }

    /// What it has seen so far.
    ///
    /// # Errors
    /// It is gone.
    pub fn seen(&self) -> Result<vmm::Seen> {
        self.process.link().send(&Ask::Report, &[])?;
        match self.process.hear()? {
            Some(Say::Vmm(seen)) => Ok(seen),
            other => bail!("the VMM says {other:?}"),
        }
    }

    /// Stops it in good order.
    ///
    /// # Errors
    /// It failed on the way.
    pub fn stop(mut self) -> Result<()> {
        self.process.stop()
    }
}

/// An engine in a process of its own. Dropping it stops it.
#[derive(Debug)]
pub struct Engine {
    process: Process,
    /// The id of its ioreq server.
    pub server: u16,
}

impl Engine {
    /// SIGKILL.
    ///
    /// # Errors
    /// It is gone already.
    pub fn kill(mut self) -> Result<()> {
        self.process.0.kill()
    }

    /// Waits until it has died by its own kill_point.
    ///
    /// # Errors
    /// It lives.
    pub fn died(mut self) -> Result<()> {
        match self.process.hear()? {
            None => self.process.ended(End::Killed),
            Some(said) => bail!("the engine says {said:?} instead of dying"),
        }
    }

    /// Waits until it has left in good order, by itself.
    ///
    /// # Errors
    /// It does not, or it failed on the way.
    pub fn left(mut self) -> Result<()> {
        match self.process.hear()? {
            None => self.process.ended(End::Left),
            Some(said) => bail!("the engine says {said:?} instead of leaving"),
        }
    }

    /// Stops it in good order.
    ///
    /// # Errors
    /// It failed on the way.
    pub fn stop(mut self) -> Result<()> {
        self.process.stop()
    }
}
