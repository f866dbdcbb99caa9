//! Has a guest carry out loads: its shell reads commands from its console, and answers there.

use crate::{fetch, processes, start};
use anyhow::{Context, Result, ensure};
use std::fs;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use xen_eventfd_bench::devices::{FILE, Load, Loaded, Measured, Server, Ticks};
use xen_eventfd_bench::tasks;

/// dom0 and the guest, by the guest's first card.
const DOM0: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 1);
const GUEST: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 2);
/// The first number of a command; smaller ones are of the script that has begun this program.
const FIRST: u32 = 1000;

/// What the guest's shell prints before it reads the first command.
const UP: &str = "@up";
pub(crate) struct Guest {
    console: PathBuf,
    log: PathBuf,
    disk: PathBuf,
}

impl Guest {
    /// One with this console, of which that file has what it has written, and this disk.
    pub(crate) fn new(console: PathBuf, log: PathBuf, disk: PathBuf) -> Self {
        Self { console, log, disk }
    }

    /// Has it read its disk once it is up and has one.
    pub(crate) fn read_disk(&self) -> Result<()> {
        start::wait(&self.log, |text| text.lines().any(|line| line.starts_with(UP)))?;
        let disk = self.disk.display();
        let read = format!("dd if={disk} of=/dev/null bs=4k count=1 iflag=direct 2>/dev/null");
        self.ask(FIRST, &format!("until {read}; do usleep 1000; done")).map(drop)
    }

    /// All loads of this server's guests, a line for each.
    pub(crate) fn measure(&self, server: Server) -> Result<()> {
        let loads = server.loads();
        let file = format!("mkdir /tmp/www && dd if=/dev/zero of=/tmp/www/file bs={FILE} count=1");
        let network = if loads.contains(&Load::Ping) {
            format!("card 0 && {file} && httpd -h /tmp/www && ")
        } else {
            String::new()
        };
        // Meanwhile its kernel ends what it does once, as to test its cryptography.
        let said = self.ask(FIRST + 1, &format!("{network}sleep 10 && echo served"))?;
        ensure!(said.ends_with("served"), "the guest has no network: {said}");
        let own = std::process::id();
        for (number, load) in (FIRST + 2..).zip(loads.iter().copied()) {
            let before = tasks::all()?;
            let ticks = self.carry_out(number, load).with_context(|| load.title())?;
            let processes = processes::between(&before, &tasks::all()?, own);
            println!("{}", Measured::Loaded(Loaded { server, load, ticks, processes }));
        }
        Ok(())
    }

    fn carry_out(&self, number: u32, load: Load) -> Result<Ticks> {
        let command = match load {
            Load::FromGuest => return fetch::measure(GUEST),
            Load::Ping => format!("ping {DOM0}"),
            Load::ToGuest => format!("fetch {DOM0}"),
            Load::Disk(disk) => {
                let requests = serde_json::to_string(&disk)?;
                format!("disk {} '{requests}'", self.disk.display())
            }
        };
        let answer = self.ask(number, &format!("bench-devices {command}"))?;
        serde_json::from_str(&answer).with_context(|| format!("the guest says {answer:?}"))
    }

    /// Has its shell carry a command out; returns what that says.
    fn ask(&self, number: u32, command: &str) -> Result<String> {
        fs::write(&self.console, format!("{number} {command}\n"))
            .with_context(|| format!("writing {}", self.console.display()))?;
        let end = format!("@{number} ");
        let said = start::wait(&self.log, |text| text.lines().any(|line| line.starts_with(&end)))?;
        Ok(answer(&said, number))
    }
}

/// What the guest has said to a command.
fn answer(said: &str, number: u32) -> String {
    let (begin, end) = (format!("@begin {number}"), format!("@{number} "));
    let lines = said.lines().map(str::trim_end);
    let after = lines.skip_while(|line| *line != begin).skip(1);
    after.take_while(|line| !line.starts_with(&end)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_stands_between_its_marks() {
        let said = "@up\r\n@begin 7\r\nother\r\n@7 0\r\n@begin 8\r\n{\"a\":\r\n1}\r\n@8 0\r\n";
        assert_eq!(answer(said, 8), "{\"a\":1}");
        assert_eq!(answer(said, 9), "");
    }
}
