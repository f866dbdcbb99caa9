//! What was measured last, kept below `target/bench`, so that pages can be written again.

use anyhow::{Context, Result};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fs;
use std::path::PathBuf;
use xen_eventfd_lab::{Platform, target_folder};

/// Of one kind, which `kind` is the beginning of its files' names, in one dom0.
#[derive(Debug, Clone)]
pub(super) struct Stored {
    pub(super) kind: String,
    pub(super) platform: Platform,
}

impl Stored {
    fn path(&self) -> PathBuf {
        target_folder().join("bench").join(format!("{}{}.json", self.kind, self.platform.name()))
    }

    pub(super) fn save(&self, figures: &impl Serialize) -> Result<()> {
        let path = self.path();
        fs::create_dir_all(path.parent().context("a folder")?)?;
        fs::write(&path, serde_json::to_string(figures)?)
            .with_context(|| format!("writing {}", path.display()))
    }

    /// `None` if nothing was measured.
    pub(super) fn load<T: DeserializeOwned>(&self) -> Result<Option<T>> {
        match fs::read_to_string(self.path()) {
            Ok(text) => Ok(Some(serde_json::from_str(&text)?)),
            Err(_) => Ok(None),
        }
    }
}
