//! An environment in domain 0 of real Xen: guests are created by `xl`, processes are processes.

use super::{ACCESSES, End, Environment, EnvironmentGuest, EnvironmentProcess};
use crate::Engine;
use crate::control::Control;
use crate::link::Link;
use crate::lists::Lists;
use anyhow::{Context, Result, bail, ensure};
use std::fs::{File, Permissions};
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};
use xen_eventfd::{DomId, Guardian, Host};
use xen_eventfd_core::irq::Arch;
use xen_eventfd_guest_script::{Program, image};
use xen_eventfd_host::linux::LinuxHost;

/// Where xenconsoled writes the guests' console output.
const CONSOLES: &str = "/var/log/xen/console";
/// SIGKILL as [`ExitStatusExt::signal`] returns it.
const SIGKILL: i32 = rustix::process::Signal::KILL.as_raw();
/// A device model that does nothing: libxl starts it with `-d DOMAIN ...` and kills it. Before a soft
/// reset, libxl asks it to save its state.
const DEVICE_MODEL: &str = "#!/bin/sh
node=/local/domain/0/device-model/$2
xenstore-write $node/state running
while usleep 100000; do
	if [ \"$(xenstore-read $node/command 2>/dev/null)\" = save ]; then
		xenstore-rm $node/command
		: >/var/lib/xen/qemu-save.$2
		xenstore-write $node/state paused
	fi
done
";
/// The interval at which a file is read again.
const TICK: Duration = Duration::from_millis(5);

/// Domain 0 as an environment.
#[derive(Debug)]
pub struct XenEnvironment {
    host: Arc<LinuxHost>,
    engine: Engine,
    accesses: u64,
    kernel: PathBuf,
    run_dir: tempfile::TempDir,
    guests: AtomicU32,
}

impl XenEnvironment {
    /// This machine, with the userspace engine and the bare-metal guest `kernel`.
    ///
    /// # Errors
    /// This is not a domain 0.
    pub fn new(kernel: PathBuf) -> Result<Self> {
        ensure!(kernel.is_file(), "{}: no such test guest", kernel.display());
        let host = Arc::new(LinuxHost::open()?);
        let (engine, accesses) = (Engine::Userspace, ACCESSES);
        let (run_dir, guests) = (tempfile::tempdir()?, AtomicU32::new(0));
        Ok(Self { host, engine, accesses, kernel, run_dir, guests })
    }

    /// The `xl` configuration of a PVH guest with this script.
    fn pvh(&self, script: &str) -> String {
        format!("type = \"pvh\"\nkernel = \"{}\"\ncmdline = \"{script}\"\n", self.kernel.display())
    }

    /// The same for an HVM guest, which has a PC's interrupt controllers. The test guest is its
    /// firmware; its device model only reports that it runs.
    fn hvm(&self, name: &str, script: &str) -> Result<String> {
        let dir = self.run_dir.path();
        let (firmware, device_model) = (dir.join(format!("{name}.elf")), dir.join("device-model"));
        let mut image = std::fs::read(&self.kernel)?;
        image::write(&mut image, script)?;
        std::fs::write(&firmware, image)?;
        std::fs::write(&device_model, DEVICE_MODEL)?;
        std::fs::set_permissions(&device_model, Permissions::from_mode(0o755))?;
        // libxl knows two device models; this one need not answer QMP.
        Ok(format!(
            "type = \"hvm\"\nfirmware_override = \"{}\"\ndevice_model_override = \"{}\"\n\
             device_model_version = \"qemu-xen-traditional\"\nvga = \"none\"\nvnc = 0\nnographic = 1\n",
            firmware.display(),
            device_model.display()
        ))
    }

    /// Selects another engine.
    #[must_use]
    pub fn served_by(self, engine: Engine) -> Self {
        Self { engine, ..self }
    }

    /// Sets the number of accesses of a hostile guest.
    #[must_use]
    pub fn with_accesses(self, accesses: u64) -> Self {
        Self { accesses, ..self }
    }
}

impl Environment for XenEnvironment {
    fn host(&self) -> Arc<dyn Host> {
        Arc::clone(&self.host) as Arc<dyn Host>
    }

    fn engine(&self) -> Option<Engine> {
        Some(self.engine)
    }

    fn accesses(&self) -> u64 {
        self.accesses
    }

    fn run_dir(&self) -> PathBuf {
        self.run_dir.path().to_owned()
    }

    fn guardian(&self) -> Guardian {
        Guardian::Auto
    }

    fn guest(&self, script: &str) -> Result<Box<dyn EnvironmentGuest>> {
        let program = Program::parse(script).map_err(|e| anyhow::anyhow!("bad script: {e}"))?;
        let (vcpus, dir) = (program.vcpus(), self.run_dir.path());
        let number = self.guests.fetch_add(1, Ordering::Relaxed);
        let name = format!("guest-{}-{number}", std::process::id());
        let config = dir.join(format!("{name}.cfg"));
        // libxl refuses a soft reset of a PVH guest, and xl destroys the guest then.
        let reset = program.needs_soft_reset();
        let is_hvm = program.needs_lines() || reset;
        let kind = if is_hvm { self.hvm(&name, script)? } else { self.pvh(script) };
        // An Arm guest has as many shared peripheral interrupts as its configuration says.
        let lines = match self.host.arch() {
            Arch::X86 => "",
            Arch::Arm => "nr_spis = 224\n",
        };
        // A TSC that Xen emulates would include Xen's work in what the guest measures.
        std::fs::write(
            &config,
            format!(
                "name = \"{name}\"\n{kind}{lines}memory = 16\nvcpus = {vcpus}\ntsc_mode = \"native\"\n\
                 on_poweroff = \"preserve\"\non_crash = \"preserve\"\non_soft_reset = \"soft-reset\"\n"
            ),
        )?;
        let path = config.to_str().context("the directory has a plain name")?;
        // An `xl` daemon is needed only to make a soft reset; else the test waits for the guest's end.
        let alone: &[&str] = if reset { &[] } else { &["-e"] };
        xl(&[&["create", "-q", "-p"], alone, &[path]].concat())?;
        let domains = self.host.domains()?;
        let created = domains.iter().find(|domain| domain.name.as_ref() == Some(&name));
        let dom = created.context("xl has created a guest, which xenstore does not have")?.id;
        let console = PathBuf::from(format!("{CONSOLES}/guest-{name}.log"));
        let (file, rest, destroyed) = (None, Vec::new(), false);
        Ok(Box::new(XenGuest { dom, config, console, file, rest, destroyed }))
    }

    fn process(&self) -> Result<Box<dyn EnvironmentProcess>> {
        let (local, remote) = Link::pair()?;
        let child = Command::new("/proc/self/exe")
            .arg("helper")
            .arg(self.run_dir())
            .stdin(Stdio::from(remote.into_fd()))
            .spawn()
            .context("starting a process of the scenario")?;
        Ok(Box::new(XenProcess { link: local, child }))
    }

    fn after_death(&self) -> Result<()> {
        Ok(())
    }

    fn guarded(&self, dom: DomId) -> Result<()> {
        let record = self.run_dir().join(format!("{}.json", dom.0));
        let since = Instant::now();
        loop {
            // Gone, or without a server: the rest are kicks for the next engine.
            match std::fs::read_to_string(&record) {
                Err(_) => return Ok(()),
                Ok(text) if text.contains("\"server\":null") => return Ok(()),
                Ok(_) if since.elapsed() > crate::PATIENCE => bail!("{dom} was not reaped"),
                Ok(_) => std::thread::sleep(TICK),
            }
        }
    }

    fn servers(&self, dom: DomId) -> Result<Vec<u16>> {
        let mut guests = Lists::look()?.guests;
        Ok(guests.remove(&dom).unwrap_or_default().into_iter().collect())
    }

    fn zombies(&self) -> Result<Vec<DomId>> {
        let listed: Vec<DomId> = self.host.domains()?.iter().map(|domain| domain.id).collect();
        let there = Control::open()?.guests()?;
        Ok(there.into_iter().filter(|dom| !listed.contains(dom)).collect())
    }
}

/// Runs an `xl` command.
fn xl(arguments: &[&str]) -> Result<()> {
    let output = Command::new("xl").args(arguments).stdin(Stdio::null()).output();
    let output = output.context("running xl")?;
    ensure!(
        output.status.success(),
        "xl {} failed: {}{}",
        arguments.join(" "),
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}

#[derive(Debug)]
struct XenGuest {
    dom: DomId,
    config: PathBuf,
    console: PathBuf,
    file: Option<File>,
    /// The beginning of an incomplete line.
    rest: Vec<u8>,
    destroyed: bool,
}

impl EnvironmentGuest for XenGuest {
    fn dom(&self) -> DomId {
        self.dom
    }

    fn start(&mut self) -> Result<()> {
        self.unpause()
    }

    fn pause(&mut self) -> Result<()> {
        Control::open()?.pause(self.dom)
    }

    fn unpause(&mut self) -> Result<()> {
        Control::open()?.unpause(self.dom)
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
    /// Removes its files: domain 0 keeps them in memory.
    fn drop(&mut self) {
        let _ = self.destroy();
        let _ = std::fs::remove_file(&self.config);
        let _ = std::fs::remove_file(&self.console);
    }
}

#[derive(Debug)]
struct XenProcess {
    link: Link,
    child: Child,
}

impl EnvironmentProcess for XenProcess {
    fn pid(&self) -> u32 {
        self.child.id()
    }

    fn link(&self) -> &Link {
        &self.link
    }

    fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.wait().map(drop)
    }

    fn wait(&mut self) -> Result<End> {
        let status = self.child.wait()?;
        match status.signal() {
            None if status.success() => Ok(End::Left),
            Some(SIGKILL) => Ok(End::Killed),
            _ => bail!("a process ended with {status}"),
        }
    }
}

impl Drop for XenProcess {
    fn drop(&mut self) {
        self.link.hang_up();
        let _ = self.child.wait();
    }
}
