//! The command as a process of its own, on a model of Xen instead of this machine's: for tests of
//! signals, descriptors and variables.
//!
//! `ON_MODEL_GUEST` names a guest that is there from the beginning. `ON_MODEL` names a socket of a
//! test, which this program connects to before it begins. Each line that comes from there is an
//! order, and is answered with a line once it is carried out:
//!
//! ```text
//! create NAME [UUID]  a guest with one vCPU; answers its number
//! destroy DOM
//! port DOM        the guest allocates an event channel; answers its number
//! kick DOM VALUE  the guest writes 4 bytes to 0xfe000050; answers when its vCPU goes on
//! served DOM      answers when an engine has claimed bytes of the guest
//! free DOM        answers when no engine has a server in it
//! ```

use nix::sys::signal::{SigSet, SigmaskHow};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::process::ExitCode;
use xen_eventfd::{DomId, Space, VcpuId, Width};
use xen_eventfd_model::{Config, Model};

fn main() -> ExitCode {
    let words: Vec<_> = std::env::args_os().collect();
    // The backend's last step has no host.
    if words.get(1).is_some_and(|word| word == "exec") {
        return xen_eventfd_cli::run(words);
    }
    let model = Model::new();
    if let Ok(name) = std::env::var("ON_MODEL_GUEST") {
        carry_out(&model, &format!("create {name}"));
    }
    let host = model.client("xen-eventfd");
    // The guests' threads are no part of the command: its signals are not theirs.
    let everything = SigSet::all();
    let before = everything.thread_swap_mask(SigmaskHow::SIG_BLOCK).expect("signals are blocked");
    if let Some(path) = std::env::var_os("ON_MODEL") {
        let stream = UnixStream::connect(path).expect("the test listens");
        std::thread::spawn(move || obey(&model, &stream));
    }
    before.thread_set_mask().expect("signals are as they were");
    xen_eventfd_cli::run_on(words, Some(host))
}

fn obey(model: &Model, stream: &UnixStream) {
    let mut answers = stream;
    for order in BufReader::new(stream).lines().map_while(Result::ok) {
        let answer = carry_out(model, &order);
        if writeln!(answers, "{answer}").is_err() {
            return;
        }
    }
}

fn carry_out(model: &Model, order: &str) -> String {
    let words: Vec<&str> = order.split_whitespace().collect();
    let dom = || DomId(words[1].parse().expect("a number"));
    let vcpu = || model.vcpu(dom(), VcpuId(0));
    match words[0] {
        "create" => {
            let config = Config::new(words[1]);
            let config = match words.get(2) {
                Some(uuid) => config.uuid(*uuid),
                None => config,
            };
            model.domain(config).0.to_string()
        }
        "destroy" => model.destroy(dom()).to_string(),
        "port" => vcpu().alloc_unbound().expect("a port").0.to_string(),
        "kick" => {
            let value = words[2].parse().expect("a number");
            vcpu().write(Space::Mmio, 0xFE00_0050, Width::Four, value).map_or("gone", |()| "done")
        }
        .to_owned(),
        "served" => {
            model.until("bytes are claimed", |model| {
                model.servers(dom()).iter().any(|server| !server.ranges.is_empty())
            });
            "done".to_owned()
        }
        "free" => {
            model.until("no server is left", |model| model.servers(dom()).is_empty());
            "done".to_owned()
        }
        other => format!("there is no order {other}"),
    }
}
