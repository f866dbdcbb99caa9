//! One measurement of kicks.

use crate::backend::{Backend, Found};
use crate::floor::Floor;
use crate::guest::Guest;
use crate::switches::{Processes, Role, Switches};
use crate::way;
use anyhow::{Context, Result, ensure};
use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::{OFlags, fcntl_setfl};
use rustix::io::Errno;
use std::os::fd::OwnedFd;
use std::time::Duration;
use xen_eventfd_bench::{Figures, Filter, Kicks, Space, Spread, arch};
use xen_eventfd_scenarios::TestContext;

/// Kicks of each vCPU that are measured.
const KICKS: u64 = 1000;
/// Kicks that warm up.
const WARM_UP: u64 = 16;

/// The script of each vCPU. They kick in two rounds: to warm up, and to be measured.
fn script(kicks: &Kicks) -> String {
    let place = match kicks.space {
        Space::Mmio => "mmio",
        Space::Pio => "pio",
    };
    let write = format!("write {place}:{:#x} 4 {}", way::doorbell(kicks.space), way::value(kicks));
    let warm_up = format!("repeat {WARM_UP}; {write}; end");
    let first = format!(
        "listen evtchn go; wait go; {warm_up}; meet; send go; wait go; meet; stamp {write} {KICKS}; \
         meet; send go; wait go; meet; stamps"
    );
    let other = format!("{warm_up}; meet; meet; stamp {write} {KICKS}; meet; meet; stamps");
    let others = (1..kicks.vcpus).map(|_| other.clone());
    std::iter::once(first).chain(others).collect::<Vec<_>>().join(" | ")
}

/// Lets other processes finish what they are doing.
fn settle() {
    std::thread::sleep(Duration::from_millis(50));
}

pub(crate) fn measure(test: &TestContext<'_>, kicks: &Kicks) -> Result<Figures> {
    let mut guest = Guest::create(test.environment(), &script(kicks))?;
    let kick = eventfd(0, EventfdFlags::CLOEXEC)?;
    let backend = kicks.backend.then(|| Backend::start(&kick)).transpose()?;
    let vmm = way::vmm(test, guest.dom(), kicks.way)?;
    let serving = way::serve(kicks, guest.dom(), &test.environment().run_dir(), &kick)?;
    let mut processes = vec![(std::process::id(), Role::Bench)];
    processes.extend(backend.as_ref().map(|backend| (backend.process(), Role::Backend)));
    processes.extend(serving.process());
    processes.extend(vmm.as_ref().map(|vmm| (vmm.pid(), Role::Vmm)));
    let processes = Processes(processes);
    let mut clock = Floor::open()?;

    guest.start()?;
    guest.round()?;
    settle();
    let before = Switches::now()?;
    let began = clock.running()?;
    arch::begin_mark();
    guest.round()?;
    arch::end_mark();
    let ended = clock.running()?;
    settle();
    let after = Switches::now()?;

    guest.resume()?;
    let stamps = guest.finish()?;
    let (dom0, in_guest) = (clock.clock()?, guest.clock()?);
    let found = match backend {
        Some(backend) => backend.end(&kick)?,
        None => left_in(&kick)?,
    };
    drop(serving);
    if let Some(vmm) = vmm {
        vmm.stop()?;
    }
    let (mut took, mut kicked) = (Vec::new(), Vec::new());
    for stamps in stamps.values() {
        ensure!(stamps.is_sorted(), "a guest's time went backwards");
        let (pairs, _) = stamps.as_chunks();
        took.extend(pairs.iter().map(|[before, after]| after - before));
        kicked.extend(pairs.iter().map(|[before, _]| dom0.translate(in_guest, *before)));
    }
    let samples = KICKS * u64::from(kicks.vcpus);
    ensure!(took.len() as u64 == samples, "{} of {samples} kicks were timed", took.len());
    kicked.sort_unstable();
    let warm = WARM_UP * u64::from(kicks.vcpus);
    let (woken, delivered, across) = across(&found, warm, &kicked)?;
    if kicks.way.signals() && kicks.filter != Filter::None {
        ensure!(delivered == samples, "{delivered} of {samples} kicks were delivered");
    }
    Ok(Figures {
        samples,
        ticks: Spread::of(took),
        across: if kicks.backend { Spread::of(across) } else { None },
        found: if kicks.backend { woken } else { 0 },
        delivered,
        dom0: ended - began,
        wakeups: before.until(&after, &processes),
    })
}

/// The count that no backend has read.
fn left_in(kick: &OwnedFd) -> Result<Vec<Found>> {
    let mut bytes = [0; 8];
    fcntl_setfl(kick, OFlags::NONBLOCK)?;
    match rustix::io::read(kick, &mut bytes) {
        Ok(_) => Ok(vec![Found { at: 0, count: u64::from_ne_bytes(bytes) }]),
        Err(Errno::AGAIN) => Ok(Vec::new()),
        Err(errno) => Err(errno.into()),
    }
}

/// The number of reads with a count after the first `warm` kicks, the number of kicks in them, and
/// how long each kick took.
fn across(found: &[Found], warm: u64, kicked: &[u64]) -> Result<(u64, u64, Vec<u64>)> {
    let (mut before, mut woken, mut took) = (0, 0, Vec::new());
    for Found { at, count } in found {
        let (first, last) = (before, before + count);
        before = last;
        if last <= warm {
            continue;
        }
        woken += 1;
        for kick in first.max(warm)..last {
            let kicked = usize::try_from(kick - warm).ok().and_then(|kick| kicked.get(kick));
            let Some(kicked) = kicked else { continue };
            let late = "a kick arrived before it was made: the clocks do not agree";
            // Without a backend there is no time of arrival.
            took.push(if *at == 0 { 0 } else { at.checked_sub(*kicked).context(late)? });
        }
    }
    Ok((woken, before.saturating_sub(warm), took))
}

#[cfg(test)]
mod tests {
    use super::*;
    use xen_eventfd_bench::Way;
    use xen_eventfd_guest_script::Program;

    #[test]
    fn script_can_be_carried_out() {
        for vcpus in 1..=2 {
            let (space, filter) = (Space::Pio, Filter::Datamatch);
            let (way, registrations, backend) = (Way::Module, 64, true);
            let kicks = Kicks { way, registrations, vcpus, space, filter, backend };
            let script = script(&kicks);
            let program = Program::parse(&script).map_err(|error| format!("{script}: {error}"));
            assert_eq!(program.unwrap().vcpus(), vcpus as usize);
        }
    }

    #[test]
    fn kicks_that_came_together_were_found_at_once() {
        let found = [(10, 2), (100, 1), (200, 2)].map(|(at, count)| Found { at, count });
        // The third of the warm-up's and the first one that counts came together.
        assert_eq!(across(&found, 2, &[90, 150, 160]).unwrap(), (2, 3, vec![10, 50, 40]));
        assert_eq!(across(&found, 4, &[150]).unwrap(), (1, 1, vec![50]));
        assert!(across(&found, 4, &[250]).is_err(), "a kick that arrives before it was made");
    }
}
