//! Eventfds that raise interrupts.

use super::common::{DOORBELL, IDLE, Notifier, refused};
use super::leftovers;
use crate::device::GuestFile;
use crate::device::structs::{Doorbell, Irq};
use anyhow::{Context, Result, ensure};
use rustix::event::{EventfdFlags, eventfd};
use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, setrlimit};
use std::os::fd::AsRawFd;
use std::sync::Barrier;
use std::thread;
use xen_eventfd::Arch;
use xen_eventfd_scenarios::TestContext;
use xen_eventfd_scenarios::test_context::{await_count, new_eventfd, signal, take_count};

/// The guest waits for `times` interrupts, and kicks its doorbell after each.
fn ping_pong(test: &mut TestContext<'_>, listen: &str, vector: Option<u32>) -> Result<()> {
    const TIMES: u64 = 500;
    let mut guest = test.guest(&format!(
        "listen {listen} call; say ready; repeat {TIMES}; wait call; \
         write mmio:{DOORBELL:#x} 4 0; end"
    ))?;
    let file = GuestFile::of(guest.dom())?;
    let (call, kick) = (new_eventfd()?, new_eventfd()?);
    file.assign(&Doorbell::value(DOORBELL, 4, 0, &kick))?;
    guest.start()?;
    guest.await_message(0, "ready")?;
    let irq = match vector {
        Some(vector) => Irq::of_vector(vector, &call),
        None => Irq::channel(guest.port("call")?, &call),
    };
    file.assign_irq(&irq)?;
    for round in 1..=TIMES {
        signal(&call)?;
        // In the wakeup of the write, not later.
        let counts = file.irq_stats(&irq)?;
        ensure!(counts == (round, 0), "{counts:?} after {round} signals");
        await_count(&kick, 1)?;
    }
    guest.finish()?;
    ensure!(take_count(&call)? == 0, "a signal that is passed on is consumed");
    refused(file.lower(&Irq::isa(5, &call)), Errno::NOENT, "lower without an assignment")?;
    file.lower(&irq)?;
    file.deassign_irq(&irq)?;
    refused(file.irq_stats(&irq), Errno::NOENT, "stats after deassign")?;
    Ok(())
}

pub(super) fn event_channel(test: &mut TestContext<'_>) -> Result<()> {
    ping_pong(test, "evtchn", None)
}

pub(super) fn own(test: &mut TestContext<'_>) -> Result<()> {
    ping_pong(test, "msi 0x41", Some(0x41))
}

pub(super) fn pending(test: &mut TestContext<'_>) -> Result<()> {
    let mut guest = test.guest("listen evtchn call; wait call")?;
    let (file, call) = (GuestFile::of(guest.dom())?, new_eventfd()?);
    (0..3).try_for_each(|_| signal(&call))?;
    guest.start()?;
    let irq = Irq::channel(guest.port("call")?, &call);
    file.assign_irq(&irq)?;
    ensure!(file.irq_stats(&irq)? == (1, 0), "once, and before the call returns");
    guest.finish()?;
    ensure!(take_count(&call)? == 0);
    Ok(())
}

pub(super) fn last_signal(test: &mut TestContext<'_>) -> Result<()> {
    const TIMES: u32 = 50;
    let mut guest = test.guest(&format!(
        "listen evtchn call; repeat {TIMES}; wait call; write mmio:{DOORBELL:#x} 4 0; end"
    ))?;
    let file = GuestFile::of(guest.dom())?;
    let (call, kick) = (new_eventfd()?, new_eventfd()?);
    file.assign(&Doorbell::value(DOORBELL, 4, 0, &kick))?;
    guest.start()?;
    let irq = Irq::channel(guest.port("call")?, &call);
    for _ in 0..TIMES {
        file.assign_irq(&irq)?;
        signal(&call)?;
        file.deassign_irq(&irq)?;
        await_count(&kick, 1)?;
    }
    guest.finish()
}

