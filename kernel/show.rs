// SPDX-License-Identifier: GPL-2.0

//! A guest as text, for fdinfo and debugfs: one `key:` and its value to a line.
//!
//! Nothing is formatted under a spinlock: each line is of the moment in which it was made.

use crate::protocol::irq::{Irq, Line, Trigger};
use crate::protocol::{Filter, Space};
use crate::taken::{Interface, Taken};
use kernel::fmt::{self, Write};
use kernel::seq_file::SeqFile;
use kernel::seq_print;

/// A file of the kernel's, to be written to.
pub(crate) struct Sequence<'a>(pub(crate) &'a SeqFile);

impl Write for Sequence<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        seq_print!(self.0, "{}", text);
        Ok(())
    }
}

/// All about a guest.
pub(crate) fn taken(taken: &Taken, out: &mut impl Write) -> fmt::Result {
    let guest = &taken.guest;
    writeln!(out, "dom:\t{}", guest.dom().0)?;
    let interface = match taken.interface {
        Interface::Native => "native",
        Interface::Privcmd => "privcmd",
        Interface::Reserved => "reserved",
    };
    writeln!(out, "interface:\t{interface}")?;
    write!(out, "owner:\t{} ", taken.owner.pid())?;
    for byte in taken.owner.name().iter().take_while(|byte| **byte != 0) {
        // A process chooses its name, line ends included.
        let shown = if byte.is_ascii_graphic() || *byte == b' ' { *byte } else { b'?' };
        out.write_char(char::from(shown))?;
    }
    out.write_char('\n')?;
    if taken.owner.has_ended() {
        // Others have the file now.
        out.write_str("owner-state:\tended\n")?;
    }
    let Ok(stats) = guest.stats() else {
        return if guest.is_reserved() { Ok(()) } else { writeln!(out, "state:\tdead") };
    };
    writeln!(out, "server:\t{}", stats.server.0)?;
    writeln!(out, "vcpus:\t{}", stats.vcpus)?;
    let counters = stats.counters;
    for (key, count) in [
        ("delivered", counters.delivered),
        ("held", counters.held),
        ("redelivered", counters.redelivered),
        ("late", counters.late),
        ("reads", counters.reads),
        ("broadcasts", counters.broadcasts),
        ("odd", counters.odd),
        ("spurious", counters.spurious),
    ] {
        writeln!(out, "{key}:\t{count}")?;
    }
    for shown in (0..).map_while(|index| guest.shown(index)) {
        let bytes = shown.doorbell.bytes();
        write!(out, "doorbell:\t{} {:#x} ", space(bytes.space()), bytes.first())?;
        match shown.doorbell.filter() {
            Filter::Value { width, value, mask } => {
                write!(out, "len {} value {value:#x} mask {mask:#x}", width.bytes())?;
            }
            Filter::Width(width) => write!(out, "len {} wildcard", width.bytes())?,
            Filter::Any { span } => write!(out, "span {span} any")?,
            Filter::Fallback { span } => write!(out, "span {span} fallback")?,
        }
        writeln!(out, " kicks {} held {} odd {}", shown.kicks, shown.held, shown.odd)?;
    }
    for kick in (0..).map_while(|index| guest.waiting(index)) {
        let (space, width) = (space(kick.access.space), kick.access.width.bytes());
        writeln!(out, "waiting:\t{space} {:#x} len {width} value {:#x}", kick.access.addr, kick.value)?;
    }
    for shown in (0..).map_while(|index| guest.shown_irq(index)) {
        out.write_str("irq:\t")?;
        irq(shown.irq, out)?;
        writeln!(out, " raised {} failed {}", shown.raised, shown.failed)?;
    }
    for (port, signals) in (0..).map_while(|index| guest.shown_channel(index)) {
        if let Some(signals) = signals {
            writeln!(out, "channel:\t{} signals {signals}", port.0)?;
        }
    }
    Ok(())
}

fn space(space: Space) -> &'static str {
    match space {
        Space::Mmio => "mmio",
        Space::Pio => "pio",
    }
}

fn irq(irq: Irq, out: &mut impl Write) -> fmt::Result {
    let (line, trigger) = match irq {
        Irq::EventChannel(port) => return write!(out, "channel {}", port.0),
        Irq::Msi { addr, data } => return write!(out, "msi {addr:#x} {data:#x}"),
        Irq::Line(line, trigger) => (line, trigger),
    };
    match line {
        Line::Isa(number) => write!(out, "isa {number}")?,
        Line::PciIntx { device, pin } => write!(out, "intx {device}.{pin}")?,
        Line::Spi(number) => write!(out, "spi {number}")?,
    }
    out.write_str(match trigger {
        Trigger::Pulse => " pulse",
        Trigger::Level => " level",
    })
}
