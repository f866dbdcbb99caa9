//! The context of a scenario: guests, processes, engines, and the trace.

use crate::environment::{End, Environment, EnvironmentGuest, EnvironmentProcess};
use crate::link::Link;
use crate::roles::kill::Kill;
use crate::roles::{HelperCommand, HelperReply, Role, confined, engine, vmm};
use crate::{PATIENCE, Trace};
use anyhow::{Context, Result, bail, ensure};
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use std::collections::{BTreeMap, VecDeque};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};
use xen_eventfd::{Devices, DomId, Guardian, Port, Xen};
use xen_eventfd_core::irq::Arch;
use xen_eventfd_guest_script::{Report, Ticks};

/// One run of one scenario.
#[derive(Debug)]
pub struct TestContext<'a> {
    environment: &'a dyn Environment,
    /// What happened so far, as far as it is equal in every environment.
    pub trace: Trace,
}

impl std::fmt::Debug for dyn Environment + '_ {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Environment")
    }
}

impl<'a> TestContext<'a> {
    /// In this environment.
    pub fn new(environment: &'a dyn Environment) -> Self {
        Self { environment, trace: Trace::default() }
    }

    /// The environment itself.
    pub fn environment(&self) -> &dyn Environment {
        self.environment
    }

    /// The architecture of its guests.
    pub fn arch(&self) -> Arch {
        self.environment.host().arch()
    }

    /// Adds a line to the trace: what `who` did or saw.
    pub fn note(&mut self, who: &str, what: impl Into<String>) {
        self.trace.note(who, what);
    }

    /// Prints a line that differs between environments and is not judged.
    pub fn print(&self, text: &str) {
        println!("        {text}");
    }

    /// Xen with an engine in this process.
    ///
    /// # Errors
    /// No engine can run.
    pub fn xen(&self) -> Result<Xen> {
        let builder = Xen::builder().run_dir(self.environment.run_dir()).guardian(Guardian::None);
        Ok(match self.environment.engine() {
            Some(engine) => engine.open(builder)?,
            None => builder.open_on(self.environment.host())?,
        })
    }

    /// Creates a guest with this script. It waits for [`Guest::start`].
    ///
    /// # Errors
    /// The script is invalid, or the guest cannot be created.
    pub fn guest(&self, script: &str) -> Result<Guest> {
        let source = self.environment.guest(script)?;
        let (reports, ports, rounds, ticks) = Default::default();
        Ok(Guest { source, reports, ports, rounds, ticks, done: false })
    }

    /// Starts a device model over these ranges, in a process of its own.
    ///
    /// # Errors
    /// It could not start.
    pub fn vmm(&self, dom: DomId, ranges: &[(vmm::Place, u64, u64)]) -> Result<Vmm> {
        let spec = vmm::Spec { dom: dom.0, ranges: ranges.to_vec() };
        let (process, server) = self.process(&Role::Vmm(spec), &[])?;
        Ok(Vmm { process, server })
    }

    /// Starts an engine in a process of its own that signals these eventfds for writes of 4 bytes,
    /// and dies at `kill`, if given.
    ///
    /// # Errors
    /// It could not start; an error of the library keeps its text.
    pub fn engine(
        &self,
        dom: DomId,
        doorbells: &[(u64, u32, &OwnedFd)],
        kill: Option<Kill>,
    ) -> Result<Engine> {
        let fds: Vec<BorrowedFd<'_>> = doorbells.iter().map(|(_, _, fd)| fd.as_fd()).collect();
        let doorbells = doorbells.iter().map(|(addr, value, _)| (*addr, *value)).collect();
        let engine = self.environment.engine();
        let spec = engine::Spec { dom: dom.0, doorbells, engine, kill };
        let (process, server) = self.process(&Role::Engine(spec), &fds)?;
        Ok(Engine { process, server })
    }

