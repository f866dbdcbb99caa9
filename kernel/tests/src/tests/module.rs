//! Loading and unloading of the module.

use super::common::{IDLE, Kicking, two_queues};
use super::fdinfo::in_debugfs;
use super::leftovers::{Before, interrupts};
use super::processes::inheritor_of;
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

pub(super) fn unload() -> Result<bool> {
    Ok(Command::new("rmmod").arg("xen_eventfd").stderr(Stdio::null()).status()?.success())
}

pub(super) fn load() -> Result<()> {
    load_with(&[])
}

fn load_with(parameters: &[&str]) -> Result<()> {
    let came = Command::new("insmod").arg(FILE).args(parameters).status()?.success();
    ensure!(came, "the module does not load again");
    Ok(())
}

/// Runs `what` while the module is loaded with this parameter.
pub(super) fn with_parameter<T>(parameter: &str, what: impl FnOnce() -> Result<T>) -> Result<T> {
    ensure!(unload()?, "the module does not unload");
    load_with(&[parameter])?;
    let done = what();
    ensure!(unload()?, "the module does not unload");
    load()?;
    done
}

pub(super) fn pinned(test: &mut TestContext<'_>) -> Result<()> {
    let guest = test.guest(IDLE)?;
    let control = Control::open()?;
    ensure!(!unload()?, "the module unloaded while a control file was open");
    let file = control.create(&Create::of(guest.dom()))?;
    ensure!(!unload()?, "the module unloaded while a guest's file was open");
    drop(control);
    ensure!(!unload()?, "the module unloaded while a guest's file alone was open");
    let mut inheritor = inheritor_of(&file)?;
    drop(file);
    ensure!(!unload()?, "the module unloaded while a child had a guest's file");
    inheritor.kill()?;
    let mut inheritor = inheritor_of(Control::open()?)?;
    ensure!(!unload()?, "the module unloaded while a child had a control file");
    inheritor.kill()?;
    let file = GuestFile::of(guest.dom())?;
    let shown = File::open(in_debugfs(guest.dom())?)?;
    drop(file);
    ensure!(!unload()?, "the module unloaded while the debugfs file of a released guest was open");
    drop(shown);
    ensure!(unload()?, "the module does not unload");
    ensure!(!Path::new(NODE).exists() && interrupts()? == 0);
    ensure!(test.environment().servers(guest.dom())?.is_empty());
    load()?;
    GuestFile::of(guest.dom())?;
    Ok(())
}

/// How often rmmod was tried, and how often it succeeded.
#[derive(Default)]
struct Unloads {
    tried: AtomicU32,
    succeeded: AtomicU32,
}

/// Takes a guest during its kicks, serves it and releases it, whenever the module is loaded. Returns
/// how often.
fn serve_until(dom: DomId, unloads: &Unloads, over: &AtomicBool) -> Result<u32> {
    let mut served: u32 = 0;
    while !over.load(Ordering::Relaxed) {
        match GuestFile::of(dom) {
            Ok(file) => {
                let went = unloads.succeeded.load(Ordering::SeqCst);
                let before = unloads.tried.load(Ordering::SeqCst);
                let queues = two_queues(&file)?;
                queues.iter().try_for_each(|queue| await_count(queue, 1).map(drop))?;
                // Every other time until rmmod was tried while this file alone was open: the first
                // try may have begun before.
                while served.is_multiple_of(2)
                    && unloads.tried.load(Ordering::SeqCst) < before + 2
                    && !over.load(Ordering::Relaxed)
                {
                    thread::sleep(Duration::from_millis(1));
                }
                let goes = unloads.succeeded.load(Ordering::SeqCst);
                ensure!(goes == went, "the module unloaded while a guest's file was open");
                served += 1;
            }
            // It is unloaded or unloading; or the child that becomes rmmod has not closed the last file
            // yet.
            Err(Errno::NOENT | Errno::NODEV | Errno::NXIO | Errno::BUSY) => {}
            Err(errno) => return Err(errno).context("taking the guest"),
        }
        // Time for the module to unload in.
        thread::sleep(Duration::from_millis(u64::from(5 * (served % 5))));
    }
    Ok(served)
}

pub(super) fn between_opens(test: &mut TestContext<'_>) -> Result<()> {
    const TIMES: u32 = 20;
    let kicking = Kicking::start(test)?;
    let dom = kicking.guest.dom();
    let before = Before::look(test, dom)?;
    let (unloads, over) = (Unloads::default(), AtomicBool::new(false));
    let served = thread::scope(|scope| {
        let server = scope.spawn(|| serve_until(dom, &unloads, &over));
        let go = || -> Result<()> {
            let since = Instant::now();
            // As often as a busy machine has time for.
            while unloads.succeeded.load(Ordering::SeqCst) < TIMES
                && since.elapsed() < PATIENCE / 2
                && !server.is_finished()
            {
                let went = unload()?;
                unloads.succeeded.fetch_add(u32::from(went), Ordering::SeqCst);
                unloads.tried.fetch_add(1, Ordering::SeqCst);
                if went {
                    load()?;
                }
            }
            Ok(())
        };
        let gone = go();
        over.store(true, Ordering::Relaxed);
        let served = server.join().map_err(|_| anyhow!("the serving thread panicked"))?;
        gone.and(served)
    })?;
    let went = unloads.succeeded.into_inner();
    let refused = unloads.tried.into_inner() - went;
    println!(
        "it went {went} times and was held {refused} times; the guest was served {served} times"
    );
    ensure!(went > 0, "it was never unloaded");
    ensure!(refused > 0 && served > 0, "it was never in use");
    before.nothing_is_left(test)?;
    kicking.stop()
}
