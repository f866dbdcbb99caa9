//! One vCPU as the machine that carries out its section of the script.

use core::convert::Infallible;
use core::fmt;
use core::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

use xen_eventfd_guest_script::{
    Line, Listener, ListenerId, MAX_LISTENERS, MAX_SAMPLES, Machine, Place, Program, Report,
    Source, Width,
};

use crate::arch::{self, access, interrupts};
use crate::console::CONSOLE;
use crate::events::Events;
use crate::sync::Barrier;
use crate::{balloon, xen};

/// The state that all vCPUs share.
pub(crate) struct Guest {
    pub(crate) program: Program<'static>,
    events: Events,
    barrier: Barrier,
    /// For each name 0 before its `listen`, then the port, or 1 for a vector.
    listening: [AtomicU32; MAX_LISTENERS],
    finished: AtomicUsize,
}

impl Guest {
    pub(crate) fn new(program: Program<'static>, events: Events) -> Self {
        Self {
            program,
            events,
            barrier: Barrier::new(),
            listening: [const { AtomicU32::new(0) }; MAX_LISTENERS],
            finished: AtomicUsize::new(0),
        }
    }

    /// Carries out the section of `vcpu`, then idles.
    pub(crate) fn run(&self, vcpu: usize) -> ! {
        let mut machine = Vcpu {
            guest: self,
            vcpu,
            samples: [0; MAX_SAMPLES],
            source: access::Source::new(),
            aborted: false,
        };
        let Ok(()) = self.program.run(vcpu, &mut machine);
        if self.finished.fetch_add(1, Ordering::AcqRel) + 1 == self.program.vcpus() {
            CONSOLE.line(format_args!("{}", Report::GuestDone));
        }
        loop {
            arch::sleep_until(|| false);
        }
    }
}

/// Ends the guest because its script cannot be carried out.
pub(crate) fn give_up(why: fmt::Arguments<'_>) -> ! {
    CONSOLE.line(format_args!("guest error: {why}"));
    CONSOLE.drain();
    xen::shutdown(xen::Reason::Crash)
}

struct Vcpu<'g> {
    guest: &'g Guest,
    vcpu: usize,
    samples: [u64; MAX_SAMPLES],
    source: access::Source,
    /// An access was aborted, and that was reported.
    aborted: bool,
}

impl Vcpu<'_> {
    fn listener(&self, id: ListenerId) -> Listener<'_> {
        self.guest.program.listeners()[id.index()]
    }

    fn listen(&self, id: ListenerId, what: u32) {
        self.guest.listening[id.index()].store(what, Ordering::Release);
        arch::wake_others(self.guest.program.vcpus());
    }

    /// Waits until the name is listened to; returns the port, or 1 for a vector.
    fn listening(&self, id: ListenerId) -> u32 {
        let slot = &self.guest.listening[id.index()];
        if slot.load(Ordering::Acquire) == 0 {
            arch::sleep_until(|| slot.load(Ordering::Acquire) != 0);
        }
        slot.load(Ordering::Acquire)
    }

    /// Reports the first access that ended in an abort.
    fn abort(&mut self, place: Place, width: Width, _: access::Aborted) {
        if !core::mem::replace(&mut self.aborted, true) {
            let report = Report::Abort { vcpu: self.vcpu, place, width };
            CONSOLE.line(format_args!("{report}"));
        }
    }

    fn refused(&self, what: fmt::Arguments<'_>) -> ! {
        give_up(format_args!("v{} {what}", self.vcpu))
    }
}