    /// Opens devices, confines them to a guest, and starts an engine that has no others, in a process
    /// without privileges.
    ///
    /// # Errors
    /// It could not start.
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
        match process.receive()? {
            Some(HelperReply::Ready { server }) => Ok((process, server)),
            Some(HelperReply::Failed { why, .. }) => bail!("{why}"),
            Some(other) => bail!("the first message of a process is {other:?}"),
            None => bail!("a process ended before it was ready: {:?}", process.0.wait()?),
        }
    }

    /// Waits until an engine has noticed that its guest died. `false` on timeout.
    ///
    /// # Errors
    /// It cannot be waited for.
    pub fn notices_death(&self, guest: &xen_eventfd::Guest) -> Result<bool> {
        if self.environment.engine() == Some(crate::Engine::Privcmd) {
            // The privcmd ABI does not report it: this engine notices at its next request.
            let since = Instant::now();
            while guest.is_served() && since.elapsed() < PATIENCE {
                std::thread::sleep(Duration::from_millis(20));
            }
        }
        readable(guest.gone(), PATIENCE)
    }

    /// Waits until no zombie is left.
    ///
    /// # Errors
    /// A domain stays a zombie.
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

/// Reads and clears an eventfd's counter; 0 if it is empty.
///
/// # Errors
/// It cannot be read.
pub fn take_count(fd: &OwnedFd) -> Result<u64> {
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

/// Waits until a descriptor is readable. `false` on timeout.
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
/// The counter does not reach it in time.
pub fn await_count(fd: &OwnedFd, wanted: u64) -> Result<u64> {
    let mut count = 0;
    while count < wanted {
        ensure!(readable(fd, PATIENCE)?, "only {count} of {wanted} signals came");
        count += take_count(fd)?;
    }
    Ok(count)
}

/// Waits until a vCPU that kicks a doorbell and then its beat, in turn, has kicked the doorbell from
/// now on. If the doorbell's eventfd were to be signalled, it has been when this returns.
///
/// # Errors
/// The beat does not come.
pub fn await_next_beat(beat: &OwnedFd) -> Result<()> {
    take_count(beat)?;
    // Between two beats it kicks the other doorbell once, and each kick is answered before the next.
    await_count(beat, 2).map(drop)
}

/// A guest that carries out its script.
pub struct Guest {
    source: Box<dyn EnvironmentGuest>,
    /// The reports of each vCPU.
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
    /// Its domain id.
    pub fn dom(&self) -> DomId {
        self.source.dom()
    }

    /// Starts it.
    ///
    /// # Errors
    /// It does not start.
    pub fn start(&mut self) -> Result<()> {
        self.source.start()
    }

    /// Stops its vCPUs until [`Guest::unpause`].
    ///
    /// # Errors
    /// It is gone.
    pub fn pause(&mut self) -> Result<()> {
        self.source.pause()
    }

    /// Lets it run after [`Guest::pause`].
    ///
    /// # Errors
    /// It is gone.
    pub fn unpause(&mut self) -> Result<()> {
        self.source.unpause()
    }

    /// Destroys it.
    ///
    /// # Errors
    /// It could not be destroyed.
    pub fn destroy(&mut self) -> Result<()> {
        self.source.destroy()
    }

    /// Reads the next line of its console.
    fn read_report(&mut self) -> Result<()> {
        let line = self.source.line(PATIENCE)?;
        let line = line
            .with_context(|| format!("the guest's console is silent after {:?}", self.reports))?;
        self.record(&line)
    }

    fn record(&mut self, line: &str) -> Result<()> {
        let who = line.split(' ').next().unwrap_or_default().to_owned();
        let report = match Report::parse(line) {
            Ok(Report::Port { name, port, .. }) => {
                self.ports.insert(name.to_owned(), Port(port));
                format!("port {name}")
            }
            // How often, and how long, differs between environments.
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
            // Xen's own console may write a line in between.
            Err(_) => return Ok(()),
        };
        self.reports.entry(who).or_default().push(report);
        Ok(())
    }

    /// Waits until all its vCPUs are done.
    ///
    /// # Errors
    /// It does not finish in time.
    pub fn finish(&mut self) -> Result<()> {
        while !self.done {
            self.read_report()?;
        }
        Ok(())
    }

    /// Whether a vCPU has reported `words` up to now.
    ///
    /// # Errors
    /// It has reported an error.
    pub fn has_message(&mut self, vcpu: usize, words: &str) -> Result<bool> {
        while let Some(line) = self.source.line(Duration::ZERO)? {
            self.record(&line)?;
        }
        let (who, what) = (format!("v{vcpu}"), format!("say {words}"));
        Ok(self.reports.get(&who).is_some_and(|lines| lines.contains(&what)))
    }

    /// Waits until a vCPU has reported `words`.
    ///
    /// # Errors
    /// It does not in time.
    pub fn await_message(&mut self, vcpu: usize, words: &str) -> Result<()> {
        let (who, what) = (format!("v{vcpu}"), format!("say {words}"));
        while !self.reports.get(&who).is_some_and(|lines| lines.contains(&what)) {
            ensure!(!self.done, "the guest ended and did not report {words:?}");
            self.read_report()?;
        }
        Ok(())
    }

    /// What a vCPU has reported, each line without its name.
    pub fn reports(&self, vcpu: usize) -> &[String] {
        self.reports.get(&format!("v{vcpu}")).map_or(&[], Vec::as_slice)
    }

    /// Waits until the guest has allocated the event channel of this name.
    ///
    /// # Errors
    /// It does not in time.
    pub fn port(&mut self, name: &str) -> Result<Port> {
        loop {
            if let Some(port) = self.ports.get(name) {
                return Ok(*port);
            }
            ensure!(!self.done, "the guest ended without a port {name:?}");
            self.read_report()?;
        }
    }

    /// How often the loops that this listener ended have run.
    pub fn rounds(&self, name: &str) -> u64 {
        self.rounds.get(name).copied().unwrap_or(0)
    }

    /// Waits for the next measurement that it reports.
    ///
    /// # Errors
    /// It reports none in time.
    pub fn measured(&mut self) -> Result<Ticks> {
        loop {
            if let Some(ticks) = self.ticks.pop_front() {
                return Ok(ticks);
            }
            ensure!(!self.done, "the guest ended without a measurement");
            self.read_report()?;
        }
    }

    /// Puts its reports into the trace, vCPU by vCPU.
    pub fn trace_reports(&self, test: &mut TestContext<'_>) {
        for (who, lines) in &self.reports {
            // Whether an Arm guest's access finds no server depends on time where servers come and go.
            let aborted = |line: &String| line.starts_with("abort ");
            for line in lines.iter().filter(|line| !aborted(line)) {
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

    fn receive(&self) -> Result<Option<HelperReply>> {
        Ok(self.link().receive(PATIENCE)?.map(|(reply, _)| reply))
    }

    fn stop(&mut self) -> Result<()> {
        self.link().send(&HelperCommand::Stop, &[])?;
        while let Some(reply) = self.receive()? {
            if let HelperReply::Failed { why, .. } = reply {
                bail!("a process failed: {why}");
            }
        }
        self.ended(End::Left)
    }

    /// Waits until it has ended in this way.
    fn ended(&mut self, expected: End) -> Result<()> {
        let end = self.0.wait()?;
        ensure!(end == expected, "a process ended in another way than expected: {end:?}");
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
        self.process.link().send(&HelperCommand::Report, &[])?;
        match self.process.receive()? {
            Some(HelperReply::Vmm(seen)) => Ok(seen),
            other => bail!("the VMM sent {other:?}"),
        }
    }

    /// Stops it cleanly.
    ///
    /// # Errors
    /// It failed while stopping.
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
    /// Sends SIGKILL.
    ///
    /// # Errors
    /// It has ended already.
    pub fn kill(mut self) -> Result<()> {
        self.process.0.kill()
    }

    /// Waits until it has died at its own kill point.
    ///
    /// # Errors
    /// It still runs.
    pub fn died(mut self) -> Result<()> {
        match self.process.receive()? {
            None => self.process.ended(End::Killed),
            Some(reply) => bail!("the engine sent {reply:?} instead of dying"),
        }
    }

    /// Waits until it has ended cleanly, by itself.
    ///
    /// # Errors
    /// It does not end, or it failed.
    pub fn left(mut self) -> Result<()> {
        match self.process.receive()? {
            None => self.process.ended(End::Left),
            Some(reply) => bail!("the engine sent {reply:?} instead of ending"),
        }
    }

    /// Stops it cleanly.
    ///
    /// # Errors
    /// It failed while stopping.
    pub fn stop(mut self) -> Result<()> {
        self.process.stop()
    }
}
