//! Another process goes on with the session of one that was killed, over its socket.

use super::peer::{Answer, peer, raw};
use super::recorder::{Recorder, serve};
use super::{ONE_QUEUE, PATIENT, QUEUE, guest_memory, new_eventfd, region};
use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use vhost::vhost_user::message::VhostUserProtocolFeatures as Protocol;
use xen_eventfd_vhost::user::Frontend;
use xen_eventfd_vhost::user::wire::{NEED_REPLY, Payload, Request, VERSION, VringState};
use xen_eventfd_vhost::{Backend, Error, Lack, Needs};

const ALL: Protocol = Protocol::MQ.union(Protocol::REPLY_ACK).union(Protocol::CONFIG);

#[test]
fn the_session_is_the_same_and_its_queues_stand_still() {
    let recorder = Recorder::new(ALL);
    let (socket, served) = serve(&recorder);
    let kept = socket.try_clone().unwrap();
    let mut killed = Frontend::over(socket, ONE_QUEUE, PATIENT).unwrap();
    assert_eq!(killed.left_at(0), Ok(None));
    let (memory, kick, call) = (guest_memory(), new_eventfd(), new_eventfd());
    killed.accept(1 << 32).unwrap();
    killed.set_memory(&[region(memory.as_fd())]).unwrap();
    killed.start_queue(0, &QUEUE, kick.as_fd(), call.as_fd()).unwrap();
    drop(killed);
    recorder.lock().unwrap().asked.clear();

    let mut frontend = Frontend::go_on(kept, ONE_QUEUE, 1 << 32, PATIENT).unwrap();
    let asked = core::mem::take(&mut recorder.lock().unwrap().asked);
    assert!(!asked.contains(&"owner".to_owned()), "a new session: {asked:?}");
    // One that is kicked as it stops is not looked at, as it is off, and what has begun to look has time to end.
    let stopped = ["features 0x140000000", "0 off", "base of 0?"];
    assert_eq!(asked[asked.len() - 3..], stopped, "{asked:?}");
    let at = core::mem::take(&mut recorder.lock().unwrap().at);
    assert!(at[at.len() - 1] - at[at.len() - 2] >= Duration::from_millis(20), "stopped at once");
    assert_eq!(frontend.left_at(0), Ok(Some(9)));
    frontend.accept(1 << 32).unwrap();
    frontend.set_memory(&[region(memory.as_fd())]).unwrap();
    frontend.start_queue(0, &QUEUE, kick.as_fd(), call.as_fd()).unwrap();
    drop(frontend);
    served.join().unwrap();
}

/// A reply that the killed process has not read is not taken for another one's.
#[test]
fn a_reply_that_is_left_is_skipped() {
    let asks = [
        (Request::GetFeatures, VERSION, vec![]),
        (Request::GetProtocolFeatures, VERSION, vec![]),
        (Request::GetQueueNum, VERSION, vec![]),
        (Request::GetVringBase, VERSION, VringState { index: 1, num: 0 }.emit()),
        (Request::SetFeatures, VERSION | NEED_REPLY, 0_u64.emit()),
        (Request::SetVringEnable, VERSION | NEED_REPLY, VringState { index: 0, num: 1 }.emit()),
    ];
    for (request, flags, payload) in asks {
        let (mut socket, served) = peer(|_| Answer::Truth);
        socket.write_all(&raw(request as u32, flags, &payload)).unwrap();
        let mut frontend = Frontend::go_on(socket, ONE_QUEUE, 0, PATIENT).unwrap();
        assert_eq!((frontend.queues(), frontend.left_at(0)), (2, Ok(Some(0))), "{request}");
        frontend.check().unwrap();
        drop(frontend);
        served.join().unwrap();
    }
}

/// A disk's backend closes it once it has completed what it had begun.
#[test]
fn the_end_of_a_session_is_waited_for() {
    let asked = [Request::GetFeatures, Request::GetQueueNum];
    let recorded = Arc::new(Mutex::new(Vec::new()));
    let record = Arc::clone(&recorded);
    let (mut socket, served) = peer(move |request| {
        // Its replies have a reader still.
        std::thread::sleep(Duration::from_millis(20));
        record.lock().unwrap().push(request);
        Answer::Truth
    });
    // What the killed process requested last.
    for request in asked {
        socket.write_all(&raw(request as u32, VERSION, &[])).unwrap();
    }
    Frontend::end(socket, PATIENT).unwrap();
    assert_eq!(*recorded.lock().unwrap(), asked);
    served.join().unwrap();
}

#[test]
fn a_session_that_has_ended_already_is_no_error_and_one_that_does_not_end_is() {
    let (socket, backend) = UnixStream::pair().unwrap();
    drop(backend);
    Frontend::end(socket, PATIENT).unwrap();
    let limit = Duration::from_millis(50);
    let (socket, _open) = UnixStream::pair().unwrap();
    assert_eq!(Frontend::end(socket, limit), Err(Error::Open { limit }));
    // One that sends for ever.
    let (socket, mut sends) = UnixStream::pair().unwrap();
    let sending = std::thread::spawn(move || while sends.write_all(&[0; 64]).is_ok() {});
    assert_eq!(Frontend::end(socket, limit), Err(Error::Open { limit }));
    sending.join().unwrap();
}

#[test]
fn a_backend_that_has_ended_meanwhile_or_never_answers_is_an_error() {
    let (socket, served) =
        peer(|_| Answer::Act(|socket| drop(socket.shutdown(std::net::Shutdown::Both))));
    let ended = Frontend::go_on(socket, ONE_QUEUE, 0, PATIENT).unwrap_err();
    assert!(matches!(ended, Error::Ended { .. }), "{ended}");
    served.join().unwrap();
    let (socket, _) = peer(|_| Answer::Act(|_| ()));
    let silent = Frontend::go_on(socket, ONE_QUEUE, 0, Duration::from_millis(50)).unwrap_err();
    assert!(matches!(silent, Error::Silent { .. }), "{silent}");
    // It is no other backend than before, but it is not believed that it is the same.
    let (socket, _) = peer(|_| Answer::Truth);
    let many = Frontend::go_on(socket, Needs { queues: 3, fixed: true }, 0, PATIENT).unwrap_err();
    assert_eq!(many, Error::Lacks { lack: Lack::Queues { needed: 3, found: Some(2) } });
}
