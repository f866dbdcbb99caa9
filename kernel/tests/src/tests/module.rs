//! The module comes and goes.

use super::common::{IDLE, Ringing, two_queues};
use super::left::{Before, interrupts};
use super::processes::heir_of;
use super::shown::in_debugfs;
use crate::device::structs::Create;
use crate::device::{Control, GuestFile, NODE};
use anyhow::{Context, Result, anyhow, ensure};
use rustix::io::Errno;
use std::fs::File;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};
use xen_eventfd::DomId;
use xen_eventfd_scenarios::test_context::await_count;
use xen_eventfd_scenarios::{PATIENCE, TestContext};

const FILE: &str = "/lib/modules/xen-eventfd.ko";

pub(super) fn goes() -> Result<bool> {
    Ok(Command::new("rmmod").arg("xen_eventfd").stderr(Stdio::null()).status()?.success())
}

pub(super) fn comes() -> Result<()> {
    comes_with(&[])
}

fn comes_with(parameters: &[&str]) -> Result<()> {
    let came = Command::new("insmod").arg(FILE).args(parameters).status()?.success();
    ensure!(came, "it does not come back");
    Ok(())
}

/// The module with this parameter, for as long as this does something with it.
pub(super) fn with_parameter<T>(parameter: &str, what: impl FnOnce() -> Result<T>) -> Result<T> {
    ensure!(goes()?, "it does not go");
    comes_with(&[parameter])?;
    let done = what();
    ensure!(goes()?, "it does not go");
    comes()?;
    done
}

pub(super) fn pinned(test: &mut TestContext<'_>) -> Result<()> {
    let guest = test.guest(IDLE)?;
    let control = Control::open()?;
    ensure!(!goes()?, "it went while a control file was open");
    let file = control.create(&Create::of(guest.dom()))?;
    ensure!(!goes()?, "it went while a guest's file was open");
    drop(control);
    ensure!(!goes()?, "it went while a guest's file alone was open");
    let mut heir = heir_of(&file)?;
    drop(file);
    ensure!(!goes()?, "it went while a child had a guest's file");
    heir.kill()?;
    let mut heir = heir_of(Control::open()?)?;
    ensure!(!goes()?, "it went while a child had a control file");
    heir.kill()?;
    let file = GuestFile::of(guest.dom())?;
    let shown = File::open(in_debugfs(guest.dom())?)?;
    drop(file);
    ensure!(!goes()?, "it went while a file of debugfs was open, of a guest that is let go of");
    drop(shown);
    ensure!(goes()?, "it does not go");
    ensure!(!Path::new(NODE).exists() && interrupts()? == 0);
    ensure!(test.environment().servers(guest.dom())?.is_empty());
    comes()?;
    GuestFile::of(guest.dom())?;
    Ok(())
}

/// How often the module was to go, and how often it went.
#[derive(Default)]
struct Asked {
    times: AtomicU32,
    went: AtomicU32,
}

/// Takes a guest amid its kicks, serves it and lets go of it, whenever the module is there. How often.
fn serve_until(dom: DomId, asked: &Asked, over: &AtomicBool) -> Result<u32> {
    let mut served: u32 = 0;
    while !over.load(Ordering::Relaxed) {
        match GuestFile::of(dom) {
            Ok(file) => {
                let went = asked.went.load(Ordering::SeqCst);
                let before = asked.times.load(Ordering::SeqCst);
                let queues = two_queues(&file)?;
                queues.iter().try_for_each(|queue| await_count(queue, 1).map(drop))?;
                // Now and then until it was to go while this file alone was open: the first that is
                // heard of may have been asked before.
                while served.is_multiple_of(2)
                    && asked.times.load(Ordering::SeqCst) < before + 2
                    && !over.load(Ordering::Relaxed)
                {
                    thread::sleep(Duration::from_millis(1));
                }
                let goes = asked.went.load(Ordering::SeqCst);
                ensure!(goes == went, "it went while a guest's file was open");
                served += 1;
            }
            // It is gone, or about to go; or what is to become rmmod has not closed the last file yet.
            Err(Errno::NOENT | Errno::NODEV | Errno::NXIO | Errno::BUSY) => {}
            Err(errno) => return Err(errno).context("taking the guest"),
        }
        // For the module to go in.
        thread::sleep(Duration::from_millis(u64::from(5 * (served % 5))));
    }
    Ok(served)
}

pub(super) fn amid_opens(test: &mut TestContext<'_>) -> Result<()> {
    const TIMES: u32 = 20;
    let ringing = Ringing::start(test)?;
    let dom = ringing.guest.dom();
    let before = Before::look(test, dom)?;
    let (asked, over) = (Asked::default(), AtomicBool::new(false));
    let served = thread::scope(|scope| {
        let server = scope.spawn(|| serve_until(dom, &asked, &over));
        let go = || -> Result<()> {
            let since = Instant::now();
            // As often as a busy machine has time for.
            while asked.went.load(Ordering::SeqCst) < TIMES
                && since.elapsed() < PATIENCE / 2
                && !server.is_finished()
            {
                let went = goes()?;
                asked.went.fetch_add(u32::from(went), Ordering::SeqCst);
                asked.times.fetch_add(1, Ordering::SeqCst);
                if went {
                    comes()?;
                }
            }
            Ok(())
        };
        let gone = go();
        over.store(true, Ordering::Relaxed);
        let served = server.join().map_err(|_| anyhow!("the serving thread panicked"))?;
        gone.and(served)
    })?;
    let went = asked.went.into_inner();
    let refused = asked.times.into_inner() - went;
    println!(
        "it went {went} times and was held {refused} times; the guest was served {served} times"
    );
    ensure!(went > 0, "it never went");
    ensure!(refused > 0 && served > 0, "nobody had it open");
    before.nothing_is_left(test)?;
    ringing.stop()
}
