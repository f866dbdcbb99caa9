//! Which scripts are refused, and which statement the error names.

use xen_eventfd_guest_script::{Line, Listener, Program, Reason, Source};

fn refused(text: &str) -> (usize, String, Reason) {
    let error = Program::parse(text).expect_err(text);
    (error.vcpu, error.statement.to_owned(), error.reason)
}

#[test]
fn every_statement_is_parsed() {
    let text = "listen evtchn bell; listen msi 0x41 call; listen isa 5 isa; listen intx 3 1 pci | \
        write mmio:0xfe000050 4 1; write pio:0x3f8 1 255; write mmio:0xfffffff8 8 0xffffffffffffffff; \
        read pio:0xffff 1; peek pio:0xffff 1; rep mmio:0xfe000000 4 7 1024; rep pio:0x10 2 0xffff 1; \
        repeat 3; until bell; write mmio:0xfe000050 4 i+0x10; end; end; \
        pause 10; wait bell; wait call 5; send bell 2; balloon 3; \
        time write mmio:0xfe000050 4 0 4096; say all is  well; soft-reset; poweroff; crash;";
    let program = Program::parse(text).unwrap();
    assert_eq!(program.vcpus(), 2);
    assert_eq!(
        program.listeners(),
        [
            Listener { name: "bell", source: Source::Evtchn, vcpu: 0 },
            Listener { name: "call", source: Source::Msi(0x41), vcpu: 0 },
            Listener { name: "isa", source: Source::Line(Line::Isa(5)), vcpu: 0 },
            Listener {
                name: "pci",
                source: Source::Line(Line::Intx { device: 3, pin: 1 }),
                vcpu: 0
            },
        ]
    );
}

#[test]
fn a_pci_line_is_taken_by_the_vcpu_that_listens() {
    assert_eq!(
        refused("listen intx 3 1 a; wait a | wait a"),
        (1, "wait a".into(), Reason::Elsewhere)
    );
    assert!(Program::parse("listen isa 5 a | wait a").is_ok());
}

#[test]
fn only_lines_need_an_hvm_guest() {
    assert!(!Program::parse("listen evtchn a; listen msi 0x41 b").unwrap().needs_lines());
    assert!(Program::parse("say hello | listen evtchn a; listen isa 5 b").unwrap().needs_lines());
}

#[test]
fn an_spi_is_edge_or_level_triggered_and_no_line_of_a_pc() {
    let program = Program::parse("listen spi 33 edge a; listen spi 255 level b").unwrap();
    assert!(!program.needs_lines());
    let lines = [Line::Spi { number: 33, level: false }, Line::Spi { number: 255, level: true }];
    assert_eq!(lines.map(Line::vector), [33, 255]);
    assert_eq!(lines.map(Line::is_level), [false, true]);
    for (listener, line) in program.listeners().iter().zip(lines) {
        assert_eq!(listener.source, Source::Line(line));
    }
    assert!(Program::parse("listen spi 33 edge a | wait a").is_ok());
    assert_eq!(refused("listen spi 33 level a; wait a | wait a").2, Reason::Elsewhere);
}

#[test]
fn only_a_guest_that_asks_for_it_needs_a_soft_reset() {
    assert!(!Program::parse("say soft-reset; poweroff | crash").unwrap().needs_soft_reset());
    assert!(Program::parse("poweroff | say hello; soft-reset").unwrap().needs_soft_reset());
}

#[test]
fn an_empty_script_is_a_script_for_one_vcpu() {
    assert_eq!(Program::parse("").unwrap().vcpus(), 1);
    assert_eq!(Program::parse(" ; ;|").unwrap().vcpus(), 2);
}

#[test]
fn the_error_names_the_statement() {
    let error = Program::parse("say hello | say hello ; wriite mmio:0 4 1").unwrap_err();
    assert_eq!(error.to_string(), "v1 `wriite mmio:0 4 1`: unknown statement");
}

