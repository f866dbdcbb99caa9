//! An environment on the model: guests and processes are threads.

mod guest;

use super::{End, Environment, EnvironmentGuest, EnvironmentProcess};
use crate::Engine;
use crate::link::Link;
use crate::roles::Helper;
use crate::roles::kill::Die;
use anyhow::{Context, Result, ensure};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use xen_eventfd::{DomId, Guardian, Host, Xen};
use xen_eventfd_core::irq::Arch;
use xen_eventfd_model::{Client, Model};

/// The model as an environment.
#[derive(Debug)]
pub struct ModelEnvironment {
    model: Model,
    own: Arc<Client>,
    /// The last one is in use; a killed process keeps the one it had.
    run_dirs: Mutex<Vec<tempfile::TempDir>>,
}

impl ModelEnvironment {
    /// A new machine, of this program's architecture.
    ///
    /// # Errors
    /// The directory for locks cannot be created.
    pub fn new() -> Result<Self> {
        Self::on(Arch::NATIVE)
    }

    /// A new machine of an architecture.
    ///
    /// # Errors
    /// The directory for locks cannot be created.
    pub fn on(arch: Arch) -> Result<Self> {
        let model = Model::on(arch);
        let own = model.client("test");
        Ok(Self { model, own, run_dirs: Mutex::new(vec![tempfile::tempdir()?]) })
    }

    /// Releases the locks of a dead process. Here the process is a thread that keeps its locks, so
    /// the files move to a new directory.
    fn release_locks(&self) -> Result<()> {
        let (old, new) = (self.run_dir(), tempfile::tempdir()?);
        for entry in std::fs::read_dir(old)? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "json") {
                let name = path.file_name().context("a record has a name")?;
                std::fs::copy(&path, new.path().join(name))?;
            }
        }
        self.run_dirs.lock().unwrap_or_else(PoisonError::into_inner).push(new);
        Ok(())
    }
}

impl Environment for ModelEnvironment {
    fn host(&self) -> Arc<dyn Host> {
        Arc::clone(&self.own) as Arc<dyn Host>
    }

    fn engine(&self) -> Option<Engine> {
        None
    }

    fn run_dir(&self) -> PathBuf {
        let dirs = self.run_dirs.lock().unwrap_or_else(PoisonError::into_inner);
        dirs.last().map(|dir| dir.path().to_owned()).unwrap_or_default()
    }

    fn guardian(&self) -> Guardian {
        // Another process cannot see this process's model: `after_death` reaps.
        Guardian::None
    }

    fn guest(&self, script: &str) -> Result<Box<dyn EnvironmentGuest>> {
        Ok(Box::new(guest::ModelGuest::new(&self.model, script)?))
    }

    fn process(&self) -> Result<Box<dyn EnvironmentProcess>> {
        let (local, remote) = Link::pair()?;
        let client = self.model.client("process");
        let (hang_up, ended) = (remote.again()?, remote.again()?);
        let die = Die::new({
            let client = Arc::clone(&client);
            move || {
                client.kill();
                hang_up.hang_up();
                // A killed process goes no further. The thread stays here until the program ends.
                loop {
                    std::thread::park();
                }
            }
        });
        let helper = Helper {
            host: Arc::clone(&client) as Arc<dyn Host>,
            link: remote,
            run_dir: self.run_dir(),
            guardian: Guardian::None,
            die: die.clone(),
        };
        let thread = Some(std::thread::spawn(move || {
            let played = helper.run();
            ended.hang_up();
            played
        }));
        Ok(Box::new(ModelProcess { link: local, client, die, thread }))
    }

    fn after_death(&self) -> Result<()> {
        self.release_locks()
    }

    fn guarded(&self, _dom: DomId) -> Result<()> {
        let guardian = self.model.client("guardian");
        for (dom, reaped) in Xen::builder().run_dir(self.run_dir()).reap_on(&*guardian)? {
            reaped.with_context(|| format!("reaping {dom}"))?;
        }
        ensure!(
            guardian.leftovers().ports.is_empty(),
            "the guardian left {:?}",
            guardian.leftovers()
        );
        Ok(())
    }

    fn servers(&self, dom: DomId) -> Result<Vec<u16>> {
        Ok(self.model.servers(dom).iter().map(|server| server.id.0).collect())
    }

    fn zombies(&self) -> Result<Vec<DomId>> {
        Ok(self.model.zombies())
    }
}

#[derive(Debug)]
struct ModelProcess {
    link: Link,
    client: Arc<Client>,
    die: Die,
    thread: Option<JoinHandle<Result<()>>>,
}

impl EnvironmentProcess for ModelProcess {
    fn pid(&self) -> u32 {
        std::process::id()
    }

    fn link(&self) -> &Link {
        &self.link
    }

    fn kill(&mut self) -> Result<()> {
        self.die.mark();
        self.client.kill();
        self.link.hang_up();
        self.wait().map(drop)
    }

    fn wait(&mut self) -> Result<End> {
        if let Some(thread) = self.thread.take() {
            thread.join().map_err(|_| anyhow::anyhow!("a process panicked"))??;
        }
        Ok(if self.die.is_dead() { End::Killed } else { End::Left })
    }
}

impl Drop for ModelProcess {
    fn drop(&mut self) {
        self.link.hang_up();
        let _ = self.wait();
    }
}