pub(super) fn one_each(test: &mut TestContext<'_>) -> Result<()> {
    let (guest, other) = (test.guest(IDLE)?, test.guest(IDLE)?);
    let (file, others) = (GuestFile::of(guest.dom())?, GuestFile::of(other.dom())?);
    let (call, second) = (new_eventfd()?, new_eventfd()?);
    let irq = Irq::of_vector(0x41, &call);
    file.assign_irq(&irq)?;
    refused(file.assign_irq(&irq), Errno::BUSY, "the same again")?;
    refused(
        file.assign_irq(&Irq::of_vector(0x42, &call)),
        Errno::BUSY,
        "another interrupt of the guest",
    )?;
    let again = call.try_clone()?;
    refused(file.assign_irq(&Irq::of_vector(0x42, &again)), Errno::BUSY, "by another descriptor")?;
    refused(others.assign_irq(&irq), Errno::BUSY, "an interrupt of another guest")?;
    refused(others.deassign_irq(&irq), Errno::NOENT, "from another guest")?;
    // An interrupt may have many eventfds.
    file.assign_irq(&Irq::of_vector(0x41, &second))?;
    let not_quite = [
        ("vector", Irq::of_vector(0x42, &call)),
        match Arch::NATIVE {
            Arch::X86 => ("address", Irq { msi_addr: 0xFEE0_1000, ..irq }),
            Arch::Arm => ("trigger", irq.level()),
        },
        ("kind", Irq::isa(0, &call)),
        ("eventfd", Irq { eventfd: new_eventfd()?.as_raw_fd(), ..irq }),
    ];
    for (what, irq) in not_quite {
        // The last descriptor is closed by now: another eventfd has its number.
        let third = new_eventfd()?;
        ensure!(what != "eventfd" || irq.eventfd == third.as_raw_fd());
        refused(file.deassign_irq(&irq), Errno::NOENT, what)?;
        refused(file.irq_stats(&irq), Errno::NOENT, what)?;
        refused(file.lower(&irq), Errno::NOENT, what)?;
    }
    file.deassign_irq(&Irq::of_vector(0x41, &again))?;
    refused(file.deassign_irq(&irq), Errno::NOENT, "not assigned any more")?;
    others.assign_irq(&irq)?;
    drop(others);
    // Closing the other guest's file removed its assignments.
    file.assign_irq(&irq)?;
    Ok(())
}

pub(super) fn deassigned(test: &mut TestContext<'_>) -> Result<()> {
    let script = "listen msi 0x41 call; say ready; wait call; say called; wait call";
    let mut guest = test.guest(script)?;
    let (file, call) = (GuestFile::of(guest.dom())?, new_eventfd()?);
    guest.start()?;
    guest.await_message(0, "ready")?;
    let irq = Irq::of_vector(0x41, &call);
    file.assign_irq(&irq)?;
    signal(&call)?;
    // A signal that is pending already is not raised twice.
    guest.await_message(0, "called")?;
    file.deassign_irq(&irq)?;
    (0..5).try_for_each(|_| signal(&call))?;
    ensure!(take_count(&call)? == 5, "the eventfd counts signals again");
    file.assign_irq(&irq)?;
    ensure!(file.irq_stats(&irq)? == (0, 0), "no interrupt was pending");
    signal(&call)?;
    guest.finish()
}

