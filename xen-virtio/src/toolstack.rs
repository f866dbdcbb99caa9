//! Xen's toolstack, by its command `xl`: creating a guest, and what its state is. There is no other stable
//! interface for that.

use serde_json::Value;
use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitStatus, Output, Stdio};
use xen_eventfd::DomId;
use xen_eventfd_cli::failure::{Exit, Failure};
use xen_eventfd_cli::signals::with_signals;

const XL: &str = "xl";
/// What `xl list` says of a guest that is not there (`main_list` in Xen's `tools/xl/xl_info.c`).
const NO_GUEST: &str = "does not exist";

/// The command `xl`, for who pauses guests that libxl makes.
#[derive(Debug, Clone)]
pub(crate) struct Xl {
    program: OsString,
}

impl Default for Xl {
    fn default() -> Self {
        Self { program: XL.into() }
    }
}

impl Xl {
    /// Another program in its place.
    #[cfg(test)]
    pub(crate) fn named(program: impl Into<OsString>) -> Self {
        Self { program: program.into() }
    }

    /// Pauses a guest once more than it is: it runs when it was let run as often.
    pub(crate) fn pause(&self, dom: DomId) -> Result<()> {
        run(Command::new(&self.program).arg("pause").arg(dom.0.to_string())).map(drop)
    }

    /// Lets a guest run, as far as this process is concerned.
    pub(crate) fn unpause(&self, dom: DomId) -> Result<()> {
        run(Command::new(&self.program).arg("unpause").arg(dom.0.to_string())).map(drop)
    }

    /// Whether a guest is paused and has not run.
    pub(crate) fn is_new(&self, dom: DomId) -> Result<bool> {
        Ok(self.state(dom)? == State::New)
    }

    /// Whether Xen has this guest, and not another of its number, whatever xenstore says.
    pub(crate) fn is_there(&self, dom: DomId, uuid: &str) -> Result<bool> {
        let listed = self.listed(dom)?;
        Ok(listed.is_some_and(|listed| listed.state != State::Gone && listed.uuid == uuid))
    }

    fn state(&self, dom: DomId) -> Result<State> {
        Ok(self.listed(dom)?.map_or(State::Gone, |listed| listed.state))
    }

    /// `None`: there is no such guest.
    fn listed(&self, dom: DomId) -> Result<Option<Listed>> {
        let mut list = Command::new(&self.program);
        list.args(["list", "-v"]).arg(dom.0.to_string());
        let Output { status, stdout, stderr } = output(&mut list)?;
        if !status.success() {
            // Without xenstored it fails too, which says nothing of the guest.
            return match String::from_utf8_lossy(&stderr).contains(NO_GUEST) {
                true => Ok(None),
                false => Err(failed(&list, status, &stderr)),
            };
        }
        let text = String::from_utf8_lossy(&stdout);
        parse_line(&text).map(Some).ok_or_else(|| {
            Failure::new(Exit::Failed, format!("`{XL} list -v {}` printed no state: {text}", dom.0))
        })
    }
}

type Result<T> = core::result::Result<T, Failure>;

/// Why a guest stopped (`SHUTDOWN_*` of Xen's `public/sched.h`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reason {
    PowerOff,
    Reboot,
    Crash,
    /// It executes another kernel in its memory (Linux's `kexec`), once the toolstack has reset what Xen has of it.
    SoftReset,
    /// Suspended, or for a reason that only debugging has.
    Other,
}

/// The state of a guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    /// It was created paused and has not run.
    New,
    /// It runs, or has run.
    Started,
    /// It has stopped and was not destroyed yet.
    Stopped(Reason),
    /// There is none, or it is being destroyed.
    Gone,
}

/// What `xl list` says of a guest.
#[derive(Debug, PartialEq, Eq)]
struct Listed {
    state: State,
    uuid: String,
}

/// What becomes of a guest that stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    Destroy,
    Restart,
    Preserve,
}

/// What is in a guest's configuration file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Config {
    pub(crate) name: String,
    /// Made up by `xl` for each reading, if the file has none.
    pub(crate) uuid: Option<String>,
    /// `pvh`, `hvm` or `pv`.
    pub(crate) guest_type: String,
    pub(crate) on_poweroff: Action,
    pub(crate) on_reboot: Action,
    pub(crate) on_crash: Action,
}

impl Config {
    /// What is to become of a guest that stopped for this reason.
    pub(crate) fn action(&self, reason: Reason) -> Action {
        match reason {
            Reason::PowerOff => self.on_poweroff,
            Reason::Reboot => self.on_reboot,
            Reason::Crash => self.on_crash,
            // libxl makes none of a PVH guest, and `xl create -e` none at all: `xl` destroys the guest.
            Reason::SoftReset => Action::Destroy,
            Reason::Other => Action::Preserve,
        }
    }

