//! What a running `xen-virtio` says of its guest: an object at a socket in the run directory, which `list` and
//! `show` read.

use crate::confinement::Confinement;
use crate::error::{Error, Result};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;
use xen_eventfd_core::DomId;

/// How long the other side may take.
const PATIENCE: Duration = Duration::from_secs(2);
/// More than any object is long.
const MAX: u64 = 1 << 20;

/// A guest and its devices.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Status {
    pub(crate) domid: u16,
    pub(crate) name: Option<String>,
    /// The process that serves it.
    pub(crate) pid: u32,
    /// What passes kicks and interrupts on.
    pub(crate) engine: String,
    /// How often a vCPU has waited for the process: accesses to registers.
    pub(crate) register_accesses: u64,
    /// Kicks that the engine passed on to backends.
    pub(crate) kicks: u64,
    /// What the process has given up, if it serves this guest only.
    #[serde(default)]
    pub(crate) confinement: Option<Confinement>,
    pub(crate) devices: Vec<DeviceStatus>,
}

/// A device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct DeviceStatus {
    /// Where it is: its PCI function, or `mmio@` and the address of its registers.
    pub(crate) function: String,
    /// As it was given.
    pub(crate) device: String,
    /// Queues that its backend serves.
    pub(crate) running: Vec<u16>,
    /// The features that its driver has accepted, in hexadecimal.
    pub(crate) features: String,
    /// Kicks since its driver has started its queues.
    #[serde(default)]
    pub(crate) kicks: u64,
    /// Interrupts that its queues have raised since they have a vector, or a line.
    #[serde(default)]
    pub(crate) interrupts: u64,
    /// Why it needed a reset first, if it ever did.
    pub(crate) failure: Option<String>,
}

/// Answers for a guest until this is dropped.
#[derive(Debug)]
pub(crate) struct Answering {
    path: PathBuf,
    ends: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

fn failed(path: &Path) -> impl Fn(std::io::Error) -> Error + use<> {
    let path = path.to_owned();
    move |error| Error::Status { path: path.clone(), why: error.to_string() }
}

fn path(run_dir: &Path, dom: DomId) -> PathBuf {
    run_dir.join(format!("{}.virtio.sock", dom.0))
}

impl Answering {
    /// Listens. `status` is `None` once the guest is let go of. Only this process has the guest, so what is in the way is a dead one's.
    pub(crate) fn start(
        run_dir: &Path,
        dom: DomId,
        status: impl Fn() -> Option<Status> + Send + 'static,
    ) -> Result<Self> {
        let path = path(run_dir, dom);
        let failed = failed(&path);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(failed(error));
            }
            _ => {}
        }
        let listener = UnixListener::bind(&path).map_err(&failed)?;
        let ends = Arc::new(AtomicBool::new(false));
        let has_ended = Arc::clone(&ends);
        let answer = move || {
            for client in listener.incoming().flatten() {
                if has_ended.load(Ordering::Acquire) {
                    return;
                }
                let Some(status) = status() else { return };
                let object = serde_json::to_vec(&status).unwrap_or_default();
                // One that does not read has no answer.
                let _ = client
                    .set_write_timeout(Some(PATIENCE))
                    .and_then(|()| (&client).write_all(&object));
            }
        };
        let thread = std::thread::Builder::new().name("xen-virtio-show".into()).spawn(answer);
        Ok(Self { path, ends, thread: Some(thread.map_err(&failed)?) })
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Release);
        // It wakes the thread.
        let woken = UnixStream::connect(&self.path).is_ok();
        let _ = std::fs::remove_file(&self.path);
        if let Some(thread) = self.thread.take().filter(|_| woken) {
            let _ = thread.join();
        }
    }
}

/// What the process that serves a guest says.
///
/// # Errors
/// There is none, or it does not answer.
pub(crate) fn ask(run_dir: &Path, dom: DomId) -> Result<Status> {
    let path = path(run_dir, dom);
    let failed = failed(&path);
    let stream = UnixStream::connect(&path).map_err(&failed)?;
    stream.set_read_timeout(Some(PATIENCE)).map_err(&failed)?;
    let mut object = Vec::new();
    stream.take(MAX).read_to_end(&mut object).map_err(&failed)?;
    let damaged = || std::io::Error::from(Errno::PROTO);
    serde_json::from_slice(&object).map_err(|_| failed(damaged()))
}
