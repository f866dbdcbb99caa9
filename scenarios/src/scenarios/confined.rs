//! An engine in a process without privileges, with devices for one guest.

use super::DOORBELL;
use crate::roles::confined::Spec;
use crate::test_context::{await_count, new_eventfd, signal};
use crate::{Engine, TestContext, Unsupported};
use anyhow::Result;
use xen_eventfd::EngineKind;

const TIMES: u32 = 100;

fn run_confined(test: &mut TestContext<'_>, driven: bool) -> Result<()> {
    let engine = match test.environment().engine() {
        Some(Engine::Userspace) => EngineKind::Userspace,
        Some(Engine::Kernel) => EngineKind::Kernel,
        Some(Engine::Privcmd) | None => return Err(Unsupported("devices to hand over").into()),
    };
    let mut guest = test.guest(&format!(
        "listen msi 0x41 call; say ready; repeat {TIMES}; wait call; write mmio:{DOORBELL:#x} 4 3; end"
    ))?;
    let other = test.guest("say over")?;
    let (kick, call) = (new_eventfd()?, new_eventfd()?);
    let spec = Spec {
        dom: guest.dom().0,
        uuid: test.environment().host().domain(guest.dom())?.uuid,
        other: other.dom().0,
        engine: engine.to_string(),
        driven,
        doorbell: (DOORBELL, 3),
        vector: 0x41,
    };
    let engine = test.confined(spec, &kick, &call)?;
    guest.start()?;
    guest.await_message(0, "ready")?;
    for _ in 0..TIMES {
        signal(&call)?;
        await_count(&kick, 1)?;
    }
    guest.finish()?;
    guest.trace_reports(test);
    // The process has no xenstore to learn of this.
    guest.destroy()?;
    engine.left()
}

pub(super) fn confined(test: &mut TestContext<'_>) -> Result<()> {
    run_confined(test, false)
}

pub(super) fn confined_loop(test: &mut TestContext<'_>) -> Result<()> {
    run_confined(test, true)
}
