//! A parsed script, and its interpreter for one vCPU.

use crate::statement::{Statement, Value};
use crate::{
    Listener, ListenerId, MAX_LISTENERS, MAX_NESTING, MAX_STATEMENTS, MAX_VCPUS, Machine, Reason,
    Report, Source, Stamps, Ticks,
};

/// A script that has been checked.
///
/// # Invariants
///
/// Loops are closed and nest at most [`MAX_NESTING`] deep within their section; a [`ListenerId`] in
/// a statement is one of `listeners`; `i` is used only inside loops.
#[derive(Clone, Debug)]
pub struct Program<'a> {
    script: [Statement<'a>; MAX_STATEMENTS],
    used: usize,
    /// The end of each section in `script`; the next one begins there.
    ends: [usize; MAX_VCPUS],
    vcpus: usize,
    listeners: [Listener<'a>; MAX_LISTENERS],
    names: usize,
    /// How often each section meets.
    meets: u64,
}

impl<'a> Program<'a> {
    pub(crate) const fn empty() -> Self {
        Self {
            script: [Statement::Meet; MAX_STATEMENTS],
            used: 0,
            ends: [0; MAX_VCPUS],
            vcpus: 0,
            listeners: [Listener { name: "", source: Source::Evtchn, vcpu: 0 }; MAX_LISTENERS],
            names: 0,
            meets: 0,
        }
    }

    /// Returns whether there was room.
    pub(crate) fn push(&mut self, statement: Statement<'a>) -> bool {
        let Some(slot) = self.script.get_mut(self.used) else { return false };
        *slot = statement;
        self.used += 1;
        true
    }

    /// Whether the section meets as often as the first one.
    pub(crate) fn close_section(&mut self, meets: u64) -> bool {
        if self.vcpus == 0 {
            self.meets = meets;
        }
        if let Some(end) = self.ends.get_mut(self.vcpus) {
            *end = self.used;
            self.vcpus += 1;
        }
        meets == self.meets
    }

    pub(crate) fn add_listener(&mut self, listener: Listener<'a>) -> Result<(), Reason> {
        *self.listeners.get_mut(self.names).ok_or(Reason::Listeners)? = listener;
        self.names += 1;
        Ok(())
    }

    /// The number of sections, at least 1 and at most [`MAX_VCPUS`].
    #[must_use]
    pub fn vcpus(&self) -> usize {
        self.vcpus
    }

    /// The listeners, by [`ListenerId::index`].
    #[must_use]
    pub fn listeners(&self) -> &[Listener<'a>] {
        self.listeners.get(..self.names).unwrap_or(&[])
    }

    /// Whether a listener is a line of a PC: only an HVM guest has those.
    #[must_use]
    pub fn needs_lines(&self) -> bool {
        let is_pc = |source| matches!(source, Source::Line(line) if line.is_pc());
        self.listeners().iter().any(|listener| is_pc(listener.source))
    }

    /// Whether a section shuts the guest down for a soft reset: Xen's tools make one for an HVM guest only.
    #[must_use]
    pub fn needs_soft_reset(&self) -> bool {
        (0..self.vcpus).any(|vcpu| self.section(vcpu).contains(&Statement::SoftReset))
    }

    fn listener(&self, id: ListenerId) -> Listener<'a> {
        self.listeners.get(id.index()).copied().unwrap_or(Listener {
            name: "?",
            source: Source::Evtchn,
            vcpu: 0,
        })
    }

    fn section(&self, vcpu: usize) -> &[Statement<'a>] {
        let before = vcpu.checked_sub(1).and_then(|previous| self.ends.get(previous)).copied();
        let end = self.ends.get(vcpu).copied().unwrap_or(0);
        self.script.get(before.unwrap_or(0)..end).unwrap_or(&[])
    }

    /// Carries out the section of `vcpu`, up to its `done` report. A vCPU without a section
    /// is done at once.
    ///
    /// # Errors
    /// The machine's reason to stop.
    pub fn run<M: Machine>(&self, vcpu: usize, machine: &mut M) -> Result<(), M::Stop> {
        let mut run =
            Run { program: self, vcpu, machine, loops: Loops::default(), next: 0, stamped: 0 };
        let section = self.section(vcpu);
        while let Some(statement) = section.get(run.next) {
            run.next += 1;
            run.step(section, statement)?;
        }
        machine.report(Report::Done { vcpu })
    }
}

