//! Which engine would be picked, and why.

use crate::served::Engine;
use crate::session::Session;
use serde::Serialize;
use xen_eventfd::{ENGINE_VARIABLE, EngineKind, Error, Probe};

/// Which engines can run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Engines {
    /// The thread of a process.
    pub userspace: bool,
    /// The kernel module.
    pub kernel: bool,
}

/// The engine that would be picked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Pick {
    /// Which one; `None` if none can run.
    pub engine: Option<Engine>,
    /// Why.
    pub why: String,
}

/// Where an engine is named: on the command line, or else in the environment.
pub fn named_by(session: &Session) -> Option<&'static str> {
    let variable = || std::env::var_os(ENGINE_VARIABLE).map(|_| ENGINE_VARIABLE);
    session.engine.map(|_| "--engine").or_else(variable)
}

impl Engines {
    /// Those that the library would run, each asked for by name.
    pub fn of(probe: &Probe) -> Self {
        let runs = |kind| probe.engine_if_asked(kind).is_ok();
        Self { userspace: runs(EngineKind::Userspace), kernel: runs(EngineKind::Kernel) }
    }
}

/// What the library would pick. `by`: where the engine is named, if it is.
pub fn pick(probe: &Probe, by: Option<&str>) -> Pick {
    let auto = matches!(probe.asked, Ok(EngineKind::Auto));
    let by = by.filter(|_| !auto);
    match (probe.engine(), by) {
        (Ok(kind), by) => {
            let why = match (by, kind) {
                (Some(by), _) => format!("{by} asks for it"),
                (None, EngineKind::Userspace) => match &probe.module {
                    Ok(_) => "the kernel module lacks some of what an engine does".to_owned(),
                    Err(_) => "no kernel module answers".to_owned(),
                },
                (None, _) => {
                    "the kernel module answers, and a kick wakes only its backend".to_owned()
                }
            };
            Pick { engine: Some(kind.into()), why }
        }
        (Err(error), by) => {
            let what = match (&probe.asked, by) {
                (Ok(kind), Some(by)) => {
                    format!("{by} asks for the {kind} engine, and it cannot run: ")
                }
                (Err(_), Some(by)) => format!("{by} asks for one that is not there: "),
                (_, None) => String::new(),
            };
            Pick { engine: None, why: what + &cause(error) }
        }
    }
}

/// Without the advice to run this command.
fn cause(error: Error) -> String {
    match error {
        Error::NoEngine(why) => why,
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use xen_eventfd::{HostError, ModuleInfo};
    use xen_eventfd_host::{Call, Errno};

    fn machine(asked: EngineKind, complete: bool) -> Probe {
        let mut probe = Probe::answering(asked);
        probe.module = Ok(ModuleInfo::new(1, complete));
        probe
    }

    #[test]
    fn the_module_comes_first_if_it_can_do_all() {
        let by = Some("--engine");
        let best = pick(&machine(EngineKind::Auto, true), by);
        assert_eq!(best.engine, Some(Engine::Kernel));
        assert!(best.why.starts_with("the kernel module answers"), "{}", best.why);
        let lacking = pick(&machine(EngineKind::Auto, false), by);
        assert_eq!(lacking.engine, Some(Engine::Userspace));
        assert!(lacking.why.contains("lacks"), "{}", lacking.why);
        assert_eq!(pick(&Probe::answering(EngineKind::Auto), None).why, "no kernel module answers");
    }

    #[test]
    fn what_is_asked_for_is_picked_or_nothing() {
        for (kind, engine) in
            [(EngineKind::Userspace, Engine::Userspace), (EngineKind::Kernel, Engine::Kernel)]
        {
            let pick = pick(&machine(kind, true), Some("--engine"));
            assert_eq!((pick.engine, &*pick.why), (Some(engine), "--engine asks for it"));
        }
        let refused = pick(&Probe::answering(EngineKind::Kernel), Some("--engine"));
        assert_eq!(refused.engine, None);
        let why = "--engine asks for the kernel engine, and it cannot run: cannot open";
        assert!(refused.why.starts_with(why), "{}", refused.why);
        let mut odd = Probe::answering(EngineKind::Auto);
        odd.asked = "steam".parse();
        assert!(pick(&odd, Some(ENGINE_VARIABLE)).why.contains("no engine called"));
    }

    #[test]
    fn where_xenstore_is_silent_no_engine_is_picked() {
        let mut probe = machine(EngineKind::Auto, true);
        probe.xenstore = Err(HostError::new(Call::Xenstore("domid".to_owned()), Errno::TIMEDOUT));
        let none = pick(&probe, None);
        assert_eq!(none.engine, None);
        assert!(none.why.contains("is xenstored alive?"), "{}", none.why);
        assert_eq!(Engines::of(&probe), Engines { userspace: false, kernel: false });
    }
}