pub(super) fn closed(test: &mut TestContext<'_>) -> Result<()> {
    let mut guest = test.guest("listen evtchn call; wait call; say called; wait call")?;
    let file = GuestFile::of(guest.dom())?;
    guest.start()?;
    let port = guest.port("call")?;
    let bound = leftovers::interrupts()?;
    let call = new_eventfd()?;
    let again = call.try_clone()?;
    file.assign_irq(&Irq::channel(port, &call))?;
    ensure!(leftovers::interrupts()? == bound + 1);
    drop(call);
    // It is still open.
    signal(&again)?;
    guest.await_message(0, "called")?;
    ensure!(file.irq_stats(&Irq::channel(port, &again))? == (1, 0));
    drop(again);
    // The next request finds it gone, with its port: another eventfd may have it.
    file.stats()?;
    ensure!(leftovers::interrupts()? == bound, "the port of a closed eventfd is still bound");
    let other = new_eventfd()?;
    let irq = Irq::channel(port, &other);
    refused(file.irq_stats(&irq), Errno::NOENT, "a new eventfd")?;
    file.assign_irq(&irq)?;
    signal(&other)?;
    guest.finish()
}

pub(super) fn lines(test: &mut TestContext<'_>) -> Result<()> {
    let guest = test.guest(IDLE)?;
    let file = GuestFile::of(guest.dom())?;
    let call = new_eventfd()?;
    let own = Irq::of_vector(0x41, &call);
    let lines = [Irq::isa(5, &call), Irq::intx(3, 1, &call)];
    // Xen refuses this one itself: the delivery mode does not exist, or the guest has fewer lines.
    let (others, odd) = match Arch::NATIVE {
        Arch::X86 => (vec![Irq::spi(33, &call)], Irq { msi_data: 0x341, ..own }),
        Arch::Arm => (vec![Irq::msi(0x41, &call)], Irq::spi(1019, &call)),
    };
    let foreign: Vec<_> =
        lines.into_iter().chain(others).chain(lines.iter().map(|line| line.level())).collect();
    for irq in &foreign {
        refused(file.assign_irq(irq), Errno::OPNOTSUPP, "what such a guest does not have")?;
        refused(file.lower(irq), Errno::NOENT, "without an assignment")?;
    }
    file.assign_irq(&own)?;
    for irq in &foreign {
        refused(file.set_irq(&own, irq), Errno::OPNOTSUPP, "a change to one")?;
    }
    // Interrupts that Xen refuses are counted.
    file.set_irq(&own, &odd)?;
    (0..4).try_for_each(|_| signal(&call))?;
    let counts = file.irq_stats(&odd)?;
    ensure!(counts == (0, 4), "{counts:?}");
    file.deassign_irq(&odd)?;
    Ok(())
}

pub(super) fn from_a_kick(test: &mut TestContext<'_>) -> Result<()> {
    let mut guest = test.guest(&format!(
        "listen msi 0x41 call; say ready; listen evtchn go; wait go; repeat 100; \
         write mmio:{DOORBELL:#x} 4 0; wait call; end"
    ))?;
    let (file, both) = (GuestFile::of(guest.dom())?, new_eventfd()?);
    guest.start()?;
    guest.await_message(0, "ready")?;
    file.assign(&Doorbell::value(DOORBELL, 4, 0, &both))?;
    file.assign_irq(&Irq::of_vector(0x41, &both))?;
    Notifier::to(test, &mut guest, "go")?.notify()?;
    guest.finish()?;
    ensure!(file.irq_stats(&Irq::of_vector(0x41, &both))? == (100, 0));
    Ok(())
}

pub(super) fn limit(test: &mut TestContext<'_>) -> Result<()> {
    let enough = Rlimit { current: Some(2048), maximum: Some(2048) };
    setrlimit(Resource::Nofile, enough)?;
    let guest = test.guest(IDLE)?;
    let file = GuestFile::of(guest.dom())?;
    let mut calls = Vec::new();
    for nth in 0..1024 {
        let call = new_eventfd()?;
        file.assign_irq(&Irq::of_vector(0x41, &call)).with_context(|| format!("the {nth}th"))?;
        calls.push(call);
    }
    let one_more = new_eventfd()?;
    let irq = Irq::of_vector(0x41, &one_more);
    refused(file.assign_irq(&irq), Errno::NOSPC, "one too many")?;
    // A refused assignment leaves nothing.
    signal(&one_more)?;
    ensure!(take_count(&one_more)? == 1);
    drop(calls);
    file.assign_irq(&irq)?;
    Ok(())
}

