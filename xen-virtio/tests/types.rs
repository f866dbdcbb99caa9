//! The types of devices that `--help` lists are those of `docs/devices.md`.

use std::process::Command;

#[test]
fn the_page_of_devices_has_each_form_that_help_lists_and_no_other() {
    let done = Command::new(env!("CARGO_BIN_EXE_xen-virtio")).args(["serve", "--help"]).output();
    let help = String::from_utf8(done.unwrap().stdout).unwrap();
    let begin = help.find("A device: ").unwrap() + "A device: ".len();
    let listed = help[begin..].split(". fd is").next().unwrap();
    let mut listed: Vec<&str> = listed.split("; ").collect();
    let numbered = listed.pop().unwrap();
    listed.push(numbered.split(": ").nth(1).unwrap());
    let page = include_str!("../../docs/devices.md");
    let rows = page.lines().filter_map(|line| line.strip_prefix("| `")?.split("` |").next());
    let mut rows: Vec<&str> = rows.filter(|form| form.contains("=")).collect();
    listed.sort_unstable();
    rows.sort_unstable();
    assert_eq!(rows, listed);
}
