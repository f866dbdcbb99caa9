//! What the kernel counts of every task: how often it slept and was woken, and how long it ran.

use std::collections::BTreeMap;
use std::fs;
use std::io;

/// A task of the kernel's, by its process and its own number.
pub type Id = (u32, u32);

/// What the kernel knows of a task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Task {
    /// Its name.
    pub name: String,
    /// Whether it is of a process, and not a thread of the kernel.
    pub user: bool,
    /// Voluntary context switches.
    pub woken: u64,
    /// How long it has run, in nanoseconds.
    pub ran: u64,
}

/// All tasks. One that ends meanwhile is left out.
///
/// # Errors
/// `/proc` cannot be read.
pub fn all() -> io::Result<BTreeMap<Id, Task>> {
    let mut tasks = BTreeMap::new();
    for process in numbers("/proc")? {
        for thread in numbers(&format!("/proc/{process}/task")).unwrap_or_default() {
            let folder = format!("/proc/{process}/task/{thread}");
            let Ok(status) = fs::read_to_string(format!("{folder}/status")) else { continue };
            let times = fs::read_to_string(format!("{folder}/schedstat")).unwrap_or_default();
            tasks.extend(parse(&status, &times).map(|task| ((process, thread), task)));
        }
    }
    Ok(tasks)
}

fn parse(status: &str, times: &str) -> Option<Task> {
    Some(Task {
        name: field(status, "Name:")?.to_owned(),
        // A kernel thread has no memory of its own.
        user: field(status, "VmSize:").is_some(),
        woken: field(status, "voluntary_ctxt_switches:")?.parse().ok()?,
        ran: times.split_whitespace().next().and_then(|word| word.parse().ok()).unwrap_or(0),
    })
}

fn field<'a>(status: &'a str, name: &str) -> Option<&'a str> {
    status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim)
}

fn numbers(folder: &str) -> io::Result<Vec<u32>> {
    let names = fs::read_dir(folder)?.flatten();
    Ok(names.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_is_of_a_process_or_of_the_kernel() {
        let status = "Name:\tcat\nVmSize:\t 5 kB\nvoluntary_ctxt_switches:\t17\n\
            nonvoluntary_ctxt_switches:\t9\n";
        let task = Task { name: "cat".to_owned(), user: true, woken: 17, ran: 1200 };
        assert_eq!(parse(status, "1200 30 4\n"), Some(task));
        let status = "Name:\tvif1.0-q0-guest\nnonvoluntary_ctxt_switches:\t9\n";
        assert_eq!(parse(status, "1 2 3"), None, "there is no count");
        let status = format!("{status}voluntary_ctxt_switches:\t3\n");
        assert!(!parse(&status, "1 2 3").unwrap().user);
    }

    #[test]
    fn this_process_runs() {
        let own = std::process::id();
        assert!(all().unwrap()[&(own, own)].user);
    }
}