    /// Takes it from what `xl create --dryrun` prints.
    fn parse(text: &[u8]) -> core::result::Result<Self, String> {
        let all: Value = serde_json::from_slice(text).map_err(|error| error.to_string())?;
        let text = |place: &str| all.pointer(place).and_then(Value::as_str);
        let missing = |place: &str| format!("{place} is missing");
        let needed = |place: &str| text(place).map(str::to_owned).ok_or_else(|| missing(place));
        let action = |name: &str, default| match text(&format!("/{name}")) {
            None => Ok(default),
            Some("destroy") => Ok(Action::Destroy),
            Some("restart") => Ok(Action::Restart),
            Some("preserve") => Ok(Action::Preserve),
            Some(other) => {
                Err(format!("{name} is {other}; it can be destroy, restart or preserve here"))
            }
        };
        Ok(Self {
            name: needed("/c_info/name")?,
            uuid: text("/c_info/uuid").map(str::to_owned),
            guest_type: needed("/c_info/type")?,
            on_poweroff: action("on_poweroff", Action::Destroy)?,
            on_reboot: action("on_reboot", Action::Restart)?,
            on_crash: action("on_crash", Action::Destroy)?,
        })
    }
}

/// What is in a configuration file. No guest is made.
pub(crate) fn read(file: &Path) -> Result<Config> {
    let printed = run(Command::new(XL).args(["create", "--quiet", "--dryrun"]).arg(file))?;
    Config::parse(&printed).map_err(|why| {
        let sentence = format!("{} cannot be used: {why}", file.display());
        Failure::new(Exit::Usage, sentence)
    })
}

/// Creates a guest, paused. `xl` does not wait for its end.
pub(crate) fn create_paused(file: &Path) -> Result<()> {
    run(Command::new(XL).args(["create", "--quiet", "-p", "-e"]).arg(file)).map(drop)
}

/// Lets a guest run.
pub(crate) fn unpause(dom: DomId) -> Result<()> {
    Xl::default().unpause(dom)
}

/// Destroys a guest.
pub(crate) fn destroy(dom: DomId) -> Result<()> {
    run(Command::new(XL).arg("destroy").arg(dom.0.to_string())).map(drop)
}

/// The state of a guest.
pub(crate) fn state(dom: DomId) -> Result<State> {
    Xl::default().state(dom)
}

/// The line of `xl list -v` with one guest: name, id, memory, vCPUs, state, time, UUID, reason, label.
fn parse_line(text: &str) -> Option<Listed> {
    let mut words = text.lines().nth(1)?.split_whitespace().rev().skip(1);
    let (reason, uuid, time, flags) = (words.next()?, words.next()?, words.next()?, words.next()?);
    let time: f64 = time.parse().ok()?;
    let flag = |at: usize, letter: u8| flags.as_bytes().get(at) == Some(&letter);
    if flags.len() != 6 {
        return None;
    }
    let state = if flag(5, b'd') {
        State::Gone
    } else if flag(3, b's') {
        State::Stopped(match reason {
            "0" => Reason::PowerOff,
            "1" => Reason::Reboot,
            "3" | "4" => Reason::Crash,
            "5" => Reason::SoftReset,
            _ => Reason::Other,
        })
    } else if flag(2, b'p') && time == 0.0 {
        State::New
    } else {
        State::Started
    };
    Some(Listed { state, uuid: uuid.to_owned() })
}

/// In a process group of its own: what a terminal sends to the group of this process is not to end `xl` halfway.
fn output(command: &mut Command) -> Result<Output> {
    command.process_group(0);
    let done = with_signals(|| command.stdin(Stdio::null()).output());
    done.and_then(|done| done).map_err(|error| {
        let sentence = format!("cannot run `{XL}`: {error}; it is in the package xen-utils");
        Failure::new(Exit::NoXen, sentence)
    })
}

/// Runs it, and returns what it printed.
fn run(command: &mut Command) -> Result<Vec<u8>> {
    let Output { status, stdout, stderr } = output(command)?;
    if status.success() {
        return Ok(stdout);
    }
    Err(failed(command, status, &stderr))
}

