//! The entries of fallbacks, and the lists of doorbells and held kicks.

use super::common::{DOORBELL, Notifier};
use crate::device::GuestFile;
use crate::device::request::{ANY, LIST_DOORBELLS, LIST_HELD, MMIO, PIO, VALUE, WIDTH};
use crate::device::structs::{Doorbell, Entry, Missed};
use anyhow::{Result, ensure};
use xen_eventfd_scenarios::TestContext;
use xen_eventfd_scenarios::test_context::{new_eventfd, take_count};

/// All entries of a fallback, up to and with the empty one that ends the list.
fn all_missed(file: &GuestFile, fallback: &Doorbell) -> Result<Vec<Missed>> {
    let mut entries = Vec::new();
    loop {
        let missed = file.missed(fallback)?;
        entries.push(missed);
        if missed.kicks == 0 {
            return Ok(entries);
        }
    }
}

fn kick(width: u32, value: u64, kicks: u64) -> Missed {
    Missed { width, value, kicks, overflowed: 0 }
}

fn nothing(overflowed: u64) -> Missed {
    Missed { width: 0, value: 0, kicks: 0, overflowed }
}

pub(super) fn missed(test: &mut TestContext<'_>) -> Result<()> {
    let mut guest = test.guest(&format!(
        "write mmio:{DOORBELL:#x} 4 1; repeat 3; write mmio:{DOORBELL:#x} 4 7; end; \
         write mmio:{DOORBELL:#x} 4 5; write mmio:{DOORBELL:#x} 2 7; write mmio:{DOORBELL:#x} 8 9; \
         say first; listen evtchn go; wait go; write mmio:{DOORBELL:#x} 4 7"
    ))?;
    let file = GuestFile::of(guest.dom())?;
    let (queue, rest) = (new_eventfd()?, new_eventfd()?);
    let fallback = Doorbell::fallback(DOORBELL, 4, &rest);
    file.assign(&Doorbell::value(DOORBELL, 4, 1, &queue))?;
    file.assign(&fallback)?;
    ensure!(all_missed(&file, &fallback)? == [nothing(0)]);
    guest.start()?;
    guest.await_message(0, "first")?;
    // The 8-byte write is wider than the claimed range.
    ensure!(take_count(&queue)? == 1 && take_count(&rest)? == 5, "{:?}", file.stats());
    let entries = all_missed(&file, &fallback)?;
    ensure!(entries == [kick(2, 7, 1), kick(4, 5, 1), kick(4, 7, 3), nothing(0)], "{entries:?}");
    Notifier::to(test, &mut guest, "go")?.notify()?;
    guest.finish()?;
    let entries = all_missed(&file, &fallback)?;
    ensure!(entries == [kick(4, 7, 1), nothing(0)], "{entries:?}");
    let stats = file.stats()?;
    ensure!((stats.delivered, stats.held) == (7, 0), "{stats:?}");
    Ok(())
}

pub(super) fn overflow(test: &mut TestContext<'_>) -> Result<()> {
    let mut guest = test.guest(&format!(
        "repeat 40; write mmio:{DOORBELL:#x} 4 i; end; write mmio:{DOORBELL:#x} 4 0"
    ))?;
    let file = GuestFile::of(guest.dom())?;
    let rest = new_eventfd()?;
    let fallback = Doorbell::fallback(DOORBELL, 4, &rest);
    file.assign(&fallback)?;
    guest.start()?;
    guest.finish()?;
    ensure!(take_count(&rest)? == 41);
    let entries = all_missed(&file, &fallback)?;
    let mut wanted: Vec<Missed> = (0..32).map(|value| kick(4, value, 1)).collect();
    wanted[0].kicks = 2;
    wanted.push(nothing(8));
    ensure!(entries == wanted, "{entries:?}");
    ensure!(all_missed(&file, &fallback)? == [nothing(0)], "the overflow is reported once");
    Ok(())
}

pub(super) fn after_held(test: &mut TestContext<'_>) -> Result<()> {
    let mut guest = test.guest(&format!(
        "repeat 2; write mmio:{DOORBELL:#x} 4 7; end; write mmio:{DOORBELL:#x} 4 8"
    ))?;
    let file = GuestFile::of(guest.dom())?;
    let (one, rest) = (new_eventfd()?, new_eventfd()?);
    file.assign(&Doorbell::value(DOORBELL, 4, 1, &one))?;
    guest.start()?;
    guest.finish()?;
    let fallback = Doorbell::fallback(DOORBELL, 4, &rest);
    file.assign(&fallback)?;
    ensure!(take_count(&rest)? == 1 && take_count(&one)? == 0);
    // The held list keeps which kicks came, not how often.
    let entries = all_missed(&file, &fallback)?;
    ensure!(entries == [kick(4, 7, 1), kick(4, 8, 1), nothing(0)], "{entries:?}");
    ensure!(file.list(LIST_HELD)?.is_empty());
    Ok(())
}

pub(super) fn lists(test: &mut TestContext<'_>) -> Result<()> {
    let port = 0xC050;
    let mut guest = test.guest(&format!(
        "repeat 5; write mmio:{DOORBELL:#x} 4 3; end; repeat 2; write mmio:{DOORBELL:#x} 4 9; end; \
         write mmio:{DOORBELL:#x} 2 9; write pio:{port:#x} 1 4"
    ))?;
    let (file, eventfd) = (GuestFile::of(guest.dom())?, new_eventfd()?);
    let none = (file.list(LIST_DOORBELLS)?, file.list(LIST_HELD)?);
    ensure!(none == (vec![], vec![]), "{none:?}");
    // Not in the order of the list.
    for doorbell in [
        Doorbell::fallback(port, 4, &eventfd).pio(),
        Doorbell::wildcard(DOORBELL + 0x200, ANY, 3, &eventfd),
        Doorbell::value(DOORBELL, 4, 3, &eventfd).masked(0xFFFF),
        Doorbell::wildcard(DOORBELL + 0x100, WIDTH, 8, &eventfd),
        Doorbell::value(DOORBELL, 4, 2, &eventfd).masked(0xFFFF),
    ] {
        file.assign(&doorbell)?;
    }
    guest.start()?;
    guest.finish()?;
    let entry = |kind, len, addr| Entry {
        space: MMIO,
        kind,
        len,
        addr,
        datamatch: 0,
        datamask: 0,
        kicks: 0,
        held: 0,
    };
    let value = |datamatch| Entry { datamatch, datamask: 0xFFFF, ..entry(VALUE, 4, DOORBELL) };
    let found = file.list(LIST_DOORBELLS)?;
    let wanted = [
        // Unmatched kicks at an address are listed with the first doorbell there.
        Entry { held: 3, ..value(2) },
        Entry { kicks: 5, ..value(3) },
        entry(WIDTH, 8, DOORBELL + 0x100),
        entry(ANY, 3, DOORBELL + 0x200),
        Entry { space: PIO, kicks: 1, ..entry(crate::device::request::FALLBACK, 4, port) },
    ];
    ensure!(found == wanted, "{found:x?}");
    let found = file.list(LIST_HELD)?;
    let held = |len, datamask| Entry { datamatch: 9, datamask, ..entry(VALUE, len, DOORBELL) };
    ensure!(found == [held(2, 0xFFFF), held(4, 0xFFFF_FFFF)], "{found:x?}");
    Ok(())
}
