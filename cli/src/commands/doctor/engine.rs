//! Which engine would be picked, and why.

use crate::served::Engine;
use crate::session::Session;
use serde::Serialize;
use xen_eventfd::ENGINE_VARIABLE;

/// Which engines can run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Engines {
    /// The thread of a process.
    pub userspace: bool,
    /// The kernel module.
    pub kernel: bool,
}

/// The engine that is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// Its name.
    pub engine: String,
    /// Where it is named.
    pub by: &'static str,
}

/// The engine that would be picked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Pick {
    /// Which one; `None` if none can run.
    pub engine: Option<Engine>,
    /// Why.
    pub why: String,
}

impl Asked {
    /// By the command line, or else by the environment.
    pub fn of(session: &Session) -> Option<Self> {
        let option = session.engine.map(|engine| (engine.to_string(), "--engine"));
        let variable = || Some((std::env::var(ENGINE_VARIABLE).ok()?, ENGINE_VARIABLE));
        option.or_else(variable).map(|(engine, by)| Self { engine, by })
    }
}

/// Picks one, as the library does.
pub fn pick(asked: Option<&Asked>, engines: Engines) -> Pick {
    let Some(Asked { engine, by }) = asked.filter(|asked| asked.engine != "auto") else {
        return best(engines);
    };
    let (engine, runs) = match engine.as_str() {
        "kernel" => (Engine::Kernel, engines.kernel),
        "userspace" => (Engine::Userspace, engines.userspace),
        other => {
            let why = format!("{by} asks for {other:?}; there are auto, kernel and userspace");
            return Pick { engine: None, why };
        }
    };
    if runs {
        return Pick { engine: Some(engine), why: format!("{by} asks for it") };
    }
    let why = format!("{by} asks for the {} engine, and it cannot run", engine.name());
    Pick { engine: None, why }
}

fn best(engines: Engines) -> Pick {
    let (engine, why) = match engines {
        Engines { kernel: true, .. } => (
            Some(Engine::Kernel),
            "the kernel module answers, and a kick wakes nobody but its backend",
        ),
        Engines { userspace: true, .. } => (Some(Engine::Userspace), "no kernel module answers"),
        _ => (None, "see what is missing above"),
    };
    Pick { engine, why: why.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOTH: Engines = Engines { userspace: true, kernel: true };
    const NONE: Engines = Engines { userspace: false, kernel: false };

    fn asked(engine: &str, engines: Engines) -> Pick {
        pick(Some(&Asked { engine: engine.to_owned(), by: "--engine" }), engines)
    }

    #[test]
    fn the_module_comes_first() {
        assert_eq!(pick(None, BOTH).engine, Some(Engine::Kernel));
        assert_eq!(asked("auto", BOTH), pick(None, BOTH));
        let userspace = Engines { kernel: false, ..BOTH };
        assert_eq!(pick(None, userspace).engine, Some(Engine::Userspace));
        assert_eq!(pick(None, NONE).engine, None);
    }

    #[test]
    fn what_is_asked_for_is_picked_or_nothing() {
        assert_eq!(asked("userspace", BOTH).engine, Some(Engine::Userspace));
        assert_eq!(asked("userspace", BOTH).why, "--engine asks for it");
        let refused = asked("kernel", Engines { kernel: false, ..BOTH });
        assert_eq!(refused.engine, None);
        assert_eq!(refused.why, "--engine asks for the kernel engine, and it cannot run");
        assert!(asked("steam", BOTH).why.contains("there are auto"));
    }
}
