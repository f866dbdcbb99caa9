//! Whatever host call fails, and whichever process dies at it: an error is a value, nothing is left, and the
//! vCPUs of a living guest go on.

use crate::bench::{AT, count, event};
use crate::steps::{Act, End, Played, at_each_call};
use rustix::io::Errno;
use xen_eventfd::{Error, Reaped};
use xen_eventfd_model::{CallKind, Stopped, Verdict};

fn join(end: End, name: &str) {
    for vcpu in end.vcpus {
        assert_eq!(vcpu.join(), Ok(()), "{name}");
    }
}

fn a_call_fails(act: Act) {
    at_each_call(
        act,
        |_, _| Verdict::Fail(Errno::IO),
        |played| {
            let name = played.name();
            let Played { site, result, scene, .. } = played;
            if let Err(error) = &result {
                assert!(
                    matches!(error, Error::Host(_) | Error::EngineStopped(_)),
                    "{name}: {error:?}"
                );
                assert_eq!(error.errno(), Errno::IO, "{name}");
            }
            let end = scene.end();
            let left = end.bench.backend.leftovers();
            let given_back = matches!(
                site.kind,
                CallKind::DestroyServer | CallKind::SetServerState | CallKind::Notify
            );
            // What Xen did not take back is in the record; the next engine sees to it.
            assert!(left.servers.is_empty() || given_back, "{name}: {left:?}");
            assert!(left.ports.is_empty() || site.kind == CallKind::Unbind, "{name}: {left:?}");
            assert_eq!((left.pages, left.sets, left.watches), (0, 0, 0), "{name}");
            end.bench.assert_usable();
            join(end, &name);
        },
    );
}

#[test]
fn any_call_fails_while_the_engine_starts() {
    a_call_fails(Act::Open);
}

#[test]
fn any_call_fails_while_a_guest_is_taken() {
    a_call_fails(Act::Attach);
}

#[test]
fn any_call_fails_while_a_doorbell_is_registered() {
    a_call_fails(Act::Register);
}

#[test]
fn any_call_fails_while_a_doorbell_is_unregistered() {
    a_call_fails(Act::Unregister);
}

#[test]
fn any_call_fails_while_an_interrupt_is_registered() {
    a_call_fails(Act::Irqfd);
    a_call_fails(Act::Channel);
}

#[test]
fn any_call_fails_while_a_guest_is_let_go_of() {
    a_call_fails(Act::Close);
}

#[test]
fn any_call_fails_while_a_kick_is_served() {
    a_call_fails(Act::Serve);
}

/// SIGKILL, then a reaper, then another engine.
fn killed(act: Act, verdict: Verdict) {
    at_each_call(
        act,
        move |_, _| verdict,
        |played| {
            let name = format!("{}, {verdict:?}", played.name());
            let Played { site, scene, records, .. } = played;
            let dom = scene.bench.dom;
            let reaped = scene.bench.reap(records.path());
            assert!(!matches!(reaped, Some(Err(_) | Ok(Reaped::InUse))), "{name}: {reaped:?}");
            // One that Xen has made and whose id no process has, or that is about to be given back: it was
            // never enabled, so no vCPU waits for it; and no record names what may be another's.
            let unknown = match (site.kind, verdict) {
                (CallKind::CreateServer, Verdict::KillAfter) => 1,
                (CallKind::DestroyServer, Verdict::KillBefore) if act == Act::Attach => 1,
                _ => 0,
            };
            let left = scene.bench.backend.leftovers().servers;
            assert!(left.len() <= unknown, "{name}: {}", scene.bench.model.describe());
            let servers = scene.bench.model.servers(dom);
            let ours = |server: &xen_eventfd_model::ServerInfo| left.contains(&(dom, server.id));
            assert!(!servers.iter().any(|server| ours(server) && server.enabled), "{name}");
            assert_eq!(servers.len(), left.len() + 1, "{name}: the VMM's server is untouched");
            assert!(scene.bench.model.host_crashed().is_none());
            let end = scene.end();
            let bench = &end.bench;
            for vcpu in end.vcpus {
                assert_eq!(vcpu.join(), Ok(()), "{name}");
            }
            let heir = bench.model.client("heir");
            let xen = bench.xen_of(&heir, records.path()).unwrap();
            let guest = xen.guest(dom).unwrap();
            let again: Vec<_> = (0_u32..2)
                .map(|n| guest.register_ioevent(&end.queues[n as usize], &AT, n).unwrap())
                .collect();
            let kicked = match act {
                // On the model the dead caller goes on to answer, which he would not have signalled.
                Act::Close if site.kind == CallKind::Signal => &[],
                Act::Serve => &end.queues[..1],
                Act::Close => &end.queues[..],
                _ => &[],
            };
            for queue in kicked {
                assert!(count(queue) > 0, "{name}: a kick is lost");
            }
            bench.kick(1, 1);
            assert!(count(&end.queues[1]) > 0, "{name}");
            drop(again);
            guest.close().unwrap();
            assert_eq!(heir.leftovers().servers, [], "{name}");
        },
    );
}

