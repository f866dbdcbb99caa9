//! A guest whose vCPUs are threads that carry out the same script as the bare-metal guest.

use crate::PATIENCE;
use crate::environment::EnvironmentGuest;
use crate::scenarios::call_irq;
use anyhow::{Result, anyhow};
use std::collections::HashMap;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use xen_eventfd::{DomId, Irq, Line, Port, Space, VcpuId, Width};
use xen_eventfd_guest_script as script;
use xen_eventfd_guest_script::{ListenerId, MAX_SAMPLES, Machine, Place, Program, Report};
use xen_eventfd_model::{Config, Kind, Model, Stopped, Vcpu};

/// A guest of the model.
#[derive(Debug)]
pub(super) struct ModelGuest {
    model: Model,
    dom: DomId,
    script: String,
    vcpus: usize,
    console: (Sender<String>, Receiver<String>),
    common: Arc<Common>,
}

/// The state that the vCPUs of one guest share.
#[derive(Debug, Default)]
struct Common {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    sources: HashMap<usize, ListenerSource>,
    /// How many vCPUs wait at the barrier, and how often it has opened.
    met: (usize, u64),
    done: usize,
    stopped: bool,
}

#[derive(Debug, Clone, Copy)]
enum ListenerSource {
    Port(Port),
    Vector(u8),
    Line(Line),
}

