//! `bench-host WHAT ROUNDS`: does one thing ROUNDS times, for a tool that counts instructions.
//!
//! Every run has the same setup cost, so the difference of two runs with different numbers of rounds is the
//! cost of the rounds alone.

use anyhow::{Context, Result, bail, ensure};
use rustix::event::{EventfdFlags, eventfd};
use std::hint::black_box;
use std::os::fd::OwnedFd;
use xen_eventfd::{Doorbell, Filter, Guardian, IoEventAddress, Kick, Space, VcpuId, Width, Xen};
use xen_eventfd_core::table;
use xen_eventfd_model::{Config, Model};

const ADDR: u64 = 0xFE00_0050;

fn main() -> Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [what, rounds] = &words[..] else { bail!("usage: bench-host WHAT ROUNDS") };
    let rounds: u32 = rounds.parse().context("a number of rounds")?;
    match what.split_once(':').unwrap_or((what, "1")) {
        ("match", size) => matches(size.parse()?, rounds),
        ("kick", size) => kicks(size.parse()?, rounds),
        ("write", _) => writes(rounds),
        _ => bail!("{what}: match:SIZE, kick:SIZE or write is expected"),
    }
}

/// Looks up the last one of `size` registrations.
fn matches(size: u32, rounds: u32) -> Result<()> {
    let width = Width::Four;
    let doorbell = |value: u32| {
        let filter = Filter::Value { width, value: value.into(), mask: width.mask() };
        Doorbell::new(Space::Mmio, ADDR, filter)
    };
    let table = (0..size).map(doorbell).collect::<Result<Vec<_>, _>>()?;
    let kick = Kick::new(Space::Mmio, ADDR, width, (size - 1).into());
    for _ in 0..rounds {
        ensure!(table::find(black_box(&table), black_box(&kick)).is_some(), "the kick matches");
    }
    Ok(())
}

/// A guest of the model kicks the last one of `size` doorbells; the eventfd is read each time.
fn kicks(size: u32, rounds: u32) -> Result<()> {
    let model = Model::new();
    let dom = model.domain(Config::new("bench"));
    let vcpu = model.vcpu(dom, VcpuId(0));
    let run_dir = tempfile::tempdir()?;
    let builder = Xen::builder().run_dir(run_dir.path()).guardian(Guardian::None);
    let xen = builder.open_on(model.client("engine"))?;
    let guest = xen.guest(dom)?;
    let (kick, others) = (new_eventfd()?, new_eventfd()?);
    let at = IoEventAddress::Mmio(ADDR);
    let last = size - 1;
    let _others = (0..last)
        .map(|queue| guest.register_ioevent(&others, &at, queue))
        .collect::<Result<Vec<_>, _>>()?;
    let _last = guest.register_ioevent(&kick, &at, last)?;
    for _ in 0..rounds {
        vcpu.write(Space::Mmio, ADDR, Width::Four, last.into())
            .map_err(|why| anyhow::anyhow!("the guest stopped: {why}"))?;
        rustix::io::read(&kick, &mut [0; 8])?;
    }
    Ok(())
}

/// Writes and reads an eventfd, without an engine.
fn writes(rounds: u32) -> Result<()> {
    let kick = new_eventfd()?;
    for _ in 0..rounds {
        rustix::io::write(&kick, &1_u64.to_ne_bytes())?;
        rustix::io::read(&kick, &mut [0; 8])?;
    }
    Ok(())
}

fn new_eventfd() -> Result<OwnedFd> {
    Ok(eventfd(0, EventfdFlags::CLOEXEC)?)
}
