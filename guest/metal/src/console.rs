//! The console: Xen's ring for whole lines, port 0xE9 before it is connected.

use core::fmt::{self, Write};
use core::sync::atomic::{AtomicU8, AtomicU32, Ordering};

use crate::events::Events;
use crate::sync::{Lock, Once};
use crate::xen::{self, Parameter};
use crate::{arch, hypercall::Refused};

/// `struct xencons_interface` (public/io/console.h).
#[repr(C)]
struct Ring {
    input: [AtomicU8; 1024],
    output: [AtomicU8; 2048],
    input_consumed: AtomicU32,
    input_produced: AtomicU32,
    output_consumed: AtomicU32,
    output_produced: AtomicU32,
}

/// The guest's console.
pub(crate) struct Console {
    lock: Lock,
    wire: Once<Wire>,
}

#[derive(Clone, Copy)]
struct Wire {
    ring: &'static Ring,
    events: Events,
}

/// The console's event channel, another one after a soft reset.
static PORT: AtomicU32 = AtomicU32::new(0);

/// The one console.
pub(crate) static CONSOLE: Console = Console { lock: Lock::new(), wire: Once::new() };

impl Console {
    /// Finds the ring. Until then, lines go to port 0xE9.
    pub(crate) fn connect(&self, events: Events) -> Result<(), Refused> {
        let frame = xen::parameter(Parameter::ConsoleFrame)?;
        let port = xen::parameter(Parameter::ConsolePort)?;
        if let (1..0x10_0000, Ok(port @ 1..)) = (frame, u32::try_from(port)) {
            let page = (frame << 12) as *const Ring;
            // SAFETY: Xen's tools placed the ring there, below 4 GiB, for as long as the guest
            // lives; it is shared with the console daemon, hence all of it is atomic.
            let ring = unsafe { &*page };
            PORT.store(port, Ordering::Relaxed);
            self.wire.set(Wire { ring, events });
        }
        Ok(())
    }

    /// Reads the event channel again; the ring stays in its place.
    pub(crate) fn reconnect(&self) -> Result<(), Refused> {
        let port = xen::parameter(Parameter::ConsolePort)?;
        PORT.store(u32::try_from(port).unwrap_or(0), Ordering::Relaxed);
        Ok(())
    }

    /// Writes a line.
    pub(crate) fn line(&self, line: fmt::Arguments<'_>) {
        self.lock.with(|| self.write(line));
    }

    /// Writes a last line, to both consoles, from a vCPU that may have held the lock.
    pub(crate) fn last_line(&self, line: fmt::Arguments<'_>) {
        self.lock.with_or_without(|| {
            debug(line);
            self.write(line);
        });
        self.drain();
    }

    fn write(&self, line: fmt::Arguments<'_>) {
        let Some(wire) = self.wire.get() else { return debug(line) };
        let mut wire = *wire;
        // This writer never fails.
        let _ = writeln!(wire, "{line}");
        wire.notify();
    }

    /// Waits until all output has been read, or no reader makes progress.
    pub(crate) fn drain(&self) {
        let Some(wire) = self.wire.get() else { return };
        for _ in 0..100_000 {
            if wire.used() == 0 {
                return;
            }
            xen::yield_now();
        }
    }
}

impl Wire {
    fn port(&self) -> u32 {
        PORT.load(Ordering::Relaxed)
    }

    fn used(&self) -> u32 {
        let produced = self.ring.output_produced.load(Ordering::Relaxed);
        produced.wrapping_sub(self.ring.output_consumed.load(Ordering::Acquire))
    }

    fn notify(&self) {
        let _ = xen::send(self.port());
    }

    fn push(&self, byte: u8) {
        while self.used() >= 2048 {
            self.notify();
            self.events.take(self.port());
            if self.used() >= 2048 {
                xen::poll(self.port());
            }
        }
        let at = self.ring.output_produced.load(Ordering::Relaxed);
        self.ring.output[at as usize % 2048].store(byte, Ordering::Relaxed);
        self.ring.output_produced.store(at.wrapping_add(1), Ordering::Release);
    }
}

impl Write for Wire {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        text.bytes().for_each(|byte| self.push(byte));
        Ok(())
    }
}

/// Writes a line without the ring and without hypercalls.
pub(crate) fn debug(line: fmt::Arguments<'_>) {
    let _ = writeln!(Port, "{line}");
}

/// Xen's debug port: lines appear on Xen's console.
struct Port;

impl Write for Port {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        text.bytes().for_each(arch::debug_byte);
        Ok(())
    }
}
