//! `check`: whether a configuration file of `daemon` has mistakes.

use crate::daemon::config::{Config, DEFAULT, Mistake};
use clap::Args;
use serde::Serialize;
use std::path::PathBuf;
use xen_eventfd_cli::failure::{Exit, Failure};
use xen_eventfd_cli::session::Session;

/// Check the configuration file of `daemon`.
///
/// Prints each mistake with its file and line, and ends with 1 if there is one. The programs, users and groups that
/// the file names are looked for on this system. A daemon that runs reads the file again for each guest that is
/// created.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// The file
    #[arg(default_value = DEFAULT)]
    file: PathBuf,
}

#[derive(Debug, Serialize)]
pub(super) struct Report {
    pub(super) file: String,
    pub(super) guests: usize,
    pub(super) devices: usize,
    pub(super) mistakes: Vec<Mistake>,
}

pub(crate) fn run(session: &Session, arguments: &Arguments) -> Result<Exit, Failure> {
    let file = arguments.file.display().to_string();
    let report = match Config::read(&arguments.file) {
        Ok(config) => {
            let (guests, devices) = (config.guests().len(), config.guests().iter());
            let devices = devices.map(|guest| guest.devices.len()).sum();
            Report { file, guests, devices, mistakes: Vec::new() }
        }
        Err(mistakes) => Report { file, guests: 0, devices: 0, mistakes },
    };
    session.print("virtio.check", &report, || report.prose())?;
    Ok(if report.mistakes.is_empty() { Exit::Success } else { Exit::Failed })
}

impl Report {
    fn prose(&self) -> String {
        let Self { file, guests, devices, mistakes } = self;
        if mistakes.is_empty() {
            return format!(
                "{file}: no mistakes; entries of guests: {guests}, devices: {devices}\n"
            );
        }
        mistakes.iter().map(|mistake| format!("{file}:{mistake}\n")).collect()
    }
}
