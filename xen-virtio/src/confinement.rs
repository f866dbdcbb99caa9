//! A process that serves a guest gives up what it does not need, for all of its threads and for good: capabilities, files
//! and sockets (Landlock), system calls (seccomp). Its descriptors of Xen's devices are confined beside that, by
//! [`xen_eventfd::Devices::confine`].

use landlock::{
    ABI, Access, AccessFs, CompatLevel, Compatible, RestrictSelfAttr, Ruleset, RulesetAttr,
    RulesetCreatedAttr, RulesetError, Scope, path_beneath_rules,
};
use rustix::thread::{CapabilitySet, CapabilitySets, capabilities, set_capabilities};
use seccompiler::{BpfProgram, apply_filter_all_threads, compile_from_json};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// What was given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Confinement {
    /// Every file but those of the run directory, programs among them (Linux 7.0 and later: before that Landlock
    /// cannot confine threads that run).
    pub files: bool,
    /// Every socket that has a name, but those of the run directory and of the backends (Linux 7.1 and later).
    pub sockets: bool,
    /// Every system call but those of a list.
    pub system_calls: bool,
}

/// System calls of a process that serves a guest, whatever their arguments. `docs/devices.md` explains them.
const CALLS: [&str; 99] = [
    // Queues and the engine.
    "read",
    "write",
    "readv",
    "writev",
    "preadv2",
    "pread64",
    "pwrite64",
    "eventfd2",
    "epoll_create1",
    "epoll_ctl",
    "epoll_pwait",
    "ppoll",
    "timerfd_create",
    "timerfd_settime",
    "signalfd4",
    "io_setup",
    "io_destroy",
    "io_submit",
    "io_getevents",
    // Backends, and who asks for the state.
    "connect",
    "bind",
    "listen",
    "accept4",
    "sendto",
    "recvfrom",
    "sendmsg",
    "recvmsg",
    "shutdown",
    "getsockopt",
    "setsockopt",
    "getsockname",
    "getpeername",
    "socketpair",
    "memfd_create",
    // Files of the run directory.
    "openat",
    "close",
    "close_range",
    "dup",
    "dup3",
    "fcntl",
    "flock",
    "fstat",
    "newfstatat",
    "statx",
    "lseek",
    "getdents64",
    "readlinkat",
    "faccessat",
    "faccessat2",
    "fchmod",
    "fchmodat",
    "ftruncate",
    "fallocate",
    "fsync",
    "fdatasync",
    "renameat",
    "renameat2",
    "unlinkat",
    "pipe2",
    // Memory.
    "brk",
    "mmap",
    "munmap",
    "mremap",
    "mprotect",
    "madvise",
    "mlock",
    "mlock2",
    "munlock",
    // Threads, signals and time.
    "clone",
    "clone3",
    "futex",
    "membarrier",
    "rseq",
    "set_robust_list",
    "sched_getaffinity",
    "sched_yield",
    "prctl",
    "rt_sigaction",
    "rt_sigprocmask",
    "rt_sigreturn",
    "rt_sigtimedwait",
    "sigaltstack",
    "restart_syscall",
    "clock_gettime",
    "clock_nanosleep",
    "nanosleep",
    "getrandom",
    "uname",
    "getpid",
    "gettid",
    "getppid",
    "getuid",
    "geteuid",
    "getgid",
    "getegid",
    "wait4",
    "waitid",
    "exit",
    "exit_group",
];

/// What a C library calls instead where the architecture has it.
#[cfg(target_arch = "x86_64")]
const OLD_CALLS: [&str; 13] = [
    "arch_prctl",
    "poll",
    "epoll_wait",
    "open",
    "stat",
    "lstat",
    "access",
    "readlink",
    "rename",
    "unlink",
    "chmod",
    "gettimeofday",
    "time",
];
#[cfg(not(target_arch = "x86_64"))]
const OLD_CALLS: [&str; 0] = [];

const AF_UNIX: u64 = 1;
/// Puts a character into a terminal's input.
const TIOCSTI: u64 = 0x5412;
/// Linux's EPERM.
const EPERM: u32 = 1;

/// What a thread may do as root that others may not, once it has given up the rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Capabilities {
    /// Nothing.
    None,
    /// `CAP_DAC_OVERRIDE`: `connect` to a backend that was started again, whose socket belongs to its own user.
    Connect,
}

