//! A person at dom0's shell.

use std::{
    io::{self, IsTerminal as _, Write as _},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fd::BorrowedFd,
    io::Errno,
    stdio::{stdin, stdout},
    termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr},
};

use crate::{commands::Silence, machine::Machine};

/// The key that leaves the shell: Control and `]`.
pub const ESCAPE: u8 = 0x1d;

/// What the agent says when the shell has ended.
const READY: &[u8] = b"@lab ready";

impl Machine {
    /// Connects this process' terminal with a shell in dom0 until the shell exits or the person
    /// presses [`ESCAPE`]. Without a terminal, standard input goes to the shell.
    ///
    /// # Errors
    ///
    /// The terminal cannot be used, or the machine is lost.
    pub fn interact(&mut self) -> Result<()> {
        let (rows, columns) = tcgetwinsize(stdout())
            .map(|size| (size.ws_row, size.ws_col))
            .ok()
            .filter(|(rows, columns)| *rows > 0 && *columns > 0)
            .unwrap_or((24, 80));
        let _raw = RawMode::enter().context("the terminal cannot be used")?;
        self.commands().send(format!("shell {rows} {columns}\n").as_bytes())?;
        let mut open = true;
        let mut end = Ending::default();
        loop {
            if open {
                match typed()? {
                    Typed::Nothing => {}
                    Typed::Escape => return Ok(()),
                    Typed::End => {
                        open = false;
                        self.commands().send(&[4])?;
                    }
                    Typed::Keys(keys) => self.commands().send(&keys)?,
                }
            }
            loop {
                let patience = Duration::from_millis(if open { 0 } else { 50 });
                match self.commands().chunk(patience) {
                    Ok(chunk) => {
                        let (shown, over) = end.receive(&chunk);
                        let mut output = io::stdout().lock();
                        output.write_all(&shown)?;
                        output.flush()?;
                        if over {
                            return Ok(());
                        }
                    }
                    Err(Silence::Quiet) => break,
                    Err(Silence::Closed) => bail!("{}", self.report("QEMU ended")),
                }
            }
            if let Some(fatal) = self.fatal() {
                bail!("{}", self.report(&format!("the machine is lost: {fatal}")));
            }
        }
    }
}

/// Looks for the agent's word in what the shell writes.
#[derive(Debug, Default)]
struct Ending {
    held: Vec<u8>,
}

impl Ending {
    /// What to show, and whether the shell is over. What may be the start of the word is held
    /// back.
    fn receive(&mut self, chunk: &[u8]) -> (Vec<u8>, bool) {
        self.held.extend_from_slice(chunk);
        if let Some(at) = self.held.windows(READY.len()).position(|window| window == READY) {
            return (self.held.drain(..at).collect(), true);
        }
        let keep = (1..READY.len())
            .rev()
            .find(|length| READY.get(..*length).is_some_and(|start| self.held.ends_with(start)))
            .unwrap_or(0);
        (self.held.drain(..self.held.len() - keep).collect(), false)
    }
}

enum Typed {
    Nothing,
    Keys(Vec<u8>),
    Escape,
    End,
}

fn typed() -> Result<Typed> {
    let input: BorrowedFd<'static> = stdin();
    let mut fds = [PollFd::new(&input, PollFlags::IN)];
    let patience = Timespec { tv_sec: 0, tv_nsec: 20_000_000 };
    match poll(&mut fds, Some(&patience)) {
        Ok(0) | Err(Errno::INTR) => return Ok(Typed::Nothing),
        Ok(_) => {}
        Err(error) => return Err(error.into()),
    }
    let mut buffer = [0; 256];
    let count = match rustix::io::read(input, &mut buffer) {
        Ok(count) => count,
        Err(Errno::INTR | Errno::AGAIN) => return Ok(Typed::Nothing),
        Err(error) => return Err(error.into()),
    };
    let keys = buffer.get(..count).unwrap_or_default();
    Ok(if keys.is_empty() {
        Typed::End
    } else if keys.contains(&ESCAPE) {
        Typed::Escape
    } else {
        Typed::Keys(keys.to_vec())
    })
}

/// The terminal hands on every key as it is pressed; dropping this undoes it.
#[derive(Debug)]
struct RawMode {
    before: Option<Termios>,
}

impl RawMode {
    fn enter() -> Result<Self> {
        if !io::stdin().is_terminal() {
            return Ok(Self { before: None });
        }
        let before = tcgetattr(stdin())?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(stdin(), OptionalActions::Now, &raw)?;
        Ok(Self { before: Some(before) })
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        if let Some(before) = &self.before {
            let _ = tcsetattr(stdin(), OptionalActions::Now, before);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_agents_word_ends_the_shell_however_it_is_cut() {
        let text = b"dom0 # exit\n@lab ready\n";
        for cut in 0..text.len() {
            let mut ending = Ending::default();
            let (first, second) = text.split_at(cut);
            let (mut shown, mut over) = ending.receive(first);
            if !over {
                let (more, end) = ending.receive(second);
                shown.extend(more);
                over = end;
            }
            assert!(over, "cut at {cut}");
            assert_eq!(shown, b"dom0 # exit\n");
        }
    }

    #[test]
    fn what_only_looks_like_the_word_is_shown() {
        let mut ending = Ending::default();
        assert_eq!(ending.receive(b"mail@"), (b"mail".to_vec(), false));
        assert_eq!(ending.receive(b"example"), (b"@example".to_vec(), false));
    }
}
