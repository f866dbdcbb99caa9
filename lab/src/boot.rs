//! What a boot shall be like.

use std::{path::PathBuf, time::Duration};

use crate::{
    image::{Content, Payload},
    platform::Platform,
};

/// What time is to the emulated machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Clock {
    /// The host's time.
    Host,
    /// Instructions, one of them a nanosecond; while none is to be carried out, it jumps to the next
    /// timer. Nothing depends on how fast the host is, but emulated CPUs take turns.
    Instructions,
    /// The same of a slow machine, one of them 16 nanoseconds. Timers that fire every so many
    /// milliseconds then end a turn after fewer instructions, and what several CPUs do overlaps, on
    /// every platform, however fast the host is.
    ShortTurns,
    /// Instructions, from a fixed date, with fixed random numbers, on one CPU: two runs take the very
    /// same path.
    Deterministic,
}

/// One boot's configuration.
#[derive(Debug, Clone)]
pub struct Boot {
    pub(crate) platform: Platform,
    pub(crate) cpus: u32,
    pub(crate) dom0_vcpus: u32,
    pub(crate) memory: u32,
    pub(crate) dom0_memory: u32,
    pub(crate) clock: Clock,
    pub(crate) xen_arguments: Vec<String>,
    pub(crate) linux_arguments: Vec<String>,
    pub(crate) qemu_arguments: Vec<String>,
    pub(crate) payload: Vec<Payload>,
    pub(crate) timeout: Duration,
    pub(crate) name: Option<String>,
}

impl Boot {
    /// One CPU, one dom0 vCPU, 2 GiB of which dom0 has 768 MiB.
    #[must_use]
    pub fn new(platform: Platform) -> Self {
        Self {
            platform,
            cpus: 1,
            dom0_vcpus: 1,
            memory: 2048,
            dom0_memory: 768,
            clock: Clock::Instructions,
            xen_arguments: Vec::new(),
            linux_arguments: Vec::new(),
            qemu_arguments: Vec::new(),
            payload: Vec::new(),
            timeout: Duration::from_secs(180),
            name: None,
        }
    }

    /// Emulated CPUs, each a thread of the host. dom0 gets as many vCPUs, at most two: the others
    /// are there for guests.
    #[must_use]
    pub fn cpus(mut self, cpus: u32) -> Self {
        self.cpus = cpus.max(1);
        self.dom0_vcpus = self.cpus.min(2);
        self
    }

    /// dom0's vCPUs; set it after [`Boot::cpus`].
    #[must_use]
    pub fn dom0_vcpus(mut self, vcpus: u32) -> Self {
        self.dom0_vcpus = vcpus.max(1);
        self
    }

    /// The machine's memory in MiB.
    #[must_use]
    pub fn memory(mut self, mebibytes: u32) -> Self {
        self.memory = mebibytes;
        self
    }

    /// dom0's memory in MiB.
    #[must_use]
    pub fn dom0_memory(mut self, mebibytes: u32) -> Self {
        self.dom0_memory = mebibytes;
        self
    }

    /// Time as the host has it: for people, and for runs that are to last so many minutes.
    #[must_use]
    pub fn host_clock(mut self) -> Self {
        self.clock = Clock::Host;
        self
    }

    /// Time counted in instructions, of which there are few: for what several CPUs do at once, when it
    /// shall not depend on the host.
    #[must_use]
    pub fn short_turns(mut self) -> Self {
        self.clock = Clock::ShortTurns;
        self
    }

    /// Time counted in instructions, on one CPU: two runs take the very same path, as long as
    /// nothing talks to dom0 meanwhile. [`Lab::run`](crate::Lab::run) takes care of that.
    #[must_use]
    pub fn deterministic(mut self) -> Self {
        self.clock = Clock::Deterministic;
        self.cpus(1)
    }

    /// One more argument for Xen.
    #[must_use]
    pub fn xen_argument(mut self, argument: impl Into<String>) -> Self {
        self.xen_arguments.push(argument.into());
        self
    }

    /// One more argument for dom0's kernel.
    #[must_use]
    pub fn linux_argument(mut self, argument: impl Into<String>) -> Self {
        self.linux_arguments.push(argument.into());
        self
    }

    /// One more argument for QEMU, which runs in the run's folder.
    #[must_use]
    pub fn qemu_argument(mut self, argument: impl Into<String>) -> Self {
        self.qemu_arguments.push(argument.into());
        self
    }

    /// Puts a file of the host, with its permissions, to `path` in dom0 (`bin/tool`).
    #[must_use]
    pub fn payload(mut self, path: impl Into<String>, file: impl Into<PathBuf>) -> Self {
        self.payload.push(Payload { path: path.into(), content: Content::File(file.into()) });
        self
    }

    /// Has dom0 load this file where it would load the kernel's own module `name` (`xen-privcmd`),
    /// one of those that the lab loads at boot.
    #[must_use]
    pub fn replace_module(self, name: &str, file: impl Into<PathBuf>) -> Self {
        // Of two files with one name in an initramfs, the later one stays.
        self.payload(format!("lib/lab/{name}.ko"), file)
    }

    /// Puts bytes with permissions (`0o644`) to `path` in dom0.
    #[must_use]
    pub fn payload_bytes(
        mut self,
        path: impl Into<String>,
        permissions: u32,
        bytes: impl Into<Vec<u8>>,
    ) -> Self {
        let content = Content::Bytes(bytes.into(), permissions);
        self.payload.push(Payload { path: path.into(), content });
        self
    }

