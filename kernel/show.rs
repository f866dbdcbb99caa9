// SPDX-License-Identifier: GPL-2.0

//! A guest as text, for fdinfo and debugfs: one `key:` and its value to a line.
//!
//! Nothing is formatted under a spinlock: each line is of the moment in which it was made.

use crate::memory;
use crate::protocol::status::ChannelStatus;
use crate::protocol::wire::text::{printable, Line};
use crate::taken::Taken;
use kernel::bindings as kernel_bindings;
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
    let mut put = |line: Line<'_>| writeln!(out, "{line}");
    put(Line::Dom(guest.dom()))?;
    put(Line::Interface(taken.interface))?;
    let mut name = *taken.owner.name();
    put(Line::Owner { pid: taken.owner.pid().unsigned_abs(), name: printable(&mut name) })?;
    if taken.owner.has_ended() {
        // Others have the file now.
        put(Line::OwnerEnded)?;
    }
    let shown = (0..).map_while(|nth| memory::shown(guest.dom(), nth));
    shown.into_iter().try_for_each(|part| put(Line::Memory(part)))?;
    let Ok(stats) = guest.stats() else {
        return if guest.is_reserved() { Ok(()) } else { put(Line::Dead) };
    };
    put(Line::Server(stats.server))?;
    put(Line::Vcpus(stats.vcpus as u32))?;
    stats.counters.named().into_iter().try_for_each(|(key, count)| put(Line::Counter(key, count)))?;
    (0..).map_while(|index| guest.shown(index)).try_for_each(|shown| put(Line::Doorbell(shown)))?;
    (0..).map_while(|index| guest.waiting(index)).try_for_each(|kick| put(Line::Waiting(kick)))?;
    (0..).map_while(|index| guest.shown_irq(index)).try_for_each(|shown| put(Line::Irq(shown)))?;
    (0..).map_while(|index| guest.shown_device(index)).try_for_each(|shown| put(Line::Device(shown)))?;
    for (port, signals) in (0..).map_while(|index| guest.shown_channel(index)) {
        if let Some(signals) = signals {
            put(Line::Channel(ChannelStatus { port, signals }))?;
        }
    }
    Ok(())
}

/// Writes all about a guest into a sequence.
///
/// # Safety
/// The sequence is the caller's alone during the call.
pub(crate) unsafe fn write(taken: &Taken, sequence: *mut kernel_bindings::seq_file) {
    // SAFETY: The caller's promise.
    let sequence = unsafe { SeqFile::from_raw(sequence) };
    // A sequence is cut where it is full, and begun again with more room.
    let _ = self::taken(taken, &mut Sequence(sequence));
}