impl Machine for Vcpu<'_> {
    type Stop = Infallible;

    fn write(&mut self, place: Place, width: Width, value: u64) -> Result<(), Infallible> {
        // SAFETY: the tests choose places without RAM; that is what they test.
        let done = unsafe { access::write(place, width, value) };
        done.unwrap_or_else(|aborted| self.abort(place, width, aborted));
        Ok(())
    }

    fn read(&mut self, place: Place, width: Width) -> Result<u64, Infallible> {
        // SAFETY: as for `write`.
        let read = unsafe { access::read(place, width) };
        Ok(read.unwrap_or_else(|aborted| {
            self.abort(place, width, aborted);
            width.all_ones()
        }))
    }

    fn rep(
        &mut self,
        place: Place,
        width: Width,
        value: u64,
        count: u64,
    ) -> Result<(), Infallible> {
        // SAFETY: as for `write`; the parser bounds the count.
        let done = unsafe { access::rep(&mut self.source, place, width, value, count) };
        done.unwrap_or_else(|aborted| self.abort(place, width, aborted));
        Ok(())
    }

    fn pair(&mut self, place: Place, width: Width, value: u64) -> Result<(), Infallible> {
        // SAFETY: as for `write`.
        let done = unsafe { access::pair(place, width, value) };
        done.unwrap_or_else(|aborted| self.abort(place, width, aborted));
        Ok(())
    }

    fn listen_evtchn(&mut self, listener: ListenerId) -> Result<u32, Infallible> {
        let port = xen::alloc_unbound()
            .unwrap_or_else(|refused| self.refused(format_args!("listen evtchn: {refused}")));
        self.listen(listener, port);
        Ok(port)
    }

    fn listen_msi(&mut self, listener: ListenerId, vector: u8) -> Result<(), Infallible> {
        interrupts::start_counting(vector);
        arch::expect_message(vector, self.vcpu);
        self.listen(listener, 1);
        Ok(())
    }

    fn listen_line(&mut self, listener: ListenerId, line: Line) -> Result<(), Infallible> {
        interrupts::start_counting(line.vector());
        arch::connect_line(line, self.vcpu);
        self.listen(listener, 1);
        Ok(())
    }

    fn take_event(&mut self, listener: ListenerId) -> Result<(), Infallible> {
        let port = self.listening(listener);
        match self.listener(listener).source {
            Source::Evtchn => self.guest.events.wait(port),
            Source::Msi(vector) => interrupts::wait(self.vcpu, vector),
            Source::Line(line) => interrupts::wait(self.vcpu, line.vector()),
        }
        Ok(())
    }

    fn poll_event(&mut self, listener: ListenerId) -> Result<bool, Infallible> {
        let port = self.guest.listening[listener.index()].load(Ordering::Acquire);
        Ok(match self.listener(listener).source {
            _ if port == 0 => false,
            Source::Evtchn => self.guest.events.take(port),
            Source::Msi(vector) => interrupts::take(vector),
            Source::Line(line) => interrupts::take(line.vector()),
        })
    }

    fn send(&mut self, listener: ListenerId) -> Result<(), Infallible> {
        let port = self.listening(listener);
        if let Err(refused) = xen::send(port) {
            self.refused(format_args!("send {}: {refused}", self.listener(listener).name));
        }
        Ok(())
    }

    fn balloon(&mut self) -> Result<(), Infallible> {
        balloon::give().unwrap_or_else(|why| self.refused(format_args!("{why}")));
        Ok(())
    }

    fn meet(&mut self) -> Result<(), Infallible> {
        self.guest.barrier.wait(self.guest.program.vcpus());
        Ok(())
    }

    fn pause(&mut self, count: u64) -> Result<(), Infallible> {
        (0..count).for_each(|_| access::pause());
        Ok(())
    }

    fn now(&mut self) -> u64 {
        access::ticks()
    }

    fn clock(&mut self) -> (u64, u64) {
        self.guest.events.clock(self.vcpu)
    }

    fn samples(&mut self) -> &mut [u64; MAX_SAMPLES] {
        &mut self.samples
    }

    fn report(&mut self, report: Report<'_>) -> Result<(), Infallible> {
        CONSOLE.line(format_args!("{report}"));
        Ok(())
    }

    fn soft_reset(&mut self) -> Result<(), Infallible> {
        CONSOLE.drain();
        let reset =
            xen::soft_reset().and_then(|()| Events::map()).and_then(|_| CONSOLE.reconnect());
        if let Err(refused) = reset {
            self.refused(format_args!("soft-reset: {refused}"));
        }
        Ok(())
    }

    fn poweroff(&mut self) -> Infallible {
        CONSOLE.drain();
        xen::shutdown(xen::Reason::Poweroff)
    }

    fn crash(&mut self) -> Infallible {
        CONSOLE.drain();
        xen::shutdown(xen::Reason::Crash)
    }
}
