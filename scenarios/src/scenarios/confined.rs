//! An engine in a process that has no privileges, and devices for one guest.

use super::{DOORBELL, msi};
use crate::Play;
use crate::play::{await_count, new_eventfd, signal};
use crate::roles::confined::Spec;
use anyhow::Result;
use xen_eventfd::{EngineKind, Error, Irq};

const TIMES: u32 = 100;

fn play_confined(play: &mut Play<'_>, driven: bool) -> Result<()> {
    match play.stage().engine() {
        Some(EngineKind::Userspace | EngineKind::Kernel) => {}
        engine => {
            let engine = engine.unwrap_or(EngineKind::Userspace);
            let what = "devices that are handed over (on this machine)";
            return Err(Error::Unsupported { what, engine }.into());
        }
    }
    let mut guest = play.guest(&format!(
        "listen msi 0x41 call; say ready; repeat {TIMES}; wait call; write mmio:{DOORBELL:#x} 4 3; end"
    ))?;
    let other = play.guest("say over")?;
    let (kick, call) = (new_eventfd()?, new_eventfd()?);
    let Irq::Msi { addr, data } = msi(0, 0x41) else { unreachable!("it is an MSI") };
    let spec = Spec {
        dom: guest.dom().0,
        uuid: play.stage().host().domain(guest.dom())?.uuid,
        other: other.dom().0,
        engine: play.stage().engine().unwrap_or_default().to_string(),
        driven,
        doorbell: (DOORBELL, 3),
        msi: (addr, data),
    };
    let engine = play.confined(spec, &kick, &call)?;
    guest.start()?;
    guest.said(0, "ready")?;
    for _ in 0..TIMES {
        signal(&call)?;
        await_count(&kick, 1)?;
    }
    guest.finish()?;
    guest.tell(play);
    // It has no xenstore to tell it of this.
    guest.destroy()?;
    engine.left()
}

pub(super) fn confined(play: &mut Play<'_>) -> Result<()> {
    play_confined(play, false)
}

pub(super) fn confined_loop(play: &mut Play<'_>) -> Result<()> {
    play_confined(play, true)
}
