//! What the library tells reaches a program that has a logger of the `log` crate and knows nothing of
//! `tracing`. Alone in its program, as that has one logger.

use log::{Level, Log, Metadata, Record};
use std::os::unix::fs::PermissionsExt;
use std::sync::Mutex;
use xen_eventfd::Xen;
use xen_eventfd_model::{Config, Model};

/// Keeps what is logged.
struct Kept(Mutex<Vec<(Level, String, String)>>);

impl Log for Kept {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        let line = (record.level(), record.target().to_owned(), record.args().to_string());
        self.0.lock().unwrap().push(line);
    }

    fn flush(&self) {}
}

static LOGGER: Kept = Kept(Mutex::new(Vec::new()));

#[test]
fn a_logger_of_the_log_crate_gets_the_warnings() {
    log::set_logger(&LOGGER).unwrap();
    log::set_max_level(log::LevelFilter::Warn);
    let model = Model::new();
    let dom = model.domain(Config::new("guest"));
    let dir = tempfile::tempdir().unwrap();
    let record = dir.path().join(format!("{}.json", dom.0));
    std::fs::write(&record, b"{").unwrap();
    std::fs::set_permissions(&record, PermissionsExt::from_mode(0o600)).unwrap();
    let xen = Xen::builder().run_dir(dir.path()).open_on(model.client("backend")).unwrap();
    let _guest = xen.guest(dom).unwrap();
    let lines = LOGGER.0.lock().unwrap();
    let logged = lines.iter().any(|(level, target, line)| {
        *level == Level::Warn && target.starts_with("xen_eventfd") && line.contains("damaged")
    });
    assert!(logged, "{lines:?}");
}