    /// A script that dom0 runs when it is up, without a word from the host.
    pub(crate) fn script(self, script: &str, timeout: Duration) -> Self {
        let seconds = timeout.as_secs().max(1).to_string();
        self.payload_bytes("lib/lab/script", 0o644, script).payload_bytes(
            "lib/lab/seconds",
            0o644,
            seconds,
        )
    }

    /// How long it may take until dom0 answers; three minutes if not set.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// A word for the folder that keeps what the consoles said.
    #[must_use]
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Instructions are counted where emulated CPUs do not run at once.
    pub(crate) fn clock(&self) -> Clock {
        match self.clock {
            Clock::Instructions if self.platform.threads(self.cpus) > 1 => Clock::Host,
            clock => clock,
        }
    }

    /// QEMU's arguments, but for the serial ports.
    pub(crate) fn arguments(&self) -> Result<Vec<String>, CommaError> {
        let arch = self.platform.arch();
        let mut arguments = arch.machine(self);
        let mut push = |words: &[&str]| arguments.extend(words.iter().map(|w| (*w).to_owned()));
        push(&["-smp", &self.cpus.to_string(), "-m", &format!("{}M", self.memory)]);
        push(&["-display", "none", "-nodefaults", "-nic", "none", "-no-reboot"]);
        let clock = self.clock();
        match clock {
            Clock::Host => {}
            Clock::ShortTurns => push(&["-icount", "shift=4,sleep=off"]),
            Clock::Instructions | Clock::Deterministic => {
                push(&["-icount", "shift=0,sleep=off"]);
            }
        }
        if clock == Clock::Deterministic {
            push(&["-seed", "42", "-rtc", "clock=vm,base=2026-01-01T00:00:00"]);
        }
        let mut xen = arch.xen_arguments(self);
        xen.extend(self.xen_arguments.iter().cloned());
        let mut linux = vec![
            "console=hvc0".to_owned(),
            "quiet".to_owned(),
            "loglevel=4".to_owned(),
            "panic=0".to_owned(),
            "rdinit=/init".to_owned(),
            format!("LAB_TTY={}", arch.command_tty()),
        ];
        linux.extend(self.linux_arguments.iter().cloned());
        if let Some(argument) = linux.iter().find(|argument| argument.contains(',')) {
            return Err(CommaError(argument.clone()));
        }
        arguments.extend(self.qemu_arguments.iter().cloned());
        arguments.extend(arch.kernel(&xen.join(" "), &linux.join(" ")));
        Ok(arguments)
    }
}

/// QEMU splits the list of modules at commas, so a kernel argument cannot hold one.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct CommaError(String);

impl std::fmt::Display for CommaError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}: an argument of dom0's kernel cannot hold a comma here", self.0)
    }
}

impl std::error::Error for CommaError {}

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments(boot: &Boot) -> String {
        boot.arguments().unwrap().join(" ")
    }

    #[test]
    fn races_get_threads_and_the_bench_gets_none() {
        assert!(arguments(&Boot::new(Platform::X86Pv).cpus(4)).contains("tcg,thread=multi"));
        assert!(arguments(&Boot::new(Platform::X86Pvh).cpus(4)).contains("tcg,thread=single"));
        let bench = arguments(&Boot::new(Platform::X86Pv).cpus(4).deterministic());
        assert!(bench.contains("tcg,thread=single") && bench.contains("-icount"));
        assert!(bench.contains("-smp 1 "));
    }

    #[test]
    fn instructions_are_counted_unless_cpus_run_at_once_or_a_person_waits() {
        let counts = |boot: Boot| arguments(&boot).contains("-icount");
        assert!(counts(Boot::new(Platform::X86Pv)) && counts(Boot::new(Platform::X86Pvh).cpus(4)));
        assert!(!counts(Boot::new(Platform::X86Pv).cpus(4)));
        assert!(!counts(Boot::new(Platform::X86Pvh).host_clock()));
        let short = arguments(&Boot::new(Platform::X86Pv).cpus(4).short_turns());
        assert!(short.contains("-icount shift=4,") && short.contains("tcg,thread=single"));
        let fixed = |boot: Boot| arguments(&boot).contains("-seed");
        assert!(
            fixed(Boot::new(Platform::X86Pv).deterministic()) && !fixed(Boot::new(Platform::X86Pv))
        );
    }

    #[test]
    fn a_pvh_dom0_has_an_iommu() {
        assert!(arguments(&Boot::new(Platform::X86Pvh)).contains("amd-iommu"));
        assert!(arguments(&Boot::new(Platform::X86Pvh)).contains("dom0=pvh"));
        assert!(!arguments(&Boot::new(Platform::X86Pv)).contains("amd-iommu"));
    }

    #[test]
    fn an_arm_machine_gets_its_kernel_from_a_loader_and_its_cpus_run_at_once() {
        let one = arguments(&Boot::new(Platform::Arm64).linux_argument("debug"));
        assert!(one.contains("guest-loader,addr=0x50000000,kernel=vmlinuz,bootargs=console=hvc0"));
        assert!(one.contains(" debug -device guest-loader,addr=0x58000000,initrd=dom0.cpio"));
        assert!(one.contains("-append console=dtuart") && one.contains("-icount"));
        assert!(!one.contains("-initrd") && !one.contains("com1"));
        assert!(!one.contains("credit2_runqueue"));
        let four = arguments(&Boot::new(Platform::Arm64).cpus(4));
        assert!(four.contains("tcg,thread=multi") && four.contains(" credit2_runqueue=cpu "));
    }

    #[test]
    fn a_comma_is_refused() {
        for platform in Platform::ALL {
            let boot = Boot::new(platform).linux_argument("isolcpus=1,2");
            assert!(boot.arguments().is_err(), "{platform}");
        }
    }
}
