//! Registrations, files, processes and guests that come and go during kicks, and must leave nothing behind.

use super::common::{BEAT, DOORBELL, Kicking, Notifier, refused, two_queues};
use super::leftovers::{self, Before};
use super::processes::{holder_of, inheritor_of, owner_of};
use crate::device::request::{ASSIGN, DEASSIGN};
use crate::device::structs::{Create, Doorbell};
use crate::device::{Control, GuestFile, issue_number};
use anyhow::{Context, Result, anyhow, ensure};
use rustix::io::Errno;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};
use xen_eventfd::DomId;
use xen_eventfd_scenarios::test_context::{await_count, await_next_beat, new_eventfd, take_count};
use xen_eventfd_scenarios::{PATIENCE, TestContext};

pub(super) fn assign_under_load(test: &mut TestContext<'_>) -> Result<()> {
    let mut guest = test.guest(&format!(
        "listen evtchn stop; until stop; write mmio:{DOORBELL:#x} 4 0; \
         write mmio:{DOORBELL:#x} 4 1; end"
    ))?;
    let file = GuestFile::of(guest.dom())?;
    let (steady, transient) = (new_eventfd()?, new_eventfd()?);
    file.assign(&Doorbell::value(DOORBELL, 4, 0, &steady))?;
    guest.start()?;
    let stop = Notifier::to(test, &mut guest, "stop")?;
    let queue = Doorbell::value(DOORBELL, 4, 1, &transient);
    let mut count = 0;
    for _ in 0..60 {
        file.assign(&queue)?;
        await_count(&transient, 1)?;
        file.deassign(&queue)?;
        take_count(&transient)?;
        // The guest kicks both in turn: from now on, three kicks of one are at least two of the other.
        count += take_count(&steady)?;
        count += await_count(&steady, 3)?;
        ensure!(take_count(&transient)? == 0, "signalled after deassign returned");
    }
    stop.notify()?;
    guest.finish()?;
    count += take_count(&steady)?;
    let (rounds, stats) = (guest.rounds("stop"), file.stats()?);
    ensure!(count == rounds, "{count} of {rounds} kicks on the steady queue");
    ensure!(stats.late == 0 && stats.delivered + stats.held == 2 * rounds, "{rounds}, {stats:?}");
    Ok(())
}

pub(super) fn claim_under_load(test: &mut TestContext<'_>) -> Result<()> {
    let other = DOORBELL + 0x2000;
    let mut guest = test.guest(&format!(
        "listen evtchn stop; meet; until stop; write mmio:{DOORBELL:#x} 4 0; end | \
         listen evtchn halt; meet; until halt; write mmio:{other:#x} 4 0; \
         write mmio:{BEAT:#x} 4 0; end"
    ))?;
    let file = GuestFile::of(guest.dom())?;
    let (steady, transient, beat) = (new_eventfd()?, new_eventfd()?, new_eventfd()?);
    file.assign(&Doorbell::value(DOORBELL, 4, 0, &steady))?;
    file.assign(&Doorbell::value(BEAT, 4, 0, &beat))?;
    guest.start()?;
    let notifiers =
        [Notifier::to(test, &mut guest, "stop")?, Notifier::to(test, &mut guest, "halt")?];
    let queue = Doorbell::value(other, 4, 0, &transient);
    for _ in 0..60 {
        file.assign(&queue)?;
        await_count(&transient, 1)?;
        file.deassign(&queue)?;
        take_count(&transient)?;
        await_next_beat(&beat)?;
        ensure!(take_count(&transient)? == 0, "signalled after deassign returned");
    }
    notifiers.iter().try_for_each(Notifier::notify)?;
    guest.finish()?;
    let (count, rounds) = (take_count(&steady)?, guest.rounds("stop"));
    ensure!(count == rounds, "{count} of {rounds} kicks on the steady queue");
    Ok(())
}

pub(super) fn close_under_load(test: &mut TestContext<'_>) -> Result<()> {
    let kicking = Kicking::start(test)?;
    let before = Before::look(test, kicking.guest.dom())?;
    for _ in 0..20 {
        let file = GuestFile::of(kicking.guest.dom())?;
        let queues = two_queues(&file)?;
        queues.iter().try_for_each(|queue| await_count(queue, 2).map(drop))?;
        drop(file);
        queues.iter().try_for_each(|queue| take_count(queue).map(drop))?;
        thread::sleep(Duration::from_millis(2));
        for queue in &queues {
            ensure!(take_count(queue)? == 0, "signalled after close returned");
        }
    }
    before.nothing_is_left(test)?;
    kicking.stop()
}

