//! How a process says in a lock who it is, and how others read that.

use super::Purpose;
use rustix::io::Errno;
use rustix::process::{Pid, test_kill_process};
use std::io::Read;

const REAPING: &str = "reaping";
/// The second line of a lock whose holder has a record lock as well.
pub(super) const RECORD_LOCK: &str = "with a record lock";
/// More than any process has to say.
const MAX_SAID: u64 = 4096;

/// What this process writes into a lock.
pub(super) fn this(purpose: Purpose) -> String {
    let name = std::fs::read("/proc/self/comm").unwrap_or_default();
    said_of(std::process::id(), &name, purpose)
}

fn said_of(pid: u32, name: &[u8], purpose: Purpose) -> String {
    let purpose = match purpose {
        Purpose::Serve(what) => what,
        Purpose::Reap => REAPING,
    };
    format!("process {pid} ({}), {purpose}", line(name))
}

/// What a lock says.
#[derive(Debug)]
pub(super) struct Said {
    /// Who holds it.
    pub(super) text: String,
    /// Whether the holder has a record lock for as long as it lives.
    pub(super) has_record_lock: bool,
}

/// What a lock says, whichever process wrote it.
pub(super) fn said(lock: impl Read) -> std::io::Result<Said> {
    let mut bytes = Vec::new();
    lock.take(MAX_SAID).read_to_end(&mut bytes)?;
    let mut lines = bytes.splitn(2, |byte| *byte == b'\n');
    let text = line(lines.next().unwrap_or_default());
    let has_record_lock =
        lines.next().is_some_and(|rest| rest.trim_ascii() == RECORD_LOCK.as_bytes());
    Ok(Said { text, has_record_lock })
}

/// One line. A process chooses its name, line ends and orders to a terminal included, and Linux may
/// cut it within a letter.
fn line(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let letter = |letter: char| if letter.is_control() { '\u{fffd}' } else { letter };
    text.trim().chars().map(letter).collect()
}

/// The process that a lock names.
pub(super) fn pid_of(said: &str) -> Option<u32> {
    said.strip_prefix("process ")?.split(' ').next()?.parse().ok()
}

/// Its name.
pub(super) fn name_of(said: &str) -> Option<&str> {
    // A name may hold brackets itself.
    Some(said.split_once(" (")?.1.rsplit_once("), ")?.0)
}

/// Its engine.
pub(super) fn engine_of(said: &str) -> Option<&str> {
    said.rsplit_once("), ")?.1.strip_suffix(" engine")
}

/// Whether it is there to sweep up, and gone in a moment.
pub(super) fn is_reaper(said: &str) -> bool {
    said.ends_with(REAPING)
}

/// Whether the process that a lock names is no more. Without a number it is not known to be.
pub(super) fn is_dead(said: &str) -> bool {
    pid_of(said).is_some_and(is_ending)
}

/// Whether a process is no more, or on its way out: then its files are about to be closed.
pub(crate) fn is_ending(pid: u32) -> bool {
    match std::fs::read(format!("/proc/{pid}/stat")) {
        Ok(stat) => ends(&stat),
        // Not to be read is not to be dead: there may be no descriptor left, or no /proc.
        Err(_) => i32::try_from(pid)
            .ok()
            .and_then(Pid::from_raw)
            .is_none_or(|pid| test_kill_process(pid) == Err(Errno::SRCH)),
    }
}

/// The same, by what Linux tells of the process in `/proc/PID/stat`.
fn ends(stat: &[u8]) -> bool {
    /// `PF_EXITING` of Linux's `sched.h`.
    const EXITING: u64 = 4;
    let stat = String::from_utf8_lossy(stat);
    // Its name is in brackets and may hold any; after it come the state, and as seventh its flags.
    let mut fields = stat.rsplit(") ").next().unwrap_or_default().split(' ');
    let dead = fields.next().is_some_and(|state| matches!(state, "Z" | "X"));
    let flags = fields.nth(5).and_then(|flags| flags.parse::<u64>().ok());
    dead || flags.is_some_and(|flags| flags & EXITING != 0)
}