pub(super) fn semaphore(test: &mut TestContext<'_>) -> Result<()> {
    let guest = test.guest(IDLE)?;
    let file = GuestFile::of(guest.dom())?;
    let call = eventfd(3, EventfdFlags::CLOEXEC | EventfdFlags::SEMAPHORE)?;
    let (irq, add) =
        (Irq::of_vector(0x41, &call), |count: u64| rustix::io::write(&call, &count.to_ne_bytes()));
    let raised = |times| -> Result<()> {
        let counts = file.irq_stats(&irq)?;
        ensure!(counts == (times, 0), "{counts:?}, not {times}");
        Ok(())
    };
    file.assign_irq(&irq)?;
    // Its counter before the assignment raises one interrupt.
    raised(1)?;
    add(1000)?;
    raised(2)?;
    // As much as the counter can take beside the 2 and the 999 that it holds.
    add(u64::MAX - 1 - 1001)?;
    raised(3)?;
    add(1)?;
    raised(4)?;
    file.mask_irq(&irq)?;
    ensure!(file.irq_state(&irq)? == (true, false), "the rest of the counter is not a signal");
    add(1)?;
    ensure!(file.irq_state(&irq)? == (true, true));
    file.unmask_irq(&irq)?;
    raised(5)?;
    // The end of the assignment does not clear it either.
    let left = u64::MAX - 2;
    file.deassign_irq(&irq)?;
    let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", call.as_raw_fd()))?;
    let is_left = info.contains(&format!("eventfd-count: {left:16x}"));
    ensure!(is_left, "the end of the assignment has changed the counter: {info}");
    Ok(())
}

pub(super) fn changed(test: &mut TestContext<'_>) -> Result<()> {
    let mut guest = test.guest(
        "listen msi 0x41 one; listen msi 0x42 other; listen evtchn call; say ready; \
         wait one; say one; wait other; say other; wait call; say call; wait one",
    )?;
    let (file, call) = (GuestFile::of(guest.dom())?, new_eventfd()?);
    guest.start()?;
    guest.await_message(0, "ready")?;
    let (port, bound) = (guest.port("call")?, leftovers::interrupts()?);
    let (one, other) = (Irq::of_vector(0x41, &call), Irq::of_vector(0x42, &call));
    let channel = Irq::channel(port, &call);
    refused(file.set_irq(&one, &other), Errno::NOENT, "a change without an assignment")?;
    file.assign_irq(&one)?;
    signal(&call)?;
    guest.await_message(0, "one")?;
    file.set_irq(&one, &other)?;
    refused(file.irq_stats(&one), Errno::NOENT, "the old interrupt")?;
    signal(&call)?;
    guest.await_message(0, "other")?;
    // A refused change changes nothing.
    let refusals = [
        (Irq::channel(xen_eventfd::Port(port.0 + 100), &call), Errno::INVAL, "no such port"),
        (Irq::isa(5, &call), Errno::OPNOTSUPP, "a line of a guest without lines"),
        (channel.level(), Errno::INVAL, "a level-triggered event channel"),
    ];
    for (new, errno, what) in refusals {
        refused(file.set_irq(&other, &new), errno, what)?;
        let counts = file.irq_stats(&other).with_context(|| format!("after {what}"))?;
        ensure!(counts == (2, 0), "{counts:?} after {what}");
    }
    ensure!(leftovers::interrupts()? == bound);
    file.set_irq(&other, &channel)?;
    ensure!(leftovers::interrupts()? == bound + 1);
    signal(&call)?;
    guest.await_message(0, "call")?;
    // To the same port, and then to another interrupt: the port is not bound any more.
    file.set_irq(&channel, &channel)?;
    ensure!(leftovers::interrupts()? == bound + 1);
    file.set_irq(&channel, &one)?;
    ensure!(leftovers::interrupts()? == bound, "the port of the old interrupt is still bound");
    signal(&call)?;
    guest.finish()?;
    ensure!(file.irq_stats(&one)? == (4, 0), "counts go on");
    Ok(())
}