pub(super) fn churn(test: &mut TestContext<'_>) -> Result<()> {
    /// Of each of the two threads.
    const ROUNDS: u32 = 5000;
    /// Every so many rounds a thread waits for the guest, which takes longer than everything else.
    const WAITS: u32 = 25;
    let kicking = Kicking::with_beats(test)?;
    let dom = kicking.guest.dom();
    let before = Before::look(test, dom)?;
    let control = Control::open()?;
    let file = control.create(&Create::of(dom))?;
    let number = file.number();
    let kicks = [new_eventfd()?, new_eventfd()?];
    let beats = [new_eventfd()?, new_eventfd()?];
    let queue = |value: usize| Doorbell::value(DOORBELL, 4, value as u64, &kicks[value]);
    let beating = |file: &GuestFile| {
        (0..).zip(&beats).try_for_each(|(value, beat)| {
            file.assign(&Doorbell::value(BEAT, 4, value, beat)).context("a beat")
        })
    };
    let done = AtomicBool::new(false);
    // Kicks between an assignment and its end; requests of the other thread on a closed file, or
    // on a new one without the assignment.
    let (met, missed) = ([AtomicU64::new(0), AtomicU64::new(0)], AtomicU64::new(0));
    // After a deassign: whether the guest gets the time to kick again.
    let quiet = |value: usize, round: u32| -> Result<()> {
        met[value].fetch_add(take_count(&kicks[value])?, Ordering::Relaxed);
        if round.is_multiple_of(WAITS) {
            await_next_beat(&beats[value])?;
        }
        ensure!(take_count(&kicks[value])? == 0, "signalled after deassign returned");
        Ok(())
    };
    let mut closed = 0;
    let file = thread::scope(|scope| -> Result<GuestFile> {
        let other = scope.spawn(|| -> Result<u32> {
            let mut rounds = 0;
            while rounds < ROUNDS || !done.load(Ordering::Relaxed) {
                let issue = |request| issue_number(number, request, &mut queue(0).bytes());
                match issue(ASSIGN) {
                    Ok(()) => rounds += 1,
                    Err(Errno::BADF) => {
                        missed.fetch_add(1, Ordering::Relaxed);
                    }
                    Err(errno) => return Err(errno).context("assign by the other thread"),
                }
                match issue(DEASSIGN) {
                    Ok(()) => quiet(0, rounds)?,
                    // The file is closed, or a new one.
                    Err(Errno::BADF | Errno::NOENT) => {
                        missed.fetch_add(1, Ordering::Relaxed);
                    }
                    Err(errno) => return Err(errno).context("deassign by the other thread"),
                }
            }
            Ok(rounds)
        });
        let mut rounds = |mut file: GuestFile| -> Result<GuestFile> {
            for round in 1..=ROUNDS {
                file.assign(&queue(1))?;
                file.deassign(&queue(1))?;
                quiet(1, round)?;
                if round % 25 == 0 {
                    file = reopened(&control, file, dom)?;
                    beating(&file)?;
                    closed += 1;
                }
            }
            Ok(file)
        };
        let own = beating(&file).and_then(|()| rounds(file));
        done.store(true, Ordering::Relaxed);
        let others = other.join().map_err(|_| anyhow!("the other thread panicked"))?;
        // This error first: it may be the reason why the other thread timed out.
        let file = own?;
        ensure!(others? >= ROUNDS);
        Ok(file)
    })?;
    let (met, missed) = (met.map(AtomicU64::into_inner), missed.into_inner());
    println!(
        "closed {closed} times; {missed} requests of the other thread found no assignment; {met:?} kicks"
    );
    // If one of these is 0, the threads never raced.
    ensure!(missed > 0 && met.iter().all(|kicks| *kicks > 0), "there was no race");
    // A new registration is served as before.
    let fresh = two_queues(&file)?;
    fresh.iter().try_for_each(|kick| await_count(kick, 2).map(drop))?;
    drop((control, file));
    before.nothing_is_left(test)?;
    kicking.stop()
}

