//! The command on a model, in a process of its own.

use rustix::process::{Pid, Signal, kill_process};
use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// How long anything may take on a machine that is busy.
const PATIENCE: Duration = Duration::from_secs(60);

/// Waits until it is so.
pub(crate) fn until(what: &str, mut so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !so() {
        assert!(Instant::now() < deadline, "not in {} s: {what}", PATIENCE.as_secs());
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The program.
pub(crate) fn program() -> PathBuf {
    let beside = Path::new(env!("CARGO_BIN_EXE_xen-eventfd")).with_file_name("examples");
    let program = beside.join("on_model");
    assert!(program.exists(), "{} is not built: `cargo build --examples`", program.display());
    program
}

/// One that runs. It is killed when this is dropped.
pub(crate) struct OnModel {
    child: Option<Child>,
    dir: TempDir,
    control: BufReader<UnixStream>,
}

impl OnModel {
    /// With the words after `xen-eventfd --run-dir DIR`, on a machine with a guest called `guest`,
    /// whose number is 1.
    pub(crate) fn start<S: AsRef<OsStr>>(words: &[S]) -> Self {
        Self::start_as(words, "exec \"$0\" \"$@\"", |_| ())
    }

    /// Through a shell script that ends in `exec "$0" "$@"`, with more set.
    pub(crate) fn start_as<S: AsRef<OsStr>>(
        words: &[S],
        script: &str,
        more: impl FnOnce(&mut Command),
    ) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("socket");
        let mut command = Command::new("sh");
        command.args(["-c", script]).arg(program());
        command.arg("--run-dir").arg(dir.path().join("run")).args(words);
        command.env("ON_MODEL", &socket).env("ON_MODEL_GUEST", "guest");
        command.env("DIR", dir.path()).stdin(Stdio::null());
        more(&mut command);
        // Not the other way around: a program that has little to do may have ended by then.
        let listener = UnixListener::bind(&socket).unwrap();
        listener.set_nonblocking(true).unwrap();
        let child = command.spawn().unwrap();
        let mut stream = None;
        until("the program has begun", || {
            stream = listener.accept().ok().map(|(stream, _)| stream);
            stream.is_some()
        });
        let stream = stream.unwrap();
        stream.set_nonblocking(false).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Self { child: Some(child), dir, control: BufReader::new(stream) }
    }

    /// A file of the backend's: `$DIR/NAME`.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// What the backend has written there so far.
    pub(crate) fn text(&self, name: &str) -> String {
        std::fs::read_to_string(self.file(name)).unwrap_or_default()
    }

    /// Waits until the backend has written `text` there.
    pub(crate) fn until_text(&self, name: &str, text: &str) {
        until(&format!("{text:?} is in {name}"), || self.text(name).contains(text));
    }

    /// Has an order carried out, and returns its answer.
    pub(crate) fn order(&mut self, order: &str) -> String {
        writeln!(self.control.get_mut(), "{order}").unwrap();
        let mut answer = String::new();
        self.control.read_line(&mut answer).unwrap_or_else(|error| panic!("{order}: {error}"));
        answer.trim().to_owned()
    }

    pub(crate) fn child(&mut self) -> &mut Child {
        self.child.as_mut().unwrap()
    }

    pub(crate) fn pid(&mut self) -> Pid {
        Pid::from_child(self.child())
    }

    pub(crate) fn signal(&mut self, signal: Signal) {
        kill_process(self.pid(), signal).unwrap();
    }

    /// Waits for its end.
    pub(crate) fn end(&mut self) -> ExitStatus {
        let mut ended = None;
        until("the program has ended", || {
            ended = self.child().try_wait().unwrap();
            ended.is_some()
        });
        ended.unwrap()
    }
}

impl Drop for OnModel {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
