//! A test that changes its process: its umask, its working directory, its limits.

use std::process::Command;

const ALONE: &str = "XEN_EVENTFD_TEST_ALONE";

/// Runs a test in a process of its own. `name` is the test's whole name.
pub(crate) fn alone(name: &str, test: impl FnOnce()) {
    if std::env::var_os(ALONE).is_some() {
        return test();
    }
    let this = std::env::current_exe().unwrap();
    let output = Command::new(this).args([name, "--exact"]).env(ALONE, "1").output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    assert!(said.contains("1 passed"), "there is no test {name}: {said}");
}
