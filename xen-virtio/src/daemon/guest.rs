//! One guest: held until its devices are served, then watched over until it is gone.

use crate::daemon::config::{GuestEntry, Resolved};
use crate::daemon::process::{Process, Supervised};
use crate::daemon::record::{Pause, Phase, Record, StateDir};
use crate::daemon::store::{Line, Seen, Store, XenbusState};
use crate::daemon::{Event, Happened};
use crate::error::Result;
use crate::toolstack::Xl;
use core::fmt;
use std::ffi::OsString;
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};
use xen_eventfd_core::DomId;

/// How long a backend may take until its socket is there.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);
/// How long `serve` may take to notice that its guest is gone.
pub(super) const END_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a guest's vCPUs wait for devices whose `serve` has ended, in seconds: longer than it takes to start it again.
const TAKEOVER_TIME: &str = "30";
/// How often what has no descriptor is looked at: a socket, a file.
const PERIOD: Duration = Duration::from_millis(50);

/// What a guest's devices are served with.
pub(crate) struct Tools {
    pub(crate) xl: Xl,
    /// Has a guest reboot, whatever it does.
    pub(crate) reboot: Box<dyn Fn(DomId) -> Result<()>>,
    /// `xen-virtio`, with its global options.
    pub(crate) serve: Vec<OsString>,
    pub(crate) state: StateDir,
}

impl fmt::Debug for Tools {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tools").field("serve", &self.serve).finish_non_exhaustive()
    }
}

/// A guest.
#[derive(Debug)]
pub(crate) struct Guest {
    record: Record,
    server: Supervised,
    backends: Vec<Backend>,
    /// `serve` was started and has not said yet that it serves.
    announces: bool,
    /// Since when the guest is gone, or was found to be there without xenstore's knowledge.
    gone: Option<Instant>,
    /// It was found to be there without xenstore's knowledge.
    is_lost: bool,
}

/// A device's backend.
#[derive(Debug, Default)]
struct Backend {
    process: Supervised,
    /// Since when it is to have its socket. `None`: it was seen to have it.
    awaited: Option<Instant>,
}

/// Whether a process has the socket of this path: it listens there, or is connected, though the path may be gone. One that
/// serves a single connection listens no more, and a connection that is kept for the next `serve` is never seen to end.
fn has_socket(path: &Path) -> bool {
    // The socket of a connection has the name of the one that listened.
    let name = [b" ", path.as_os_str().as_bytes()].concat();
    let is_connected =
        |table: Vec<u8>| table.split(|byte| *byte == b'\n').any(|line| line.ends_with(&name));
    path.exists() || std::fs::read("/proc/net/unix").is_ok_and(is_connected)
}

impl Backend {
    /// Since when it is to have its socket, if it runs and has not got it yet.
    fn awaited_since(&self) -> Option<Instant> {
        self.awaited.filter(|_| self.process.process().is_some())
    }

    fn is_late(&self, now: Instant) -> bool {
        let is_over = |since| now.saturating_duration_since(since) > PATIENCE;
        self.awaited_since().is_some_and(is_over)
    }
}

impl Guest {
    /// Holds a guest: it does not run before it is served.
    ///
    /// `was_there`: it was when the daemon started, and then it is not late if it has not run.
    ///
    /// # Errors
    /// It cannot be paused, or nothing can be remembered of it.
    pub(crate) fn hold(
        seen: &Seen,
        was_there: bool,
        tools: &Tools,
        store: &mut Store,
    ) -> Result<Self> {
        let record = Record {
            domid: seen.dom.0,
            uuid: seen.uuid.clone(),
            name: seen.name.clone(),
            pause: Pause::No,
            late: false,
            phase: Phase::New,
            devices: Vec::new(),
            server: None,
            backends: Vec::new(),
        };
        let mut guest = Self::of(record);
        if was_there && seen.may_run && !tools.xl.is_new(seen.dom)? {
            let why = "it runs already, and a guest looks for its devices when it starts; reboot it (xl reboot)";
            guest.record.phase = Phase::Failed(why.to_owned());
            guest.keep(tools)?;
            return Ok(guest);
        }
        guest.pause(tools, store, was_there)?;
        Ok(guest)
    }