/// Gives up, in this thread and those that it starts afterwards, what root may do beside these. A thread that runs already
/// has to do so itself.
///
/// # Errors
/// The kernel refuses it.
pub fn give_up_capabilities(kept: Capabilities) -> std::io::Result<()> {
    let kept = match kept {
        Capabilities::None => CapabilitySet::empty(),
        Capabilities::Connect => CapabilitySet::DAC_OVERRIDE,
    };
    // Who is not root may have none of them.
    let permitted = capabilities(None)?.permitted & kept;
    let inheritable = CapabilitySet::empty();
    Ok(set_capabilities(None, CapabilitySets { effective: permitted, permitted, inheritable })?)
}

/// Gives up, in all threads, all files but those of `run_dir`, all sockets but those beside `sockets` and in
/// `run_dir`, and all system calls that are not listed.
///
/// # Errors
/// Why the kernel refuses to filter system calls.
pub fn confine(run_dir: &Path, sockets: &[PathBuf]) -> Result<Confinement, String> {
    let (files, sockets) = match give_up_files(run_dir, sockets, ABI::V9) {
        Ok(()) => (true, true),
        // An older kernel.
        Err(_) => (give_up_files(run_dir, sockets, ABI::V8).is_ok(), false),
    };
    apply_filter_all_threads(&filter()?).map_err(|error| error.to_string())?;
    Ok(Confinement { files, sockets, system_calls: true })
}

/// All of what this version of Landlock has, or nothing.
fn give_up_files(run_dir: &Path, sockets: &[PathBuf], abi: ABI) -> Result<(), RulesetError> {
    let folders = sockets.iter().flat_map(|socket| folders_of(socket));
    let mut ruleset = Ruleset::default()
        .set_compatibility(CompatLevel::HardRequirement)
        .handle_access(AccessFs::from_all(abi))?
        .scope(Scope::from_all(abi))?
        .create()?
        .add_rules(path_beneath_rules([run_dir], AccessFs::from_all(abi)))?
        // Eventfds are looked up in the one, and signalled by reads of the other.
        .add_rules(path_beneath_rules(["/proc/self", "/dev/null"], AccessFs::from_read(abi)))?;
    if abi == ABI::V9 {
        ruleset = ruleset.add_rules(path_beneath_rules(folders, AccessFs::ResolveUnix))?;
    }
    ruleset.all_threads(true)?.restrict_self().map(drop)
}

/// Where a socket is: as it is named, and where a link of that name leads to now.
fn folders_of(socket: &Path) -> impl Iterator<Item = PathBuf> {
    let folder = |path: &Path| match path.parent() {
        Some(parent) if parent.as_os_str().is_empty() => Some(PathBuf::from(".")),
        parent => parent.map(Path::to_owned),
    };
    let resolved = socket.canonicalize().ok();
    folder(socket).into_iter().chain(resolved.and_then(|path| folder(&path)))
}

/// What is not allowed is EPERM, so that an error names what was tried.
fn filter() -> Result<BpfProgram, String> {
    const NAME: &str = "all";
    let any = CALLS.iter().chain(&OLD_CALLS).map(|call| json!({ "syscall": call }));
    let with = |call: &str, arguments: &[Value]| json!({ "syscall": call, "args": arguments });
    let argument = |index: u8, op: &str, val: u64| json!({ "index": index, "type": "dword", "op": op, "val": val });
    let own = u64::from(std::process::id());
    let some = [
        with("socket", &[argument(0, "eq", AF_UNIX)]),
        with("ioctl", &[argument(1, "ne", TIOCSTI)]),
        // `abort` sends one.
        with("tgkill", &[argument(0, "eq", own)]),
        with("kill", &[argument(0, "eq", own)]),
    ];
    let filter = json!({ NAME: {
        "mismatch_action": { "errno": EPERM },
        "match_action": "allow",
        "filter": any.chain(some).collect::<Vec<_>>(),
    } });
    let arch = std::env::consts::ARCH.try_into().map_err(|_| "no filter for this architecture")?;
    let mut compiled = compile_from_json(filter.to_string().as_bytes(), arch)
        .map_err(|error| error.to_string())?;
    compiled.remove(NAME).ok_or_else(|| "no filter was made".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_call_is_listed_once() {
        let mut all: Vec<&str> = CALLS.iter().chain(&OLD_CALLS).copied().collect();
        all.sort_unstable();
        assert!(all.windows(2).all(|two| two[0] != two[1]));
    }
}