struct Run<'r, 'a, M> {
    program: &'r Program<'a>,
    vcpu: usize,
    machine: &'r mut M,
    loops: Loops,
    next: usize,
    /// How many of the machine's samples are stamps.
    stamped: usize,
}

/// The running loops, innermost last.
#[derive(Default)]
struct Loops {
    stack: [Loop; MAX_NESTING],
    depth: usize,
}

/// A loop whose body starts at `body`.
#[derive(Clone, Copy, Default)]
struct Loop {
    body: usize,
    round: u64,
    /// The listener that ends it; `None` for `repeat`, which counts its rounds.
    until: Option<ListenerId>,
    rounds: u64,
}

impl Loops {
    fn innermost(&mut self) -> Option<&mut Loop> {
        self.depth.checked_sub(1).and_then(|top| self.stack.get_mut(top))
    }

    fn push(&mut self, entered: Loop) {
        if let Some(slot) = self.stack.get_mut(self.depth) {
            *slot = entered;
            self.depth += 1;
        }
    }
}

impl<M: Machine> Run<'_, '_, M> {
    fn step(
        &mut self,
        section: &[Statement<'_>],
        statement: &Statement<'_>,
    ) -> Result<(), M::Stop> {
        let vcpu = self.vcpu;
        match *statement {
            Statement::Write { place, width, value } => {
                let value = width.truncate(self.value(value));
                self.machine.write(place, width, value)
            }
            Statement::Read { place, width } => {
                let value = self.machine.read(place, width)?;
                self.machine.report(Report::Read { vcpu, place, width, value })
            }
            Statement::Peek { place, width } => self.machine.read(place, width).map(drop),
            Statement::Rep { place, width, value, count } => {
                let value = width.truncate(self.value(value));
                self.machine.rep(place, width, value, count)
            }
            Statement::Pair { place, width, value } => {
                let value = width.truncate(self.value(value));
                self.machine.pair(place, width, value)
            }
            Statement::Repeat { count } => {
                self.loops.push(Loop { body: self.next, round: 0, until: None, rounds: count });
                self.turn(section)
            }
            Statement::Until { listener } => {
                let until = Some(listener);
                self.loops.push(Loop { body: self.next, round: 0, until, rounds: 0 });
                self.turn(section)
            }
            Statement::End => {
                if let Some(innermost) = self.loops.innermost() {
                    innermost.round += 1;
                }
                self.turn(section)
            }
            Statement::Meet => self.machine.meet(),
            Statement::Pause { count } => self.machine.pause(count),
            Statement::Listen { listener } => self.listen(listener),
            Statement::Wait { listener, count } => {
                (0..count).try_for_each(|_| self.machine.take_event(listener))
            }
            Statement::Send { listener, count } => {
                (0..count).try_for_each(|_| self.machine.send(listener))
            }
            Statement::Balloon { pages } => (0..pages).try_for_each(|_| self.machine.balloon()),
            Statement::Time { place, width, value, count } => {
                let value = width.truncate(self.value(value));
                for sample in 0..count {
                    let before = self.machine.now();
                    self.machine.write(place, width, value)?;
                    let took = self.machine.now().wrapping_sub(before);
                    if let Some(slot) = self.machine.samples().get_mut(sample) {
                        *slot = took;
                    }
                }
                let samples = self.machine.samples().get_mut(..count).unwrap_or_default();
                let ticks = Ticks::of(samples);
                self.machine.report(Report::Ticks { vcpu, ticks })
            }
            Statement::StampWrite { place, width, value, count } => {
                let value = width.truncate(self.value(value));
                self.stamped = 0;
                for _ in 0..count {
                    let before = self.machine.now();
                    self.machine.write(place, width, value)?;
                    let after = self.machine.now();
                    self.stamp(before);
                    self.stamp(after);
                }
                Ok(())
            }
            Statement::StampWait { listener, count } => {
                self.stamped = 0;
                for _ in 0..count {
                    self.machine.take_event(listener)?;
                    let now = self.machine.now();
                    self.stamp(now);
                }
                Ok(())
            }
            Statement::Stamps => self.report_stamps(),
            Statement::Say { words } => self.machine.report(Report::Say { vcpu, words }),
            Statement::SoftReset => self.machine.soft_reset(),
            Statement::Poweroff => Err(self.machine.poweroff()),
            Statement::Crash => Err(self.machine.crash()),
        }
    }

    fn stamp(&mut self, time: u64) {
        if let Some(slot) = self.machine.samples().get_mut(self.stamped) {
            *slot = time;
            self.stamped += 1;
        }
    }

    fn report_stamps(&mut self) -> Result<(), M::Stop> {
        let (ticks, time) = self.machine.clock();
        self.machine.report(Report::Clock { vcpu: self.vcpu, ticks, time })?;
        for first in (0..self.stamped).step_by(Stamps::MOST) {
            let last = self.stamped.min(first + Stamps::MOST);
            let samples = self.machine.samples().get(first..last).unwrap_or_default();
            let stamps = Stamps::of(samples).unwrap_or_default();
            self.machine.report(Report::Stamps { vcpu: self.vcpu, stamps })?;
        }
        Ok(())
    }

    fn value(&mut self, value: Value) -> u64 {
        match value {
            Value::Number(number) => number,
            Value::Counter(plus) => {
                self.loops.innermost().map_or(0, |l| l.round).wrapping_add(plus)
            }
        }
    }

    fn listen(&mut self, id: ListenerId) -> Result<(), M::Stop> {
        let (vcpu, Listener { name, source, .. }) = (self.vcpu, self.program.listener(id));
        let report = match source {
            Source::Evtchn => Report::Port { vcpu, name, port: self.machine.listen_evtchn(id)? },
            Source::Msi(vector) => {
                self.machine.listen_msi(id, vector)?;
                Report::Vector { vcpu, name, vector }
            }
            Source::Line(line) => {
                self.machine.listen_line(id, line)?;
                Report::Vector { vcpu, name, vector: line.vector() }
            }
        };
        self.machine.report(report)
    }

    /// Starts the next round of the innermost loop, or continues after it.
    fn turn(&mut self, section: &[Statement<'_>]) -> Result<(), M::Stop> {
        let Some(&mut Loop { body, round, until, rounds }) = self.loops.innermost() else {
            return Ok(());
        };
        let over = match until {
            Some(listener) => self.machine.poll_event(listener)?,
            None => round == rounds,
        };
        if !over {
            self.next = body;
            return Ok(());
        }
        self.loops.depth -= 1;
        self.next = after(section, body);
        let Some(listener) = until else { return Ok(()) };
        let name = self.program.listener(listener).name;
        self.machine.report(Report::Rounds { vcpu: self.vcpu, name, rounds: round })
    }
}

/// The statement after the `end` of the loop whose body starts at `body`.
fn after(section: &[Statement<'_>], body: usize) -> usize {
    let mut open = 1_usize;
    let mut next = body;
    while let Some(statement) = section.get(next) {
        next += 1;
        match statement {
            Statement::Repeat { .. } | Statement::Until { .. } => open += 1,
            Statement::End => open -= 1,
            _ => {}
        }
        if open == 0 {
            break;
        }
    }
    next
}
