//! A stage in domain 0 of real Xen: guests come from `xl`, processes are processes.

use super::{GuestOnStage, ProcessOnStage, Stage};
use crate::link::Link;
use anyhow::{Context, Result, bail, ensure};
use std::collections::BTreeSet;
use std::fs::File;
use std::io::Read;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};
use xen_eventfd::{DomId, EngineKind, Guardian, Host};
use xen_eventfd_guest_orders::Program;
use xen_eventfd_host::linux::LinuxHost;

/// Where xenconsoled keeps what guests say.
const CONSOLES: &str = "/var/log/xen/console";
/// How often a file is looked at again.
const TICK: Duration = Duration::from_millis(5);

/// Domain 0 as a stage.
#[derive(Debug)]
pub struct XenStage {
    host: Arc<LinuxHost>,
    engine: EngineKind,
    kernel: PathBuf,
    run_dir: tempfile::TempDir,
    guests: AtomicU32,
}

impl XenStage {
    /// This machine, with the userspace engine and the bare-metal guest `kernel`.
    ///
    /// # Errors
    /// This is no domain 0.
    pub fn new(kernel: PathBuf) -> Result<Self> {
        ensure!(kernel.is_file(), "{}: there is no guest to run", kernel.display());
        let host = Arc::new(LinuxHost::open()?);
        let engine = EngineKind::Userspace;
        Ok(Self { host, engine, kernel, run_dir: tempfile::tempdir()?, guests: AtomicU32::new(0) })
    }

    /// With another engine.
    #[must_use]
    pub fn served_by(self, engine: EngineKind) -> Self {
        Self { engine, ..self }
    }
}