/// Closes a guest's file and takes the guest again, so that the descriptor has the same number: it
/// is the lowest that is free.
fn reopened(control: &Control, file: GuestFile, dom: DomId) -> Result<GuestFile> {
    let (number, since) = (file.number(), Instant::now());
    drop(file);
    loop {
        match control.create(&Create::of(dom)) {
            Ok(file) => {
                ensure!(file.number() == number, "another thread opens files");
                return Ok(file);
            }
            // A request of the other thread in progress keeps the file open.
            Err(Errno::BUSY) => ensure!(since.elapsed() < PATIENCE, "the guest is not released"),
            Err(errno) => return Err(errno).context("taking the guest again"),
        }
    }
}

pub(super) fn owner_killed(test: &mut TestContext<'_>) -> Result<()> {
    let kicking = Kicking::start(test)?;
    let before = Before::look(test, kicking.guest.dom())?;
    for _ in 0..10 {
        owner_of(kicking.guest.dom())?.kill()?;
        before.nothing_is_left(test)?;
    }
    kicking.stop()
}

pub(super) fn guest_destroyed(test: &mut TestContext<'_>) -> Result<()> {
    let endless = format!("listen evtchn never; until never; write mmio:{DOORBELL:#x} 4 0; end");
    let mut doomed =
        test.guest(&format!("{endless} | repeat 1000000; write mmio:{DOORBELL:#x} 4 1; end"))?;
    let mut other = test.guest(&format!("repeat 200; write mmio:{DOORBELL:#x} 4 0; end"))?;
    let kicks = [new_eventfd()?, new_eventfd()?, new_eventfd()?];
    let before = Before::look(test, other.dom())?;
    let others = GuestFile::of(other.dom())?;
    let bound = leftovers::interrupts()?;
    let file = GuestFile::of(doomed.dom())?;
    let queue = |value, kick| Doorbell::value(DOORBELL, 4, value, kick);
    file.assign(&queue(0, &kicks[0]))?;
    file.assign(&queue(1, &kicks[1]))?;
    others.assign(&queue(0, &kicks[2]))?;
    doomed.start()?;
    await_count(&kicks[0], 10)?;
    doomed.destroy()?;
    // While the file is still open.
    test.no_zombies()?;
    let since = Instant::now();
    while file.stats().is_ok() {
        ensure!(since.elapsed() < PATIENCE, "the module did not notice that the guest died");
    }
    refused(file.stats(), Errno::NODEV, "stats of a dead guest")?;
    refused(file.assign(&queue(7, &kicks[0])), Errno::NODEV, "assign to a dead guest")?;
    refused(file.deassign(&queue(0, &kicks[0])), Errno::NODEV, "deassign from a dead guest")?;
    refused(GuestFile::of(doomed.dom()), Errno::NODEV, "create of a dead guest")?;
    let interrupts = leftovers::interrupts()?;
    ensure!(interrupts == bound, "{interrupts} interrupts instead of {bound}");
    leftovers::nothing_of_the_dead(test, doomed.dom())?;
    drop(file);
    // The other guest is served as before.
    other.start()?;
    other.finish()?;
    ensure!(take_count(&kicks[2])? == 200);
    drop(others);
    before.nothing_is_left(test)
}

pub(super) fn handed_over(test: &mut TestContext<'_>) -> Result<()> {
    let kicking = Kicking::start(test)?;
    let before = Before::look(test, kicking.guest.dom())?;
    let file = GuestFile::of(kicking.guest.dom())?;
    let queues = two_queues(&file)?;
    let served = || queues.iter().try_for_each(|queue| await_count(queue, 100).map(drop));
    served()?;
    let mut inheritor = inheritor_of(&file)?;
    let (mut holder, link) = holder_of(&file)?;
    drop(file);
    served().context("after this process has closed it")?;
    refused(GuestFile::of(kicking.guest.dom()), Errno::BUSY, "a guest that others hold")?;
    inheritor.kill()?;
    served().context("after the inheriting process is killed")?;
    drop(link);
    holder.kill()?;
    before.nothing_is_left(test)?;
    kicking.stop()
}
