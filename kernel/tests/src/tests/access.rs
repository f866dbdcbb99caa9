//! Which access a doorbell matches, and that every other access is answered as well.

use super::common::{DOORBELL, refused};
use crate::device::GuestFile;
use crate::device::request::{ANY, WIDTH};
use crate::device::structs::Doorbell;
use anyhow::{Result, ensure};
use rustix::io::Errno;
use xen_eventfd_scenarios::TestContext;
use xen_eventfd_scenarios::test_context::{new_eventfd, take_count};

pub(super) fn widths(test: &mut TestContext<'_>) -> Result<()> {
    let writes: String = [1, 2, 4, 8]
        .iter()
        .map(|w| format!("repeat {w}; write mmio:{DOORBELL:#x} {w} 1; end; "))
        .collect();
    let mut guest = test.guest(writes.trim_end_matches("; "))?;
    let file = GuestFile::of(guest.dom())?;
    let mut kicks = Vec::new();
    for width in [1, 2, 4, 8] {
        let kick = new_eventfd()?;
        file.assign(&Doorbell::value(DOORBELL, width, 1, &kick))?;
        kicks.push((u64::from(width), kick));
    }
    guest.start()?;
    guest.finish()?;
    for (width, kick) in &kicks {
        let found = take_count(kick)?;
        ensure!(found == *width, "{found} kicks of {width} bytes");
    }
    Ok(())
}

pub(super) fn notification_data(test: &mut TestContext<'_>) -> Result<()> {
    let mut guest = test.guest(&format!(
        "write mmio:{DOORBELL:#x} 4 0x80010003; write mmio:{DOORBELL:#x} 4 3; \
         write mmio:{DOORBELL:#x} 4 0x30004"
    ))?;
    let file = GuestFile::of(guest.dom())?;
    let (three, four) = (new_eventfd()?, new_eventfd()?);
    file.assign(&Doorbell::value(DOORBELL, 4, 3, &three).masked(0xFFFF))?;
    file.assign(&Doorbell::value(DOORBELL, 4, 4, &four).masked(0xFFFF))?;
    guest.start()?;
    guest.finish()?;
    let found = (take_count(&three)?, take_count(&four)?);
    ensure!(found == (2, 1), "{found:?}");
    Ok(())
}

pub(super) fn wildcards(test: &mut TestContext<'_>) -> Result<()> {
    let other = DOORBELL + 0x200;
    let mut guest = test.guest(&format!(
        "repeat 5; write mmio:{DOORBELL:#x} 4 i; end; write mmio:{DOORBELL:#x} 2 1; \
         write mmio:{other:#x} 1 9; write mmio:{other:#x} 4 9; write mmio:{other:#x} 8 9"
    ))?;
    let file = GuestFile::of(guest.dom())?;
    let (one, rest, any) = (new_eventfd()?, new_eventfd()?, new_eventfd()?);
    file.assign(&Doorbell::value(DOORBELL, 4, 1, &one))?;
    file.assign(&Doorbell::wildcard(DOORBELL, WIDTH, 4, &rest))?;
    file.assign(&Doorbell::wildcard(other, ANY, 4, &any))?;
    let fixed = Doorbell::wildcard(other, WIDTH, 4, &rest);
    refused(file.assign(&fixed), Errno::EXIST, "a wildcard beside one of any width")?;
    guest.start()?;
    guest.finish()?;
    let found = (take_count(&one)?, take_count(&rest)?, take_count(&any)?);
    ensure!(found == (1, 4, 2), "{found:?}");
    // The 2-byte write matched nothing; the 8-byte write is wider than the claimed range.
    ensure!(file.stats()?.held == 1, "{:?}", file.stats());
    Ok(())
}

pub(super) fn ports(test: &mut TestContext<'_>) -> Result<()> {
    let port = 0xC050;
    let mut guest = test.guest(&format!(
        "repeat 10; write pio:{port:#x} 2 1; end; write pio:{port:#x} 4 1; \
         write pio:{port:#x} 1 1; read pio:{port:#x} 2"
    ))?;
    let file = GuestFile::of(guest.dom())?;
    let kicks = [new_eventfd()?, new_eventfd()?, new_eventfd()?];
    for (kick, width) in kicks.iter().zip([2, 4, 1]) {
        file.assign(&Doorbell::value(port, width, 1, kick).pio())?;
    }
    guest.start()?;
    guest.finish()?;
    let found = [take_count(&kicks[0])?, take_count(&kicks[1])?, take_count(&kicks[2])?];
    ensure!(found == [10, 1, 1], "{found:?}");
    ensure!(file.stats()?.reads == 1);
    Ok(())
}

pub(super) fn reads(test: &mut TestContext<'_>) -> Result<()> {
    let mut guest = test.guest(&format!("read mmio:{DOORBELL:#x} 4; read mmio:{DOORBELL:#x} 2"))?;
    let (file, kick) = (GuestFile::of(guest.dom())?, new_eventfd()?);
    file.assign(&Doorbell::value(DOORBELL, 4, 0, &kick))?;
    guest.start()?;
    guest.finish()?;
    guest.trace_reports(test);
    let reports = test.trace.to_string();
    let zeros = reports.lines().filter(|line| line.contains("read") && line.ends_with("= 0x0"));
    ensure!(zeros.count() == 2, "{reports}");
    ensure!(take_count(&kick)? == 0 && file.stats()?.reads == 2);
    Ok(())
}

pub(super) fn odd(test: &mut TestContext<'_>) -> Result<()> {
    let mut guest = test.guest(&format!(
        "rep mmio:{DOORBELL:#x} 2 7 2; rep pio:0xc050 2 3 8; write mmio:{DOORBELL:#x} 4 7; \
         repeat 10; balloon 1; write mmio:{DOORBELL:#x} 4 7; end; say on"
    ))?;
    let file = GuestFile::of(guest.dom())?;
    let (memory, ports) = (new_eventfd()?, new_eventfd()?);
    file.assign(&Doorbell::value(DOORBELL, 4, 7, &memory))?;
    file.assign(&Doorbell::wildcard(0xC050, ANY, 4, &ports).pio())?;
    guest.start()?;
    guest.finish()?;
    let (kicks, stats) = (take_count(&memory)?, file.stats()?);
    ensure!(kicks == 11, "{kicks} kicks, {stats:?}");
    ensure!(stats.odd > 0 && stats.broadcasts > 0, "{stats:?}");
    Ok(())
}