    /// A guest that the daemon before had.
    pub(crate) fn resume(mut record: Record, tools: &Tools, store: &mut Store) -> Result<Self> {
        if record.pause == Pause::Begun {
            record.late = true;
        }
        let is_begun = record.pause == Pause::Begun;
        let mut guest = Self::of(record);
        if is_begun && store.guest(guest.dom())?.is_some() {
            guest.pause(tools, store, false)?;
        }
        Ok(guest)
    }

    fn of(record: Record) -> Self {
        let server = Supervised::again(record.server);
        // What serves the guest is connected to its backends, or waits for them itself.
        let awaited = server.process().is_none().then(Instant::now);
        let backend = |id: &Option<_>| Backend { process: Supervised::again(*id), awaited };
        Self {
            backends: record.backends.iter().map(backend).collect(),
            announces: record.server.is_some() && record.phase == Phase::Starting,
            server,
            gone: None,
            is_lost: false,
            record,
        }
    }

    /// In two steps, as a daemon that is killed between them must not leave the guest paused once too often.
    fn pause(&mut self, tools: &Tools, store: &mut Store, was_there: bool) -> Result<()> {
        self.record.pause = Pause::Begun;
        self.keep(tools)?;
        tools.xl.pause(self.dom())?;
        self.record.pause = Pause::Yes;
        // Once it is paused: if libxl may have let it run by now, then perhaps before.
        let may_run = store.guest(self.dom())?.is_some_and(|seen| seen.may_run);
        self.record.late |= may_run && !(was_there && tools.xl.is_new(self.dom())?);
        self.keep(tools)
    }

    fn unpause(&mut self, tools: &Tools) -> Result<()> {
        if self.record.pause == Pause::Yes {
            // Once too seldom leaves it paused, which is seen; once too often would let it run.
            self.record.pause = Pause::No;
            self.keep(tools)?;
            tools.xl.unpause(self.dom())?;
        }
        Ok(())
    }

    fn keep(&mut self, tools: &Tools) -> Result<()> {
        self.record.server = self.server.id();
        self.record.backends = self.backends.iter().map(|backend| backend.process.id()).collect();
        Ok(tools.state.keep(&self.record)?)
    }

    pub(crate) fn dom(&self) -> DomId {
        DomId(self.record.domid)
    }

    pub(crate) fn record(&self) -> &Record {
        &self.record
    }

    /// Whether a process of its runs.
    pub(crate) fn has_processes(&self) -> bool {
        self.processes().next().is_some()
    }

    fn processes(&self) -> impl Iterator<Item = &Process> {
        self.supervised().filter_map(Supervised::process)
    }

    fn supervised(&self) -> impl Iterator<Item = &Supervised> {
        self.backends.iter().map(|backend| &backend.process).chain([&self.server])
    }