#[test]
fn killed_while_a_guest_is_taken() {
    killed(Act::Attach, Verdict::KillBefore);
    killed(Act::Attach, Verdict::KillAfter);
}

#[test]
fn killed_while_a_doorbell_is_registered() {
    killed(Act::Register, Verdict::KillBefore);
    killed(Act::Register, Verdict::KillAfter);
}

#[test]
fn killed_while_a_doorbell_is_unregistered() {
    killed(Act::Unregister, Verdict::KillBefore);
    killed(Act::Unregister, Verdict::KillAfter);
}

#[test]
fn killed_while_an_interrupt_is_registered() {
    killed(Act::Irqfd, Verdict::KillBefore);
    killed(Act::Channel, Verdict::KillAfter);
}

#[test]
fn killed_while_a_guest_is_let_go_of() {
    killed(Act::Close, Verdict::KillBefore);
    killed(Act::Close, Verdict::KillAfter);
}

#[test]
fn killed_while_a_kick_is_served() {
    killed(Act::Serve, Verdict::KillBefore);
    killed(Act::Serve, Verdict::KillAfter);
}

/// The guest is destroyed at each call.
#[test]
fn the_guest_dies_at_any_call() {
    let dies = |model: &xen_eventfd_model::Model, dom| {
        model.destroy(dom);
        Verdict::Proceed
    };
    for act in Act::ALL {
        at_each_call(act, dies, |played| {
            let name = played.name();
            let Played { result, scene, .. } = played;
            if let Err(error) = &result {
                let said = matches!(error, Error::GuestDied(_) | Error::UnknownDomain(_));
                assert!(said, "{name}: {error:?}");
            }
            if let Some(guest) = scene.guest.as_ref().filter(|_| act != Act::Close) {
                crate::bench::until_readable(guest.gone(), &name);
                assert!(!guest.is_served());
            }
            assert!(scene.bench.model.zombies().is_empty() || act == Act::Close, "{name}");
            let end = scene.end();
            for vcpu in end.vcpus {
                assert!(matches!(vcpu.join(), Ok(()) | Err(Stopped::Destroyed)), "{name}");
            }
            assert!(end.bench.backend.leftovers().is_empty(), "{name}");
            end.bench.assert_let_go();
        });
    }
}

/// An eventfd that is registered at two places takes no harm from either's end.
#[test]
fn an_error_leaves_what_was_registered_before() {
    let bench = crate::bench::Bench::new();
    let guest = bench.attach();
    let queue = event();
    let _one = guest.register_ioevent(&queue, &AT, 1_u32).unwrap();
    bench.backend.fail(CallKind::MapRange, 1, Errno::NOMEM);
    let wide = guest.register_ioevent(&queue, &AT, xen_eventfd::NoDatamatch(8));
    assert_eq!(wide.unwrap_err().errno(), Errno::NOMEM);
    let ranges = &bench.model.servers(bench.dom)[0].ranges;
    assert_eq!(ranges.iter().map(|b| b.last() - b.first()).collect::<Vec<_>>(), [3]);
    bench.kick(0, 1);
    assert_eq!(count(&queue), 1);
    assert!(guest.register_ioevent(&queue, &AT, xen_eventfd::NoDatamatch(8)).is_ok());
}
