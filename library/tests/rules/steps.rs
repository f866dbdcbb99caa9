//! A scene, played once for each host call that it makes, with that call spoilt.

use crate::bench::{AT, Bench, Frozen, balloon, event, inherit, is_engine, kick, pause};
use std::fmt;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex, PoisonError};
use tempfile::TempDir;
use xen_eventfd::{ChannelFd, DomId, Guest, IoEvent, Irq, IrqFd, Port, Result, Xen};
use xen_eventfd_model::{CallSite, Client, Model, Running, Stopped, Verdict};

/// A thing to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Act {
    Open,
    Attach,
    Register,
    Unregister,
    Irqfd,
    Channel,
    /// With a kick of each vCPU unanswered.
    Close,
    /// A kick, by the engine's own thread.
    Serve,
}

/// What it is done with.
pub(crate) struct Scene {
    /// First, as an engine that is held up cannot end.
    _thaw: Thaw,
    pub(crate) bench: Bench,
    pub(crate) queues: [OwnedFd; 2],
    pub(crate) port: Port,
    pub(crate) xen: Option<Xen>,
    pub(crate) guest: Option<Guest>,
    pub(crate) registered: Vec<IoEvent>,
    pub(crate) irqfd: Option<IrqFd>,
    pub(crate) channel: Option<ChannelFd>,
    /// The kicks of the vCPUs, under way.
    pub(crate) kicks: Vec<Running<core::result::Result<(), Stopped>>>,
    pub(crate) kill_point: Arc<KillPoint>,
}

impl Act {
    pub(crate) const ALL: [Self; 8] = [
        Self::Open,
        Self::Attach,
        Self::Register,
        Self::Unregister,
        Self::Irqfd,
        Self::Channel,
        Self::Close,
        Self::Serve,
    ];

    /// Everything before it.
    pub(crate) fn scene(self) -> Scene {
        let bench = Bench::beside_a_vmm();
        let port = bench.vcpu(0).alloc_unbound().unwrap();
        let kill_point = Arc::new(KillPoint::default());
        kill_point.rule(&bench.backend);
        let mut scene = Scene {
            _thaw: Thaw(Arc::clone(&kill_point)),
            bench,
            queues: [event(), event()],
            port,
            xen: None,
            guest: None,
            registered: Vec::new(),
            irqfd: None,
            channel: None,
            kicks: Vec::new(),
            kill_point,
        };
        if self != Self::Open {
            scene.xen = Some(scene.bench.xen());
        }
        if !matches!(self, Self::Open | Self::Attach) {
            scene.attach().unwrap();
        }
        if matches!(self, Self::Unregister | Self::Close | Self::Serve) {
            scene.register(0).unwrap();
            scene.register(1).unwrap();
        }
        if self == Self::Serve {
            scene.freeze();
        }
        if self == Self::Close {
            scene.irqfd().unwrap();
            scene.channel().unwrap();
            scene.freeze();
            scene.kick(0);
            scene.kick(1);
        }
        scene
    }

    /// Does it. What fails is a value.
    pub(crate) fn play(self, scene: &mut Scene) -> Result<()> {
        match self {
            Self::Open => scene.xen = Some(scene.bench.try_xen()?),
            Self::Attach => scene.attach()?,
            Self::Register => scene.register(0)?,
            Self::Unregister => scene.registered.drain(..).try_for_each(IoEvent::end)?,
            Self::Irqfd => scene.irqfd()?,
            Self::Channel => scene.channel()?,
            Self::Close => scene.guest.as_ref().unwrap().close()?,
            Self::Serve => {
                // It is there before the first call of its service.
                scene.kick(0);
                let (kick, kill_point) = (&scene.kicks[0], &scene.kill_point);
                kill_point.frozen.thaw();
                crate::bench::until("the kick is served", || {
                    kick.is_finished() || kill_point.hit()
                });
            }
        }
        Ok(())
    }

    fn who(self) -> Who {
        if self == Self::Serve { Who::Engine } else { Who::Caller }
    }
}

impl Scene {
    fn attach(&mut self) -> Result<()> {
        self.guest = Some(self.xen.as_ref().unwrap().guest(self.bench.dom)?);
        Ok(())
    }

    fn register(&mut self, value: u32) -> Result<()> {
        let queue = &self.queues[value as usize];
        self.registered.push(self.guest.as_ref().unwrap().register_ioevent(queue, &AT, value)?);
        Ok(())
    }

    fn irqfd(&mut self) -> Result<()> {
        let irq = Irq::EventChannel(self.port);
        self.irqfd = Some(self.guest.as_ref().unwrap().register_irqfd(&event(), irq)?);
        Ok(())
    }

    fn channel(&mut self) -> Result<()> {
        let guest = self.guest.as_ref().unwrap();
        self.channel = Some(guest.register_channel(&event(), self.port)?);
        Ok(())
    }

    fn kick(&mut self, value: u32) {
        let kicking = self.bench.vcpu(value).run(move |vcpu| kick(vcpu, u64::from(value)));
        self.bench.vcpu(value).until_parked();
        self.kicks.push(kicking);
    }

    /// From here on kicks wait.
    fn freeze(&self) {
        self.kill_point.frozen.freeze(&self.bench, self.guest.as_ref().unwrap());
    }