fn failed(command: &Command, status: ExitStatus, stderr: &[u8]) -> Failure {
    let stderr = String::from_utf8_lossy(stderr);
    let why: Vec<&str> = stderr.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let what: Vec<_> = command.get_args().map(|word| word.to_string_lossy()).collect();
    let sentence = format!("`{XL} {}` failed ({status}): {}", what.join(" "), why.join("; "));
    Failure::new(Exit::Failed, sentence)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt;

    const HEAD: &str = "Name                                        ID   Mem VCPUs\tState\tTime(s)   \
                        UUID                            Reason-Code\tSecurity Label\n";

    fn line(flags: &str, time: &str, reason: &str) -> Option<State> {
        let uuid = "0a1b2c3d-0000-4000-8000-000000000001";
        let row =
            format!("web server    3   127     1     {flags}  {time} {uuid}  {reason}      -\n");
        let listed = parse_line(&(HEAD.to_owned() + &row))?;
        assert_eq!(listed.uuid, uuid);
        Some(listed.state)
    }

    #[test]
    fn a_guest_is_new_until_it_has_run() {
        assert_eq!(line("--p---", "0.0", "-"), Some(State::New));
        assert_eq!(line("--p---", "0.1", "-"), Some(State::Started));
        assert_eq!(line("-b----", "0.0", "-"), Some(State::Started));
        assert_eq!(line("r-----", "12.5", "-"), Some(State::Started));
    }

    #[test]
    fn a_stopped_guest_has_a_reason() {
        let stopped = |reason, flags| line(flags, "2.0", reason);
        assert_eq!(stopped("0", "---s--"), Some(State::Stopped(Reason::PowerOff)));
        assert_eq!(stopped("1", "---sr-"), Some(State::Stopped(Reason::Reboot)));
        assert_eq!(stopped("2", "---ss-"), Some(State::Stopped(Reason::Other)));
        assert_eq!(stopped("3", "---sc-"), Some(State::Stopped(Reason::Crash)));
        assert_eq!(stopped("5", "---s--"), Some(State::Stopped(Reason::SoftReset)));
        assert_eq!(stopped("0", "--psrd"), Some(State::Gone));
    }

    /// A program in place of `xl`, which prints this and ends with this status.
    fn xl(folder: &Path, script: &str) -> Xl {
        let path = folder.join("xl");
        std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        std::fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
        Xl::named(path)
    }

    #[test]
    fn a_guest_is_gone_only_if_xl_says_so() {
        let folder = tempfile::tempdir().unwrap();
        let dom = DomId(3);
        let gone = xl(folder.path(), "echo \"Error: Domain '$3' does not exist.\" >&2; exit 1");
        assert_eq!(
            (gone.state(dom).unwrap(), gone.is_there(dom, "one").unwrap()),
            (State::Gone, false)
        );
        let row = "printf 'head\\nweb 3 128 1 -b---- 2.0 one - -\\n'";
        let there = xl(folder.path(), row);
        assert_eq!(there.state(dom).unwrap(), State::Started);
        assert_eq!(
            (there.is_there(dom, "one").unwrap(), there.is_there(dom, "two").unwrap()),
            (true, false)
        );
        let mute = xl(folder.path(), "echo 'xl: cannot connect to xenstore' >&2; exit 1");
        let failure = mute.is_there(dom, "one").unwrap_err();
        assert!(failure.sentence.contains("cannot connect to xenstore"), "{}", failure.sentence);
    }

    #[test]
    fn what_is_no_list_has_no_state() {
        assert_eq!(parse_line(HEAD), None);
        assert_eq!(line("running", "2.0", "-"), None);
        assert_eq!(line("-b----", "soon", "-"), None);
        assert_eq!(parse_line(""), None);
    }

    #[test]
    fn a_configuration_has_defaults_as_xl_has_them() {
        let parse = |text: &str| Config::parse(text.as_bytes());
        let config = parse(
            r#"{"c_info": {"type": "pvh", "name": "web", "uuid": "0a1b"}, "on_reboot": "restart"}"#,
        );
        let config = config.unwrap();
        assert_eq!((&*config.name, &*config.guest_type), ("web", "pvh"));
        assert_eq!(config.uuid.as_deref(), Some("0a1b"));
        assert_eq!(config.action(Reason::PowerOff), Action::Destroy);
        assert_eq!(config.action(Reason::Reboot), Action::Restart);
        assert_eq!(config.action(Reason::Other), Action::Preserve);
        assert_eq!(config.action(Reason::SoftReset), Action::Destroy);
        let kept = r#"{"c_info": {"type": "pvh", "name": "w"}, "on_crash": "preserve"}"#;
        assert_eq!(parse(kept).unwrap().action(Reason::Crash), Action::Preserve);
        let odd = r#"{"c_info": {"type": "pvh", "name": "w"}, "on_crash": "coredump-destroy"}"#;
        assert!(parse(odd).unwrap_err().contains("coredump-destroy"));
        assert!(parse(r#"{"c_info": {"type": "pvh"}}"#).unwrap_err().contains("name"));
        assert!(parse("Parsing config").is_err());
    }
}
