//! What the commands print of a guest of real Xen is as it is documented.

use super::daemon::Follows;
use super::list::{Answer, Report};
use super::serve::{Ended, Served};
use super::{Devices, show, top};
use crate::confinement::Confinement;
use crate::daemon::{Event, Happened};
use crate::status::{DeviceStatus, Status};
use serde::Serialize;
use std::time::Instant;
use xen_eventfd_cli::failure::Exit;
use xen_eventfd_cli::session::Session;
use xen_eventfd_docs::schema::Schema;

/// A guest with two devices, of which one is not well.
pub(super) fn status() -> Status {
    let device = |function: &str, failure: Option<&str>| DeviceStatus {
        function: function.to_owned(),
        device: "blk,socket=/run/disk.sock".to_owned(),
        running: vec![0, 1],
        features: format!("{:#x}", u64::MAX),
        kicks: 100,
        interrupts: 90,
        failure: failure.map(str::to_owned),
    };
    Status {
        domid: 7,
        name: Some("web".to_owned()),
        pid: 412,
        engine: "kernel".to_owned(),
        register_accesses: 155,
        kicks: 4_000,
        confinement: Some(Confinement { files: true, sockets: false, system_calls: true }),
        devices: vec![
            device("0000:00:01.0", None),
            device("0000:00:02.0", Some("the backend has closed the connection")),
        ],
    }
}

#[test]
fn each_object_is_one_of_the_schema() {
    let status = status();
    check("virtio.served", &Served { status: &status });
    check("virtio.show", &status);
    let unconfined = Status { confinement: None, ..status.clone() };
    check("virtio.show", &unconfined);
    check("virtio.list", &Report { guests: vec![status.clone()] });
    let begin = Instant::now();
    let answer = Answer { domid: 7, at: begin, status: Some(status.clone()) };
    check("virtio.top", &top::Counted::since(begin).report(vec![answer], begin));
    let ended = Ended { domid: 7, guest_gone: true, register_accesses: 155, kicks: 4_000 };
    check("virtio.ended", &ended);
    check("virtio.follows", &Follows { pid: 412, config: "/etc/xen/virtio.toml".to_owned() });
    for (event, why) in
        [(Happened::Held, None), (Happened::BackendEnded, Some("killed".to_owned()))]
    {
        check("virtio.event", &Event { domid: 7, name: "web".to_owned(), event, why });
    }
}

#[test]
fn a_descriptor_serves_one_pair_of_queues() {
    for devices in [&["net,fd=1000:1001:1000"][..], &["net,fd=1000", "net,tap=tap0", "net,fd=1000"]]
    {
        let devices = devices.iter().map(|device| device.parse().unwrap()).collect();
        let failure = Devices { devices, takeover_time: 0 }.check().unwrap_err();
        assert_eq!(failure.exit, Exit::Usage);
        assert!(failure.sentence.contains("descriptor 1000 stands twice"), "{}", failure.sentence);
    }
}

fn check(kind: &str, object: &impl Serialize) {
    let session = Session { json: true, ..Session::default() };
    let line = session.line(kind, object, String::new).unwrap();
    assert_eq!(Schema::default().lines(str::from_utf8(&line).unwrap()), [kind]);
}

#[test]
fn a_person_reads_which_device_is_not_well() {
    let shown = show::prose(&status());
    for part in ["web (domain 7)", "process 412", "00:01.0", "in use", "closed the connection"] {
        assert!(shown.contains(part), "{part} is not in {shown}");
    }
    let list = Report { guests: vec![status()] }.prose();
    assert!(list.contains("web") && list.contains("412"), "{list}");
    assert!(Report { guests: vec![] }.prose().contains("No guest"));
}