    /// Drops all that the process has. Returns the machine, the queues, and what the vCPUs do.
    pub(crate) fn end(self) -> End {
        let Self {
            bench,
            queues,
            registered,
            irqfd,
            channel,
            guest,
            xen,
            mut kicks,
            kill_point,
            ..
        } = self;
        kill_point.end();
        kicks.extend(kill_point.balloon.lock().unwrap_or_else(PoisonError::into_inner).take());
        drop((registered, irqfd, channel, guest, xen));
        bench.backend.on_call(Box::new(|_| Verdict::Proceed));
        End { bench, queues, vcpus: kicks }
    }
}

struct Thaw(Arc<KillPoint>);

impl Drop for Thaw {
    fn drop(&mut self) {
        self.0.end();
    }
}

/// What is left when the process is through.
pub(crate) struct End {
    pub(crate) bench: Bench,
    pub(crate) queues: [OwnedFd; 2],
    pub(crate) vcpus: Vec<Running<core::result::Result<(), Stopped>>>,
}

/// Whose calls are counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Who {
    #[default]
    Caller,
    Engine,
}

type Spoil = Box<dyn Fn(&CallSite) -> Verdict + Send + Sync>;

/// What is going to happen at one of the calls.
#[derive(Default)]
pub(crate) struct KillPoint {
    plan: Mutex<Option<(Who, u64, Spoil)>>,
    calls: AtomicU64,
    site: Mutex<Option<CallSite>>,
    frozen: Frozen,
    /// The process is over: its threads may end.
    over: AtomicBool,
    /// What a vCPU was made to do at the moment of the call.
    balloon: Mutex<Option<Running<core::result::Result<(), Stopped>>>>,
}

impl fmt::Debug for KillPoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KillPoint").field("site", &self.site).finish_non_exhaustive()
    }
}

impl KillPoint {
    fn rule(self: &Arc<Self>, client: &Arc<Client>) {
        let (kill_point, twin) = (Arc::clone(self), Arc::downgrade(client));
        client.on_call(Box::new(move |site| {
            kill_point.frozen.hold(site, || false);
            let verdict = kill_point.decide(site);
            // The dead go no further: this thread may be about to answer a vCPU.
            if let (Verdict::KillBefore, true, Some(client)) =
                (verdict, is_engine(), twin.upgrade())
            {
                client.kill();
                while !kill_point.over.load(SeqCst) {
                    pause();
                }
            }
            verdict
        }));
    }

    fn decide(&self, site: &CallSite) -> Verdict {
        let engine = is_engine();
        let plan = self.plan.lock().unwrap_or_else(PoisonError::into_inner);
        let Some((who, at, spoil)) = &*plan else { return Verdict::Proceed };
        if (*who == Who::Engine) != engine || self.calls.fetch_add(1, SeqCst) + 1 != *at {
            return Verdict::Proceed;
        }
        let verdict = spoil(site);
        *self.site.lock().unwrap() = Some(site.clone());
        verdict
    }

    fn hit(&self) -> bool {
        self.site.lock().unwrap().is_some()
    }

    fn end(&self) {
        self.over.store(true, SeqCst);
        self.frozen.thaw();
    }
}

/// One performance: the call that was spoilt, how the act ended, and all that it had.
pub(crate) struct Played {
    pub(crate) act: Act,
    pub(crate) at: u64,
    pub(crate) site: CallSite,
    pub(crate) result: Result<()>,
    pub(crate) scene: Scene,
    /// The records at the moment of the call.
    pub(crate) records: TempDir,
}

impl Played {
    /// To be found again from a failed assertion.
    pub(crate) fn name(&self) -> String {
        format!("{:?}, call {}: {:?}", self.act, self.at, self.site.call)
    }
}

/// Plays an act once for each call that it makes; `spoil` says what becomes of that call.
///
/// At that moment the other vCPU is given something to wait for: Xen's message to all servers.
pub(crate) fn at_each_call(
    act: Act,
    spoil: impl Fn(&Model, DomId) -> Verdict + Send + Sync + Copy + 'static,
    then: impl Fn(Played),
) {
    for at in 1.. {
        let mut scene = act.scene();
        let records: Arc<Mutex<Option<TempDir>>> = Arc::default();
        let hook: Spoil = Box::new({
            let (records, run_dir) =
                (Arc::clone(&records), PathBuf::from(scene.bench.run_dir.path()));
            let (vcpu, kill_point) = (scene.bench.vcpu(1), Arc::downgrade(&scene.kill_point));
            let (model, dom) = (scene.bench.model.clone(), scene.bench.dom);
            move |_| {
                *records.lock().unwrap() = Some(inherit(&run_dir));
                if let Some(kill_point) = kill_point.upgrade().filter(|_| act != Act::Close) {
                    *kill_point.balloon.lock().unwrap() = Some(balloon(&vcpu));
                }
                spoil(&model, dom)
            }
        });
        *scene.kill_point.plan.lock().unwrap() = Some((act.who(), at, hook));
        let result = act.play(&mut scene);
        *scene.kill_point.plan.lock().unwrap() = None;
        let Some(site) = scene.kill_point.site.lock().unwrap().take() else {
            assert!(result.is_ok(), "{act:?}: {result:?}");
            assert!(at > 1, "{act:?} makes no calls");
            assert!(scene.end().vcpus.into_iter().all(|vcpu| vcpu.join().is_ok()));
            return;
        };
        let records = records.lock().unwrap().take().unwrap();
        then(Played { act, at, site, result, scene, records });
    }
}