    /// What becomes readable when a process ends.
    pub(crate) fn fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.processes().map(Process::fd)
    }

    /// When it wants its turn, whatever happens.
    pub(crate) fn deadline(&self, now: Instant) -> Option<Instant> {
        // What is due and waits for something else is looked at now and then.
        let supervised = self.supervised().filter_map(Supervised::deadline).filter(|at| *at > now);
        let is_awaited = || self.backends.iter().any(|backend| backend.awaited_since().is_some());
        let waits = match self.record.phase {
            Phase::Starting => true,
            Phase::Served => self.announces || self.server.is_due(now) || is_awaited(),
            Phase::Ended => self.has_processes() && !self.is_lost,
            Phase::New | Phase::Failed(_) => false,
        };
        let lost = self.gone.filter(|_| self.is_lost).map(|gone| gone + END_TIMEOUT + PERIOD);
        supervised.chain(waits.then(|| now + PERIOD)).chain(lost).min()
    }

    /// Does what is to be done now. `false`: nothing is left of it here.
    ///
    /// `entry` is what the configuration has for it, `waits`: another guest of its name is still ending.
    ///
    /// # Errors
    /// The toolstack, xenstore or the state directory. It is tried again with the next turn.
    pub(crate) fn turn(
        &mut self,
        seen: Option<&Seen>,
        entry: Option<&GuestEntry>,
        waits: bool,
        around: (&Tools, &mut Store, &mut Vec<Event>),
        now: Instant,
    ) -> Result<bool> {
        let (tools, store, events) = around;
        let Some(seen) = seen.filter(|seen| seen.uuid == self.record.uuid) else {
            return self.end(tools, events, now);
        };
        if self.record.phase == Phase::New && seen.is_complete && !waits {
            if seen.lines.is_empty() {
                self.unpause(tools)?;
                tools.state.forget(self.record.domid)?;
                return Ok(false);
            }
            if self.record.late {
                let why = "it may have run before it was paused, without its devices, and is made to reboot";
                self.fail(why.to_owned(), tools, events)?;
                (tools.reboot)(self.dom())?;
                return Ok(true);
            }
            match self.devices(seen, entry, tools) {
                Ok(devices) => {
                    self.backends = devices.iter().map(|_| Backend::default()).collect();
                    self.record.devices = devices;
                    self.record.phase = Phase::Starting;
                    self.keep(tools)?;
                    self.happened(events, Happened::Held, None);
                }
                Err(why) => self.fail(why, tools, events)?,
            }
        }
        match self.record.phase {
            Phase::Starting | Phase::Served => self.supervise(tools, events, now)?,
            Phase::Failed(_) => self.look(tools, now)?,
            Phase::New | Phase::Ended => {}
        }
        let wanted = match self.record.phase {
            Phase::Served => XenbusState::CONNECTED,
            _ => XenbusState::INIT_WAIT,
        };
        store.set_states(seen, wanted)?;
        Ok(true)
    }

    /// The devices of its lines.
    fn devices(
        &self,
        seen: &Seen,
        entry: Option<&GuestEntry>,
        tools: &Tools,
    ) -> core::result::Result<Vec<Resolved>, String> {
        let entry = entry.ok_or("the configuration does not name it any more")?;
        let devices = entry.resolve(&seen.name, seen.dom.0, &tools.state.of(seen.dom.0))?;
        match_lines(&seen.lines, &devices, &entry.name)?;
        Ok(devices)
    }

    fn supervise(&mut self, tools: &Tools, events: &mut Vec<Event>, now: Instant) -> Result<()> {
        let mut changed = false;
        for number in 0..self.backends.len() {
            changed |= self.supervise_backend(number, tools, events, now)?;
        }
        if let Some(how) = self.server.look(now) {
            self.announces = false;
            changed = true;
            // The next one connects to them anew, or goes on with connections that are kept.
            self.backends.iter_mut().for_each(|backend| backend.awaited = Some(now));
            self.happened(events, Happened::ServeEnded, Some(how));
        }
        // A guest that has run waits for nothing: its other devices are served, and each backend is connected to as it comes.
        let may_serve = self.record.phase == Phase::Served
            || self.backends.iter().all(|backend| backend.awaited.is_none());
        if may_serve && self.server.is_due(now) {
            let started = self.serve(tools);
            self.announces = started.is_ok();
            changed = true;
            if let Some(why) = self.server.started(started, now) {
                self.happened(events, Happened::ServeEnded, Some(why));
            }
        }
        if self.announces && tools.state.is_served(self.record.domid) {
            self.announces = false;
            self.record.phase = Phase::Served;
            self.unpause(tools)?;
            changed = true;
            self.happened(events, Happened::Served, None);
        }
        if changed {
            self.keep(tools)?;
        }
        if self.server.has_given_up() {
            let why = "`xen-virtio serve` has failed too often; what it said is in the log";
            self.fail(why.to_owned(), tools, events)?;
        }
        Ok(())
    }

    /// Takes notice of what ends, and starts nothing again.
    fn look(&mut self, tools: &Tools, now: Instant) -> Result<()> {
        let backends = self.backends.iter_mut().map(|backend| &mut backend.process);
        let ended = backends.chain([&mut self.server]).filter_map(|it| it.look(now)).count();
        if ended > 0 { self.keep(tools) } else { Ok(()) }
    }

    /// `true`: there is something to remember.
    fn supervise_backend(
        &mut self,
        number: usize,
        tools: &Tools,
        events: &mut Vec<Event>,
        now: Instant,
    ) -> Result<bool> {
        let (Some(backend), Some(device)) =
            (self.backends.get_mut(number), self.record.devices.get(number))
        else {
            return Ok(false);
        };
        let Some(command) = &device.command else {
            backend.awaited = None;
            return Ok(false);
        };
        let mut what = backend.process.look(now).map(|how| format!("{}: {how}", device.device));
        let mut changed = what.is_some();
        if changed {
            backend.awaited = Some(now);
        }
        if backend.process.is_due(now) {
            tools.state.prepare(self.record.domid, number, device)?;
            let started = Process::start(&mut command.command(), None);
            backend.awaited = Some(now);
            changed = true;
            what = backend
                .process
                .started(started, now)
                .map(|why| format!("{}: {why}", device.device))
                .or(what);
        }
        if backend.awaited_since().is_some() && device.socket.as_deref().is_none_or(has_socket) {
            backend.awaited = None;
        }
        if backend.is_late(now) {
            what = Some(format!("{}: it does not listen", device.device));
            backend.awaited = Some(now);
            backend.process.end(now);
        }
        let has_given_up = backend.process.has_given_up() && changed;
        if let Some(what) = what {
            self.happened(events, Happened::BackendEnded, Some(what));
        }
        if has_given_up {
            let device = self.record.devices.get(number).map(|device| device.device.clone());
            let why = format!(
                "the backend of {} has failed too often; what it said is in the log",
                device.unwrap_or_default()
            );
            self.fail(why, tools, events)?;
        }
        Ok(changed)
    }

    fn serve(&self, tools: &Tools) -> std::io::Result<Process> {
        let output = tools.state.output(self.record.domid)?;
        let (program, options) =
            tools.serve.split_first().ok_or(std::io::ErrorKind::InvalidInput)?;
        let mut command = Command::new(program);
        command.args(options).arg("--json").arg("serve").arg(self.record.domid.to_string());
        command.args(["--takeover-time", TAKEOVER_TIME]);
        for device in &self.record.devices {
            command.arg("--device").arg(&device.device);
        }
        Process::start(&mut command, Some(output))
    }

    fn fail(&mut self, why: String, tools: &Tools, events: &mut Vec<Event>) -> Result<()> {
        self.record.phase = Phase::Failed(why.clone());
        self.happened(events, Happened::Failed, Some(why));
        self.keep(tools)
    }

    /// Ends what served it. `serve` ends by itself, and its backends after it.
    fn end(&mut self, tools: &Tools, events: &mut Vec<Event>, now: Instant) -> Result<bool> {
        self.record.phase = Phase::Ended;
        let gone = *self.gone.get_or_insert(now);
        if self.server.look(now).is_none() && self.server.process().is_some() {
            if now.saturating_duration_since(gone) <= END_TIMEOUT {
                return Ok(true);
            }
            // A xenstored that was started anew knows none of the guests that run.
            if tools.xl.is_there(self.dom(), &self.record.uuid)? {
                if !core::mem::replace(&mut self.is_lost, true) {
                    tracing::warn!(
                        "{} (domain {}) runs, and is not in xenstore any more, as when xenstored was started anew; its \
                         devices are served on, and nothing of them is started again; destroy and create it",
                        self.record.name,
                        self.record.domid
                    );
                }
                self.gone = Some(now);
                return Ok(true);
            }
        }
        let mut ended = self.server.end(now);
        for backend in &mut self.backends {
            ended &= backend.process.end(now);
        }
        if ended {
            tools.state.forget(self.record.domid)?;
            self.happened(events, Happened::Gone, None);
        }
        Ok(!ended)
    }

    fn happened(&self, events: &mut Vec<Event>, event: Happened, why: Option<String>) {
        let Record { domid, name, .. } = &self.record;
        events.push(Event { domid: *domid, name: name.clone(), event, why });
    }
}

/// Each line has the device in the same place, of the same type.
fn match_lines(
    lines: &[Line],
    devices: &[Resolved],
    entry: &str,
) -> core::result::Result<(), String> {
    if lines.len() != devices.len() {
        return Err(format!(
            "it has {} virtio= lines, and the entry {entry:?} of the configuration {} devices; each line has one, in \
             the same order",
            lines.len(),
            devices.len()
        ));
    }
    for (line, device) in lines.iter().zip(devices) {
        if line.virtio_number() != device.device_type() {
            return Err(format!(
                "its line type={} has the device {}, which is type=virtio,device{:02x}",
                line.device_type,
                device.device,
                device.device_type().unwrap_or(0)
            ));
        }
    }
    Ok(())
}