impl Common {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for an action of another vCPU.
    fn until<T>(&self, mut so: impl FnMut(&mut State) -> Option<T>) -> Result<T, Stopped> {
        let mut state = self.lock();
        loop {
            if state.stopped {
                return Err(Stopped::Destroyed);
            }
            if let Some(found) = so(&mut state) {
                self.changed.notify_all();
                return Ok(found);
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn stop(&self) {
        self.lock().stopped = true;
        self.changed.notify_all();
    }
}

impl ModelGuest {
    pub(super) fn new(model: &Model, script: &str) -> Result<Self> {
        let program = Program::parse(script).map_err(|error| anyhow!("bad script: {error}"))?;
        let vcpus = program.vcpus();
        let kind =
            if program.needs_lines() || program.needs_soft_reset() { Kind::Hvm } else { Kind::Pvh };
        let dom = model.domain(Config::new("guest").kind(kind).vcpus(u32::try_from(vcpus)?));
        let model = model.clone();
        let common = Arc::default();
        Ok(Self { model, dom, script: script.to_owned(), vcpus, console: channel(), common })
    }
}

impl EnvironmentGuest for ModelGuest {
    fn dom(&self) -> DomId {
        self.dom
    }

    fn start(&mut self) -> Result<()> {
        for index in 0..self.vcpus {
            let script = self.script.clone();
            let vcpus = self.vcpus;
            let mut simulated = Simulated {
                vcpu: self.model.vcpu(self.dom, VcpuId(u32::try_from(index)?)),
                model: self.model.clone(),
                vcpus,
                common: Arc::clone(&self.common),
                console: self.console.0.clone(),
                started: Instant::now(),
                samples: Box::new([0; MAX_SAMPLES]),
                aborted: false,
            };
            std::thread::spawn(move || {
                let Ok(program) = Program::parse(&script) else { return };
                if program.run(index, &mut simulated).is_err() {
                    simulated.common.stop();
                    return;
                }
                let done = {
                    let mut state = simulated.common.lock();
                    state.done += 1;
                    state.done
                };
                if done == vcpus {
                    let _ = simulated.report(Report::GuestDone);
                }
            });
        }
        Ok(())
    }

    fn pause(&mut self) -> Result<()> {
        self.model.pause(self.dom, true);
        Ok(())
    }

    fn unpause(&mut self) -> Result<()> {
        self.model.pause(self.dom, false);
        Ok(())
    }

    fn destroy(&mut self) -> Result<()> {
        self.model.destroy(self.dom);
        self.common.stop();
        Ok(())
    }

    fn line(&mut self, patience: Duration) -> Result<Option<String>> {
        match self.console.1.recv_timeout(patience) {
            Ok(line) => Ok(Some(line)),
            Err(RecvTimeoutError::Timeout) if patience < PATIENCE => Ok(None),
            Err(RecvTimeoutError::Timeout) => {
                Err(anyhow!("the guest's console is silent\n{}", self.model.describe()))
            }
            Err(RecvTimeoutError::Disconnected) => Err(anyhow!("the console is gone")),
        }
    }
}

impl Drop for ModelGuest {
    fn drop(&mut self) {
        let _ = self.destroy();
    }
}

/// One vCPU that carries out its script.
struct Simulated {
    vcpu: Vcpu,
    model: Model,
    vcpus: usize,
    common: Arc<Common>,
    console: Sender<String>,
    started: Instant,
    samples: Box<[u64; MAX_SAMPLES]>,
    /// An access was aborted, and that was reported.
    aborted: bool,
}

impl Simulated {
    /// What an access has, which is reported if it is the first that was aborted.
    fn unless_aborted<T>(
        &mut self,
        done: Result<T, Stopped>,
        (place, width): (Place, script::Width),
        otherwise: T,
    ) -> Result<T, Stopped> {
        if done.as_ref().is_err_and(|stopped| *stopped == Stopped::Abort) {
            if !core::mem::replace(&mut self.aborted, true) {
                let vcpu = self.vcpu.id().0 as usize;
                self.report(Report::Abort { vcpu, place, width })?;
            }
            return Ok(otherwise);
        }
        done
    }

    fn source(&self, listener: ListenerId) -> Result<ListenerSource, Stopped> {
        self.common.until(|state| state.sources.get(&listener.index()).copied())
    }

    fn await_listener(&self, listener: ListenerId, source: ListenerSource) -> Result<(), Stopped> {
        self.common.until(|state| {
            state.sources.insert(listener.index(), source);
            Some(())
        })
    }
}

fn at(place: Place) -> (Space, u64) {
    match place {
        Place::Mmio(addr) => (Space::Mmio, addr.into()),
        Place::Pio(port) => (Space::Pio, port.into()),
    }
}

fn wide(width: script::Width) -> Width {
    match width {
        script::Width::One => Width::One,
        script::Width::Two => Width::Two,
        script::Width::Four => Width::Four,
        script::Width::Eight => Width::Eight,
    }
}

fn wire(line: script::Line) -> Line {
    match line {
        script::Line::Isa(irq) => Line::Isa(irq),
        script::Line::Intx { device, pin } => Line::PciIntx { device, pin },
        script::Line::Spi { number, .. } => Line::Spi(number.into()),
    }
}

impl Machine for Simulated {
    type Stop = Stopped;

    fn write(&mut self, place: Place, width: script::Width, value: u64) -> Result<(), Stopped> {
        let (space, addr) = at(place);
        let done = self.vcpu.write(space, addr, wide(width), value);
        self.unless_aborted(done, (place, width), ())
    }

    fn read(&mut self, place: Place, width: script::Width) -> Result<u64, Stopped> {
        let (space, addr) = at(place);
        let read = self.vcpu.read(space, addr, wide(width));
        self.unless_aborted(read, (place, width), width.all_ones())
    }

    fn rep(
        &mut self,
        place: Place,
        width: script::Width,
        value: u64,
        count: u64,
    ) -> Result<(), Stopped> {
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        let done = match place {
            Place::Mmio(addr) => self.vcpu.rep_stos(addr.into(), wide(width), value, count),
            Place::Pio(port) => {
                // The bare-metal guest's buffer is one page, from its beginning.
                self.vcpu.rep_outs(port.into(), wide(width), 0x1000, value, count)
            }
        };
        self.unless_aborted(done, (place, width), ())
    }

    fn pair(&mut self, place: Place, width: script::Width, _: u64) -> Result<(), Stopped> {
        let done = self.vcpu.store_pair();
        self.unless_aborted(done, (place, width), ())
    }

    fn listen_evtchn(&mut self, listener: ListenerId) -> Result<u32, Stopped> {
        let port = self.vcpu.alloc_unbound()?;
        self.await_listener(listener, ListenerSource::Port(port))?;
        Ok(port.0)
    }

    fn listen_msi(&mut self, listener: ListenerId, vector: u8) -> Result<(), Stopped> {
        self.await_listener(
            listener,
            match call_irq(self.model.arch(), 0, vector.into()) {
                Irq::Line(line, _) => ListenerSource::Line(line),
                _ => ListenerSource::Vector(vector),
            },
        )
    }

    fn listen_line(&mut self, listener: ListenerId, line: script::Line) -> Result<(), Stopped> {
        self.await_listener(listener, ListenerSource::Line(wire(line)))
    }

    fn take_event(&mut self, listener: ListenerId) -> Result<(), Stopped> {
        match self.source(listener)? {
            ListenerSource::Port(port) => self.vcpu.wait(port),
            ListenerSource::Vector(vector) => self.vcpu.wait_msi(vector),
            ListenerSource::Line(line) => self.vcpu.wait_line(line),
        }
    }

    fn poll_event(&mut self, listener: ListenerId) -> Result<bool, Stopped> {
        let source = self.common.lock().sources.get(&listener.index()).copied();
        match source {
            None => Ok(false),
            Some(ListenerSource::Port(port)) => self.vcpu.try_take(port),
            Some(ListenerSource::Vector(vector)) => self.vcpu.try_take_msi(vector),
            Some(ListenerSource::Line(line)) => self.vcpu.try_take_line(line),
        }
    }

    fn send(&mut self, listener: ListenerId) -> Result<(), Stopped> {
        match self.source(listener)? {
            ListenerSource::Port(port) => self.vcpu.send(port),
            ListenerSource::Vector(_) | ListenerSource::Line(_) => Ok(()),
        }
    }

    fn balloon(&mut self) -> Result<(), Stopped> {
        self.vcpu.balloon(1)
    }

    fn meet(&mut self) -> Result<(), Stopped> {
        let vcpus = self.vcpus;
        let mut waiting_for = None;
        self.common.until(|state| {
            let turn = *waiting_for.get_or_insert_with(|| {
                state.met.0 += 1;
                state.met.1
            });
            if state.met.0 == vcpus {
                state.met = (0, state.met.1 + 1);
            }
            (state.met.1 > turn).then_some(())
        })
    }

    fn pause(&mut self, count: u64) -> Result<(), Stopped> {
        (0..count).for_each(|_| std::hint::spin_loop());
        Ok(())
    }

    fn now(&mut self) -> u64 {
        u64::try_from(self.started.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// The model has no clock.
    fn clock(&mut self) -> (u64, u64) {
        let now = self.now();
        (now, now)
    }

    fn samples(&mut self) -> &mut [u64; MAX_SAMPLES] {
        &mut self.samples
    }

    fn report(&mut self, report: Report<'_>) -> Result<(), Stopped> {
        // The test may have dropped the receiver.
        let _ = self.console.send(report.to_string());
        Ok(())
    }

    fn soft_reset(&mut self) -> Result<(), Stopped> {
        self.vcpu.soft_reset()
    }

    fn poweroff(&mut self) -> Stopped {
        self.model.destroy(self.vcpu.domain());
        Stopped::Destroyed
    }

    fn crash(&mut self) -> Stopped {
        self.model.crash(self.vcpu.domain(), "on its own script");
        Stopped::Destroyed
    }
}
