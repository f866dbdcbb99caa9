//! A machine with one guest, for the commands that want one.

use std::sync::Arc;
use tempfile::TempDir;
use xen_eventfd::{DomId, Error, VcpuId, Xen};
use xen_eventfd_model::{Client, Config, Model, Vcpu};

/// The guest's name.
pub(crate) const NAME: &str = "guest";

/// The machine.
#[derive(Debug)]
pub(crate) struct Machine {
    pub(crate) model: Model,
    pub(crate) dom: DomId,
    pub(crate) client: Arc<Client>,
    pub(crate) dir: TempDir,
}

impl Machine {
    pub(crate) fn new(config: Config) -> Self {
        let model = Model::new();
        let dom = model.domain(config);
        let (client, dir) = (model.client("xen-eventfd"), tempfile::tempdir().unwrap());
        Self { model, dom, client, dir }
    }

    pub(crate) fn xen(&self) -> Xen {
        self.try_xen().unwrap()
    }

    pub(crate) fn try_xen(&self) -> Result<Xen, Error> {
        Xen::builder().run_dir(self.dir.path().join("run")).open_on(self.client.clone())
    }

    pub(crate) fn vcpu(&self) -> Vcpu {
        self.model.vcpu(self.dom, VcpuId(0))
    }
}

impl Default for Machine {
    fn default() -> Self {
        Self::new(Config::new(NAME))
    }
}