pub(super) fn masked(test: &mut TestContext<'_>) -> Result<()> {
    let mut guest = test.guest(
        "listen msi 0x41 one; listen msi 0x42 other; say ready; wait other; say other; wait one",
    )?;
    let (file, call) = (GuestFile::of(guest.dom())?, new_eventfd()?);
    guest.start()?;
    guest.await_message(0, "ready")?;
    let (one, other) = (Irq::of_vector(0x41, &call), Irq::of_vector(0x42, &call));
    for request in [GuestFile::mask_irq, GuestFile::unmask_irq] {
        refused(request(&file, &one), Errno::NOENT, "without an assignment")?;
    }
    file.assign_irq(&one)?;
    ensure!(file.irq_state(&one)? == (false, false));
    file.unmask_irq(&one)?;
    ensure!(file.irq_stats(&one)? == (0, 0), "nothing was pending");
    file.mask_irq(&one)?;
    ensure!(file.irq_state(&one)? == (true, false));
    (0..3).try_for_each(|_| signal(&call))?;
    ensure!(file.irq_state(&one)? == (true, true) && file.irq_stats(&one)? == (0, 0));
    ensure!(take_count(&call)? == 0, "a pending signal is not in the eventfd's counter");
    // As a guest does with a vector: mask, change, unmask.
    file.set_irq(&one, &other)?;
    ensure!(file.irq_state(&other)? == (true, true) && file.irq_stats(&other)? == (0, 0));
    file.mask_irq(&other)?;
    ensure!(file.irq_state(&other)? == (true, true), "masking it again loses no signal");
    file.unmask_irq(&other)?;
    ensure!(file.irq_state(&other)? == (false, false) && file.irq_stats(&other)? == (1, 0));
    guest.await_message(0, "other")?;
    // A signal that is pending at the end returns to the eventfd's counter, for the next assignment.
    file.mask_irq(&other)?;
    (0..3).try_for_each(|_| signal(&call))?;
    file.deassign_irq(&other)?;
    file.assign_irq(&one)?;
    ensure!(file.irq_state(&one)? == (false, false) && file.irq_stats(&one)? == (1, 0));
    guest.finish()
}

/// One thread signals while another changes the assignment.
pub(super) fn moved(test: &mut TestContext<'_>) -> Result<()> {
    const SIGNALS: u64 = 20_000;
    let mut guest = test.guest(
        "listen evtchn one; listen evtchn other; listen evtchn stop; until stop; pause 100; end",
    )?;
    let file = GuestFile::of(guest.dom())?;
    guest.start()?;
    let (call, bound) = (new_eventfd()?, leftovers::interrupts()?);
    let turns = [
        Irq::channel(guest.port("one")?, &call),
        Irq::of_vector(0x41, &call),
        Irq::channel(guest.port("other")?, &call),
    ];
    file.assign_irq(&turns[0])?;
    for masks in [false, true] {
        let (before, _) = file.irq_stats(&turns[0])?;
        let moves = thread::scope(|scope| -> Result<u64> {
            let signalling = scope.spawn(|| (0..SIGNALS).try_for_each(|_| signal(&call)));
            let mut moves = 0;
            while moves == 0 || !signalling.is_finished() {
                for (was, is) in turns.iter().zip(turns.iter().cycle().skip(1)) {
                    if masks {
                        file.mask_irq(was)?;
                        let counts = file.irq_stats(was)?;
                        file.set_irq(was, is)?;
                        ensure!(file.irq_stats(is)? == counts, "raised while it was masked");
                        file.unmask_irq(is)?;
                        ensure!(file.irq_state(is)? == (false, false));
                    } else {
                        file.set_irq(was, is)?;
                    }
                    moves += 1;
                }
            }
            signalling.join().map_err(|_| anyhow::anyhow!("the signalling thread panicked"))??;
            Ok(moves)
        })?;
        let (raised, failed) = file.irq_stats(&turns[0])?;
        ensure!(failed == 0, "{failed} went to the old port");
        // Signals that arrive while it is masked are merged.
        let all = raised - before;
        let expected = if masks { 1..=SIGNALS } else { SIGNALS..=SIGNALS };
        ensure!(expected.contains(&all), "{all} of {SIGNALS}, masks: {masks}");
        println!("{all} interrupts of {SIGNALS} signals in {moves} moves, masks: {masks}");
    }
    ensure!(take_count(&call)? == 0);
    file.deassign_irq(&turns[0])?;
    ensure!(leftovers::interrupts()? == bound, "an old port is still bound");
    Notifier::to(test, &mut guest, "stop")?.notify()?;
    guest.finish()
}