#[test]
fn each_error_has_its_reason() {
    for (statement, reason) in [
        ("jump", Reason::Verb),
        ("listen irq call", Reason::Verb),
        ("time read mmio:0x0 4 1 1", Reason::Verb),
        ("write mmio:0xfe000050 4", Reason::Missing),
        ("read", Reason::Missing),
        ("meet all", Reason::Excess),
        ("read pio:0 1 1", Reason::Excess),
        ("pause lots", Reason::Number),
        ("pause -1", Reason::Number),
        ("pause +1", Reason::Number),
        ("pause 0x", Reason::Number),
        ("pause 18446744073709551616", Reason::Number),
        ("read mmio:0x0 3", Reason::Width),
        ("peek mmio:0x0 3", Reason::Width),
        ("read pio:0x10 8", Reason::Width),
        ("read port:0x10 1", Reason::Place),
        ("read 0x10 1", Reason::Place),
        ("read pio:0x10000 1", Reason::Place),
        ("read pio:0xffff 2", Reason::Place),
        ("read mmio:0x100000000 4", Reason::Place),
        ("read mmio:0xfffffffd 4", Reason::Place),
        ("rep mmio:0xfffff800 4 0 1024", Reason::Place),
        ("write mmio:0x0 1 0x100", Reason::Value),
        ("write mmio:0x0 1 i", Reason::Counter),
        ("write mmio:0x0 1 j", Reason::Number),
        ("listen evtchn i", Reason::Name),
        ("listen evtchn 5", Reason::Name),
        ("listen evtchn a.b", Reason::Name),
        ("wait unknown", Reason::Unknown),
        ("until unknown", Reason::Unknown),
        ("listen msi 0x1f call", Reason::Vector),
        ("listen msi 0xc0 call", Reason::Vector),
        ("listen isa 16 line", Reason::Line),
        ("listen intx 32 0 line", Reason::Line),
        ("listen intx 0 4 line", Reason::Line),
        ("listen intx 0 line", Reason::Number),
        ("listen spi 31 edge line", Reason::Line),
        ("listen spi 256 edge line", Reason::Line),
        ("listen spi 33 line", Reason::Verb),
        ("rep mmio:0x0 4 0 0", Reason::Rep),
        ("rep mmio:0x0 4 0 1025", Reason::Rep),
        ("rep mmio:0x0 8 0 0x2000000000000000", Reason::Rep),
        ("time write mmio:0x0 4 0 0", Reason::Samples),
        ("time write mmio:0x0 4 0 4097", Reason::Samples),
        ("stamp write mmio:0x0 4 0 2049", Reason::Samples),
        ("stamp read mmio:0x0 4 1", Reason::Verb),
        ("stamps 1", Reason::Excess),
        ("end", Reason::End),
        ("repeat 3", Reason::Open),
    ] {
        assert_eq!(refused(statement), (0, statement.to_owned(), reason));
    }
}

#[test]
fn a_name_is_listened_to_once() {
    assert_eq!(refused("listen evtchn a | listen evtchn a").2, Reason::Twice);
    assert_eq!(refused("listen msi 0x40 a; listen msi 64 b").2, Reason::Twice);
    // Two lines to one input.
    assert_eq!(refused("listen intx 0 1 a; listen intx 8 0 b").2, Reason::Twice);
}

#[test]
fn a_vcpu_listens_before_it_uses_a_name_and_others_may_use_it_earlier() {
    assert_eq!(refused("wait a; listen evtchn a").2, Reason::Unknown);
    assert!(Program::parse("wait a | listen evtchn a").is_ok());
}

#[test]
fn only_event_channels_can_be_notified() {
    assert_eq!(refused("listen msi 0x40 a; send a").2, Reason::Send);
}

#[test]
fn listen_is_refused_in_loops_and_meet_in_until() {
    assert_eq!(refused("repeat 2; listen evtchn a; end").2, Reason::Listen);
    assert_eq!(refused("listen evtchn a; until a; meet; end").2, Reason::Meet);
}

#[test]
fn sections_meet_equally_often() {
    assert!(Program::parse("repeat 6; meet; end | repeat 2; repeat 3; meet; end; end").is_ok());
    assert_eq!(refused("meet | meet; meet"), (1, String::new(), Reason::Meets));
}

#[test]
fn limits_are_errors() {
    let nested = "repeat 1;".repeat(5) + &"end;".repeat(5);
    assert_eq!(refused(&nested).2, Reason::Nesting);
    assert_eq!(refused(&"pause 1;".repeat(193)).2, Reason::Statements);
    assert_eq!(refused(&"|".repeat(8)).2, Reason::Vcpus);
    let names: String = (0..17).map(|n| format!("listen evtchn n{n};")).collect();
    assert_eq!(refused(&names).2, Reason::Listeners);
}