/// What was written into a lock, by whatever process, is a line; and a process is known again, whatever its name.
#[cfg(fuzzing)]
pub fn fuzz(bytes: &[u8]) {
    let text = said(bytes).unwrap().text;
    assert!(!text.contains(char::is_control) && text.len() <= 3 * bytes.len());
    assert_eq!(said(text.as_bytes()).unwrap().text, text);
    assert!(!is_reaper(&text) || engine_of(&text).is_none());
    let _ = (pid_of(&text), name_of(&text), ends(bytes));
    for suffix in [".lock", ".json"] {
        if let Some(dom) = super::guest_of(&text, suffix) {
            assert_eq!(format!("{}{suffix}", dom.0), text);
        }
    }
    let engine = Purpose::Serve("userspace engine");
    for (purpose, name) in [(engine, Some("userspace")), (Purpose::Reap, None)] {
        let text = said_of(7, bytes, purpose);
        assert_eq!(said(text.as_bytes()).unwrap().text, text);
        assert_eq!((pid_of(&text), engine_of(&text)), (Some(7), name), "{text:?}");
        assert_eq!((name_of(&text), is_reaper(&text)), (Some(&*line(bytes)), name.is_none()));
    }
    for (rest, dead) in [("S 1 7 7 0 -1 4194304", false), ("R 1 7 7 0 -1 4", true), ("Z 1", true)] {
        let stat = [b"7 (", bytes, b") ", rest.as_bytes(), b" 0\n"].concat();
        assert_eq!(ends(&stat), dead);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    const SERVE: Purpose = Purpose::Serve("userspace engine");

    #[test]
    fn a_name_may_hold_anything() {
        let text = said_of(1, b"a (b), c\n", SERVE);
        assert_eq!((name_of(&text), engine_of(&text)), (Some("a (b), c"), Some("userspace")));
        assert_eq!(name_of(""), None);
    }

    #[test]
    fn a_name_gives_no_orders_to_a_terminal_and_is_one_line() {
        let text = said_of(1, b"a\nprocess 2 (\x1b[2J", SERVE);
        assert_eq!(text, "process 1 (a\u{fffd}process 2 (\u{fffd}[2J), userspace engine");
        assert_eq!(said(&b"process 1 (\x1b[2J), reaping\n"[..]).unwrap().text.find('\x1b'), None);
    }

    #[test]
    fn a_lock_that_is_cut_within_a_letter_or_endless_is_read() {
        let text = said(&b"process 1 (caf\xc3), userspace engine\n"[..]).unwrap().text;
        assert_eq!(name_of(&text), Some("caf\u{fffd}"));
        assert_eq!(said(std::io::repeat(b'a')).unwrap().text.len(), 4096);
    }

    #[test]
    fn one_that_is_dead_and_not_waited_for_is_ending() {
        use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};
        assert!(!is_ending(std::process::id()));
        let mut child = Command::new("true").spawn().unwrap();
        let zombie = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
        waitid(WaitId::Pid(Pid::from_child(&child)), zombie).unwrap();
        assert!(is_ending(child.id()));
        child.wait().unwrap();
    }

    #[test]
    fn one_whose_name_is_cut_within_a_letter_lives() {
        let dir = tempfile::tempdir().unwrap();
        // Linux keeps 15 bytes of it, and the last letter has two.
        let program = dir.path().join("fourteenletteré");
        let sleep =
            ["/bin/sleep", "/usr/bin/sleep"].into_iter().find(|p| std::fs::exists(p).unwrap());
        std::os::unix::fs::symlink(sleep.unwrap(), &program).unwrap();
        let mut child = Command::new(&program).arg("60").spawn().unwrap();
        let stat = std::fs::read(format!("/proc/{}/stat", child.id())).unwrap();
        let ending = is_ending(child.id());
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(String::from_utf8(stat).is_err(), "the name was not cut");
        assert!(!ending, "it was taken for dead");
    }
}