pub(super) fn races(test: &mut TestContext<'_>) -> Result<()> {
    const ROUNDS: usize = 2000;
    let mut guest =
        test.guest("listen evtchn call; listen evtchn stop; until stop; pause 100; end")?;
    let file = GuestFile::of(guest.dom())?;
    guest.start()?;
    let port = guest.port("call")?;
    let stop = Notifier::to(test, &mut guest, "stop")?;
    let bound = leftovers::interrupts()?;
    // The eventfds that the two other threads close and signal in this round.
    let (mut closers, mut writers) = (Vec::new(), Vec::new());
    let mut irqs = Vec::new();
    let (gate, end) = (Barrier::new(3), Barrier::new(3));
    let (mut deassigned, mut gone) = (0, 0);
    // In batches, so that the descriptors of all rounds are not open at once.
    for lot in 0..ROUNDS / 100 {
        for round in 0..100 {
            let call = new_eventfd()?;
            let msi = Irq::of_vector(0x41, &call);
            irqs.push(if round % 2 == 0 { Irq::channel(port, &call) } else { msi });
            writers.push(call.try_clone()?);
            closers.push(call);
        }
        let result = thread::scope(|scope| -> Result<()> {
            let closer = scope.spawn(|| {
                for call in closers.drain(..) {
                    gate.wait();
                    drop(call);
                    end.wait();
                }
            });
            let writer = scope.spawn(|| {
                for call in writers.drain(..) {
                    gate.wait();
                    let written = signal(&call);
                    drop(call);
                    end.wait();
                    written.expect("an eventfd takes a signal");
                }
            });
            let mut failure = None;
            for irq in irqs.drain(..) {
                let assigned = file.assign_irq(&irq);
                gate.wait();
                let result = file.deassign_irq(&irq);
                end.wait();
                match (assigned, result) {
                    (Ok(()), Ok(())) => deassigned += 1,
                    // Its descriptor is closed, or the assignment ended with it.
                    (Ok(()), Err(Errno::BADF | Errno::NOENT)) => gone += 1,
                    other => failure = failure.or(Some(other)),
                }
            }
            closer.join().map_err(|_| anyhow::anyhow!("the closing thread panicked"))?;
            writer.join().map_err(|_| anyhow::anyhow!("the writing thread panicked"))?;
            ensure!(failure.is_none(), "{failure:?}");
            Ok(())
        });
        result.with_context(|| format!("in batch {lot}"))?;
    }
    file.stats()?;
    ensure!(
        leftovers::interrupts()? == bound,
        "a port of an assignment that has ended is still bound"
    );
    println!("{deassigned} deassigned, {gone} closed before");
    ensure!(deassigned > 0 && gone > 0, "one of them was always first: there was no race");
    stop.notify()?;
    guest.finish()?;
    Ok(())
}