/// Runs an `xl` command and returns what it prints.
fn xl(arguments: &[&str]) -> Result<String> {
    let output = Command::new("xl").args(arguments).stdin(Stdio::null()).output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(
        output.status.success(),
        "xl {} failed: {text}{}",
        arguments.join(" "),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(text)
}

/// What Xen prints about all domains when asked on its console.
fn domains_dump() -> Result<String> {
    xl(&["dmesg", "-c"])?;
    xl(&["debug-keys", "q"])?;
    let since = Instant::now();
    let mut text = String::new();
    // The key is handled a little after the call.
    while since.elapsed() < Duration::from_secs(5) {
        text.push_str(&xl(&["dmesg", "-c"])?);
        if text.contains("Notifying guest") {
            return Ok(text);
        }
        std::thread::sleep(TICK);
    }
    Ok(text)
}

/// The servers of one domain in such a print.
fn servers_in(dump: &str, dom: DomId) -> Vec<u16> {
    let mut found = BTreeSet::new();
    let mut current = None;
    for line in dump.lines() {
        if let Some((_, rest)) = line.split_once("General information for domain ") {
            current = rest.trim_end_matches(':').trim().parse().ok().map(DomId);
        }
        if current == Some(dom)
            && let Some((_, rest)) = line.split_once("ioreq_server ")
            && let Some(id) = rest.split_whitespace().next().and_then(|id| id.parse().ok())
        {
            found.insert(id);
        }
    }
    found.into_iter().collect()
}

/// Domains in such a print, dead ones included.
fn domains_in(dump: &str) -> Vec<DomId> {
    dump.lines()
        .filter_map(|line| line.split_once("General information for domain "))
        .filter_map(|(_, rest)| rest.trim_end_matches(':').trim().parse().ok().map(DomId))
        .filter(|dom| dom.0 != 0 && dom.is_guest())
        .collect()
}

impl Stage for XenStage {
    fn host(&self) -> Arc<dyn Host> {
        Arc::clone(&self.host) as Arc<dyn Host>
    }

    fn engine(&self) -> Option<EngineKind> {
        Some(self.engine)
    }

    fn run_dir(&self) -> PathBuf {
        self.run_dir.path().to_owned()
    }

    fn guardian(&self) -> Guardian {
        Guardian::Auto
    }

    fn guest(&self, orders: &str) -> Result<Box<dyn GuestOnStage>> {
        let program = Program::parse(orders).map_err(|e| anyhow::anyhow!("bad orders: {e}"))?;
        let (vcpus, dir) = (program.vcpus(), self.run_dir.path());
        let number = self.guests.fetch_add(1, Ordering::Relaxed);
        let name = format!("guest-{}-{number}", std::process::id());
        let config = dir.join(format!("{name}.cfg"));
        // A counter that Xen emulated would count Xen's work for it as well.
        std::fs::write(
            &config,
            format!(
                "name = \"{name}\"\ntype = \"pvh\"\nkernel = \"{}\"\nmemory = 16\nvcpus = {vcpus}\n\
                 tsc_mode = \"native\"\ncmdline = \"{orders}\"\non_poweroff = \"preserve\"\non_crash = \"preserve\"\n",
                self.kernel.display()
            ),
        )?;
        let path = config.to_str().context("the directory has a plain name")?;
        // No daemon that waits for its death: the test does.
        xl(&["create", "-q", "-p", "-e", path])?;
        let dom = DomId(xl(&["domid", &name])?.trim().parse()?);
        let console = PathBuf::from(format!("{CONSOLES}/guest-{name}.log"));
        Ok(Box::new(XenGuest { dom, console, file: None, rest: Vec::new(), destroyed: false }))
    }

    fn process(&self) -> Result<Box<dyn ProcessOnStage>> {
        let (ours, theirs) = Link::pair()?;
        let child = Command::new("/proc/self/exe")
            .arg("actor")
            .arg(self.run_dir())
            .stdin(Stdio::from(theirs.into_fd()))
            .spawn()
            .context("starting a process of the scenario")?;
        Ok(Box::new(XenProcess { link: ours, child }))
    }

    fn after_death(&self) -> Result<()> {
        Ok(())
    }

    fn guarded(&self, dom: DomId) -> Result<()> {
        let record = self.run_dir().join(format!("{}.json", dom.0));
        let since = Instant::now();
        loop {
            // Gone, or without a server: what is left then are kicks for the next engine.
            match std::fs::read_to_string(&record) {
                Err(_) => return Ok(()),
                Ok(text) if text.contains("\"server\":null") => return Ok(()),
                Ok(_) if since.elapsed() > crate::PATIENCE => bail!("nobody reaped {dom}"),
                Ok(_) => std::thread::sleep(TICK),
            }
        }
    }

    fn servers(&self, dom: DomId) -> Result<Vec<u16>> {
        Ok(servers_in(&domains_dump()?, dom))
    }

    fn zombies(&self) -> Result<Vec<DomId>> {
        let listed: Vec<DomId> = self.host.domains()?.iter().map(|domain| domain.id).collect();
        let there = domains_in(&domains_dump()?);
        Ok(there.into_iter().filter(|dom| !listed.contains(dom)).collect())
    }
}

#[derive(Debug)]
struct XenGuest {
    dom: DomId,
    console: PathBuf,
    file: Option<File>,
    /// The beginning of a line.
    rest: Vec<u8>,
    destroyed: bool,
}

impl GuestOnStage for XenGuest {
    fn dom(&self) -> DomId {
        self.dom
    }

    fn start(&mut self) -> Result<()> {
        xl(&["unpause", &self.dom.0.to_string()]).map(|_| ())
    }

    fn destroy(&mut self) -> Result<()> {
        if !self.destroyed {
            self.destroyed = true;
            xl(&["destroy", &self.dom.0.to_string()])?;
        }
        Ok(())
    }

    fn line(&mut self, patience: Duration) -> Result<Option<String>> {
        let since = Instant::now();
        loop {
            if let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.rest.drain(..=end).collect();
                return Ok(Some(String::from_utf8_lossy(&line).trim().to_owned()));
            }
            if self.file.is_none() {
                self.file = File::open(&self.console).ok();
            }
            let read = match &mut self.file {
                Some(file) => file.read_to_end(&mut self.rest)?,
                None => 0,
            };
            if read == 0 {
                if since.elapsed() > patience {
                    return Ok(None);
                }
                std::thread::sleep(TICK);
            }
        }
    }
}

impl Drop for XenGuest {
    fn drop(&mut self) {
        let _ = self.destroy();
    }
}

#[derive(Debug)]
struct XenProcess {
    link: Link,
    child: Child,
}

impl ProcessOnStage for XenProcess {
    fn pid(&self) -> u32 {
        self.child.id()
    }

    fn link(&self) -> &Link {
        &self.link
    }

    fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.wait()
    }

    fn wait(&mut self) -> Result<()> {
        self.child.wait()?;
        Ok(())
    }
}

impl Drop for XenProcess {
    fn drop(&mut self) {
        self.link.hang_up();
        let _ = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DUMP: &str = "\
(XEN) 'q' pressed -> dumping domain info
(XEN) General information for domain 0:
(XEN)     Rangesets belonging to domain 0:
(XEN) General information for domain 3:
(XEN)     Rangesets belonging to domain 3:
(XEN)     ioreq_server 0 pci { }
(XEN)     ioreq_server 0 memory { [fe000000, fe0001ff] }
(XEN)     ioreq_server 7 memory { [fe000050, fe000053] }
(XEN)     Interrupts { }
(XEN) General information for domain 32754:
";

    #[test]
    fn servers_are_found_in_the_domain_that_has_them() {
        assert_eq!(servers_in(DUMP, DomId(3)), [0, 7]);
        assert!(servers_in(DUMP, DomId(0)).is_empty());
        assert_eq!(domains_in(DUMP), [DomId(3)]);
    }
}
