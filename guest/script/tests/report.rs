//! Every report that is written can be parsed.

use xen_eventfd_guest_script::{NotAReport, Place, Report, Stamps, Ticks, Width};

#[test]
fn every_report_survives_its_line() {
    let ticks = Ticks { min: 1, median: 2, p99: 3, max: 4, n: 5 };
    let stamps = Stamps::of(&[16, 0xffff_ffff_ffff]).unwrap();
    let place = Place::Mmio(0xfe00_0050);
    for (report, line) in [
        (
            Report::Read { vcpu: 0, place, width: Width::Four, value: 0xffff_ffff },
            "v0 read mmio:0xfe000050 4 = 0xffffffff",
        ),
        (
            Report::Read { vcpu: 3, place: Place::Pio(0xcf8), width: Width::One, value: 0 },
            "v3 read pio:0xcf8 1 = 0x0",
        ),
        (
            Report::Abort { vcpu: 1, place: Place::Mmio(0xfe00_0050), width: Width::Four },
            "v1 abort mmio:0xfe000050 4",
        ),
        (Report::Port { vcpu: 1, name: "call", port: 5 }, "v1 port call = 5"),
        (Report::Vector { vcpu: 0, name: "call", vector: 0x41 }, "v0 vector call = 0x41"),
        (Report::Rounds { vcpu: 0, name: "stop", rounds: 1234 }, "v0 rounds stop = 1234"),
        (Report::Ticks { vcpu: 0, ticks }, "v0 ticks min = 1 median = 2 p99 = 3 max = 4 n = 5"),
        (Report::Clock { vcpu: 0, ticks: 16, time: 20 }, "v0 clock 0x10 = 20"),
        (Report::Stamps { vcpu: 1, stamps }, "v1 stamps 0x10 0xffffffffffff"),
        (Report::Say { vcpu: 0, words: "done = 3" }, "v0 say done = 3"),
        (Report::Done { vcpu: 7 }, "v7 done"),
        (Report::GuestDone, "guest done"),
        (Report::Error { what: "v0 `x`: no" }, "guest error: v0 `x`: no"),
        (
            Report::Fault { vector: 14, rip: 0x10_0000, error: 2, address: 0xdead },
            "guest fault: vector 14 rip 0x100000 error 0x2 address 0xdead",
        ),
    ] {
        assert_eq!(report.to_string(), line);
        assert_eq!(Report::parse(line), Ok(report));
    }
}

#[test]
fn line_ends_and_xens_prefix_are_ignored() {
    assert_eq!(Report::parse("v0 done\r\n"), Ok(Report::Done { vcpu: 0 }));
    assert_eq!(Report::parse("(XEN) [    9.1] (d12) guest done"), Ok(Report::GuestDone));
    assert_eq!(
        Report::parse("v0 say see (d1) below"),
        Ok(Report::Say { vcpu: 0, words: "see (d1) below" })
    );
}

#[test]
fn other_lines_are_not_reports() {
    for line in [
        "",
        "v0",
        "v done",
        "v0 done 1",
        "v0 read mmio:0x0 4 0x1",
        "v0 port a = 4294967296",
        "v0 ticks min = 1",
        "v0 stamps",
        "v0 stamps 1 x",
        "v0 stamps 1 2 3 4 5 6 7 8 9",
        "guest",
        "guest fault: vector 300 rip 0 error 0 address 0",
        "(XEN) d1 is dead",
    ] {
        assert_eq!(Report::parse(line), Err(NotAReport), "{line}");
    }
}
