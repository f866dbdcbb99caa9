//! The module comes and goes.

use super::common::IDLE;
use super::left::interrupts;
use super::processes::heir_of;
use crate::device::structs::Create;
use crate::device::{Control, GuestFile, NODE};
use anyhow::{Result, ensure};
use std::path::Path;
use std::process::{Command, Stdio};
use xen_eventfd_scenarios::Play;

const FILE: &str = "/lib/modules/xen-eventfd.ko";

fn goes() -> Result<bool> {
    Ok(Command::new("rmmod").arg("xen_eventfd").stderr(Stdio::null()).status()?.success())
}

pub(super) fn pinned(play: &mut Play<'_>) -> Result<()> {
    let guest = play.guest(IDLE)?;
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
    ensure!(goes()?, "it does not go");
    ensure!(!Path::new(NODE).exists() && interrupts()? == 0);
    ensure!(play.stage().servers(guest.dom())?.is_empty());
    let back = Command::new("insmod").arg(FILE).status()?;
    ensure!(back.success(), "it does not come back");
    GuestFile::of(guest.dom())?;
    Ok(())
}
