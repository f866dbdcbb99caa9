//! Listens to Xen's console in a thread of its own: keeps it in files, remembers its lines, and
//! notices when the machine is lost.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, PipeReader, Read as _, Write as _},
    path::{Path, PathBuf},
    sync::{Arc, Condvar, Mutex, MutexGuard},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};

use crate::console::{Line, Splitter, Tail, Voice, is_fatal};

/// More lines than these are in the files only.
const REMEMBERED: usize = 200_000;

/// Xen's console as it is being recorded.
#[derive(Debug, Clone)]
pub(crate) struct Recorder {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    lines: Vec<Line>,
    xen: Tail,
    dom0: Tail,
    guests: Tail,
    fatal: Option<String>,
    ended: bool,
}

impl Recorder {
    /// Records `stream` into `xen.log`, `dom0.log` and `guest-<domid>.log` in `folder`, and all
    /// of it, as it came, into `console.log`.
    pub(crate) fn start(stream: PipeReader, folder: &Path) -> Result<Self> {
        let shared = Arc::new(Shared::default());
        let mut files = Files::create(folder)
            .with_context(|| format!("{}: cannot keep the consoles here", folder.display()))?;
        let recorder = Self { shared: Arc::clone(&shared) };
        thread::Builder::new()
            .name("console".to_owned())
            .spawn(move || listen(stream, &mut files, &shared))?;
        Ok(recorder)
    }

    /// Why the machine is lost, if it is.
    pub(crate) fn fatal(&self) -> Option<String> {
        let state = self.state();
        if state.ended {
            return state.fatal.clone().or_else(|| Some("QEMU ended".to_owned()));
        }
        state.fatal.clone()
    }

    /// All lines from the `start`th on.
    pub(crate) fn lines(&self, start: usize) -> Vec<Line> {
        self.state().lines.get(start..).unwrap_or_default().to_vec()
    }

    /// The first line from the `start`th on that `wanted` accepts, waiting for it if needed.
    pub(crate) fn wait(
        &self,
        start: usize,
        timeout: Duration,
        wanted: impl Fn(&Line) -> bool,
    ) -> Option<Line> {
        let deadline = Instant::now() + timeout;
        let mut next = start;
        let mut state = self.state();
        loop {
            while let Some(line) = state.lines.get(next) {
                next += 1;
                if wanted(line) {
                    return Some(line.clone());
                }
            }
            let left = deadline.checked_duration_since(Instant::now())?;
            if state.ended {
                return None;
            }
            state = match self.shared.changed.wait_timeout(state, left) {
                Ok((state, _)) => state,
                Err(poisoned) => poisoned.into_inner().0,
            };
        }
    }

    /// What the three voices said last: a title and its lines.
    pub(crate) fn tails(&self) -> [(&'static str, Vec<String>); 3] {
        let state = self.state();
        let copy = |tail: &Tail| tail.lines().map(str::to_owned).collect();
        [("Xen", copy(&state.xen)), ("dom0", copy(&state.dom0)), ("guests", copy(&state.guests))]
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state()
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

fn listen(mut stream: PipeReader, files: &mut Files, shared: &Shared) {
    let mut splitter = Splitter::new();
    let mut buffer = [0; 4096];
    loop {
        let count = match stream.read(&mut buffer) {
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(_) => 0,
        };
        let bytes = buffer.get(..count).unwrap_or_default();
        let lines =
            if count == 0 { splitter.finish().into_iter().collect() } else { splitter.feed(bytes) };
        // A full disk must not stop the console from being read.
        let _ = files.write(bytes, &lines);
        let mut state = shared.state();
        for line in lines {
            state.take(line);
        }
        state.ended = count == 0;
        shared.changed.notify_all();
        if count == 0 {
            return;
        }
    }
}

impl State {
    fn take(&mut self, line: Line) {
        if self.fatal.is_none() && is_fatal(&line) {
            self.fatal = Some(line.to_string());
        }
        match line.voice {
            Voice::Xen => self.xen.push(line.text.clone()),
            Voice::Dom0 => self.dom0.push(line.text.clone()),
            Voice::Guest(_) => self.guests.push(line.to_string()),
        }
        if self.lines.len() < REMEMBERED {
            self.lines.push(line);
        }
    }
}

#[derive(Debug)]
struct Files {
    folder: PathBuf,
    raw: File,
    xen: File,
    dom0: File,
    guests: BTreeMap<u16, File>,
}

impl Files {
    fn create(folder: &Path) -> io::Result<Self> {
        Ok(Self {
            folder: folder.to_owned(),
            raw: File::create(folder.join("console.log"))?,
            xen: File::create(folder.join("xen.log"))?,
            dom0: File::create(folder.join("dom0.log"))?,
            guests: BTreeMap::new(),
        })
    }

    fn write(&mut self, raw: &[u8], lines: &[Line]) -> io::Result<()> {
        self.raw.write_all(raw)?;
        for line in lines {
            let file = match line.voice {
                Voice::Xen => &mut self.xen,
                Voice::Dom0 => &mut self.dom0,
                Voice::Guest(domain) => match self.guests.entry(domain) {
                    std::collections::btree_map::Entry::Occupied(entry) => entry.into_mut(),
                    std::collections::btree_map::Entry::Vacant(entry) => {
                        entry.insert(File::create(self.folder.join(format!("guest-{domain}.log")))?)
                    }
                },
            };
            writeln!(file, "{}", line.text)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn voices_go_to_files_and_panics_are_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let (theirs, mut ours) = io::pipe().unwrap();
        let recorder = Recorder::start(theirs, folder.path()).unwrap();
        ours.write_all(b"(XEN) up\r\nLinux\r\n(d3) hi\r\n").unwrap();
        let hi = recorder.wait(0, Duration::from_secs(5), |line| line.voice == Voice::Guest(3));
        assert_eq!(hi.unwrap().text, "hi");
        assert_eq!(recorder.fatal(), None);
        ours.write_all(b"(XEN) Panic on CPU 0:\n").unwrap();
        recorder.wait(3, Duration::from_secs(5), |_| true).unwrap();
        assert_eq!(recorder.fatal().unwrap(), "(XEN) Panic on CPU 0:");
        drop(ours);
        assert_eq!(recorder.wait(4, Duration::from_secs(5), |_| true), None);
        let log = std::fs::read_to_string(folder.path().join("guest-3.log")).unwrap();
        assert_eq!(log, "hi\n");
        assert_eq!(recorder.lines(1).len(), 3);
    }
}
