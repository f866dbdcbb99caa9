//! The calls that the interpreter makes on a machine, in order.

use std::collections::VecDeque;

use xen_eventfd_guest_script::{
    Line, ListenerId, MAX_SAMPLES, Machine, Place, Program, Report, Ticks, Width,
};

/// Records the calls, and has the events that a test gives it.
struct Recorder {
    log: Vec<String>,
    /// For each poll, whether an event is pending; none once it is empty.
    events: VecDeque<bool>,
    clock: u64,
    samples: Box<[u64; MAX_SAMPLES]>,
    /// Stops after this many log lines.
    patience: usize,
}

/// Why the recorder stopped.
#[derive(Debug, PartialEq)]
enum Stop {
    Impatient,
    Poweroff,
    Crash,
}

impl Recorder {
    fn new() -> Self {
        let samples = vec![0; MAX_SAMPLES].try_into().unwrap();
        Self { log: vec![], events: VecDeque::new(), clock: 0, samples, patience: usize::MAX }
    }

    fn note(&mut self, line: String) -> Result<(), Stop> {
        if self.log.len() == self.patience {
            return Err(Stop::Impatient);
        }
        self.log.push(line);
        Ok(())
    }
}

impl Machine for Recorder {
    type Stop = Stop;

    fn write(&mut self, place: Place, width: Width, value: u64) -> Result<(), Stop> {
        // The n-th write takes n ticks.
        self.clock += self.log.len() as u64 + 1;
        self.note(format!("write {place} {width} {value:#x}"))
    }

    fn read(&mut self, place: Place, width: Width) -> Result<u64, Stop> {
        self.note(format!("read {place} {width}"))?;
        Ok(width.all_ones())
    }

    fn rep(&mut self, place: Place, width: Width, value: u64, count: u64) -> Result<(), Stop> {
        self.note(format!("rep {place} {width} {value:#x} {count}"))
    }

    fn pair(&mut self, place: Place, width: Width, value: u64) -> Result<(), Stop> {
        self.note(format!("pair {place} {width} {value:#x}"))
    }

    fn listen_evtchn(&mut self, listener: ListenerId) -> Result<u32, Stop> {
        self.note(format!("listen evtchn #{}", listener.index()))?;
        Ok(5)
    }

    fn listen_msi(&mut self, listener: ListenerId, vector: u8) -> Result<(), Stop> {
        self.note(format!("listen msi #{} {vector:#x}", listener.index()))
    }

    fn listen_line(&mut self, listener: ListenerId, line: Line) -> Result<(), Stop> {
        let how = if line.is_level() { "level" } else { "edge" };
        self.note(format!("listen line #{} input {} {how}", listener.index(), line.input()))
    }

    fn take_event(&mut self, listener: ListenerId) -> Result<(), Stop> {
        self.note(format!("take #{}", listener.index()))
    }

    fn poll_event(&mut self, _: ListenerId) -> Result<bool, Stop> {
        Ok(self.events.pop_front().unwrap_or(false))
    }

    fn send(&mut self, listener: ListenerId) -> Result<(), Stop> {
        self.note(format!("send #{}", listener.index()))
    }

    fn balloon(&mut self) -> Result<(), Stop> {
        self.note("balloon".to_owned())
    }

    fn meet(&mut self) -> Result<(), Stop> {
        self.note("meet".to_owned())
    }

    fn pause(&mut self, count: u64) -> Result<(), Stop> {
        self.note(format!("pause {count}"))
    }

    fn now(&mut self) -> u64 {
        self.clock
    }

    fn clock(&mut self) -> (u64, u64) {
        (self.clock, self.clock + 100)
    }

    fn samples(&mut self) -> &mut [u64; MAX_SAMPLES] {
        &mut self.samples
    }

    fn report(&mut self, report: Report<'_>) -> Result<(), Stop> {
        self.note(report.to_string())
    }

    fn soft_reset(&mut self) -> Result<(), Stop> {
        self.note("soft-reset".to_owned())
    }

    fn poweroff(&mut self) -> Stop {
        Stop::Poweroff
    }

    fn crash(&mut self) -> Stop {
        Stop::Crash
    }
}

fn run(text: &str, vcpu: usize) -> Vec<String> {
    let mut recorder = Recorder::new();
    Program::parse(text).unwrap().run(vcpu, &mut recorder).unwrap();
    recorder.log
}

#[test]
fn each_vcpu_runs_its_own_section() {
    let text = "say one | say two; say three";
    assert_eq!(run(text, 0), ["v0 say one", "v0 done"]);
    assert_eq!(run(text, 1), ["v1 say two", "v1 say three", "v1 done"]);
    assert_eq!(run(text, 2), ["v2 done"]);
}

#[test]
fn accesses_carry_place_width_and_value() {
    assert_eq!(
        run(
            "write mmio:0xfe000050 4 3; read pio:0x10 2; peek mmio:0x10 8; rep pio:0x10 1 7 9; \
             pair mmio:0xfe000050 8 5; pause 4; balloon 2",
            0
        ),
        [
            "write mmio:0xfe000050 4 0x3",
            "read pio:0x10 2",
            "v0 read pio:0x10 2 = 0xffff",
            "read mmio:0x10 8",
            "rep pio:0x10 1 0x7 9",
            "pair mmio:0xfe000050 8 0x5",
            "pause 4",
            "balloon",
            "balloon",
            "v0 done",
        ]
    );
}

#[test]
fn the_counter_is_the_innermost_loops() {
    let text =
        "repeat 2; write pio:1 1 i; repeat 2; write pio:2 1 i+0xff; end; write pio:3 1 i; end";
    assert_eq!(
        run(text, 0),
        [
            "write pio:0x1 1 0x0",
            "write pio:0x2 1 0xff",
            "write pio:0x2 1 0x0",
            "write pio:0x3 1 0x0",
            "write pio:0x1 1 0x1",
            "write pio:0x2 1 0xff",
            "write pio:0x2 1 0x0",
            "write pio:0x3 1 0x1",
            "v0 done",
        ]
    );
}

#[test]
fn a_loop_of_zero_rounds_is_skipped() {
    assert_eq!(
        run("repeat 0; repeat 5; say no; end; say no; end; say yes", 0),
        ["v0 say yes", "v0 done"]
    );
}

#[test]
fn until_counts_the_rounds_before_its_event() {
    let mut recorder = Recorder::new();
    recorder.events = [false, false, true, true].into();
    let text = "listen evtchn stop; until stop; write pio:1 1 i; end; until stop; crash; end";
    Program::parse(text).unwrap().run(0, &mut recorder).unwrap();
    assert_eq!(
        recorder.log,
        [
            "listen evtchn #0",
            "v0 port stop = 5",
            "write pio:0x1 1 0x0",
            "write pio:0x1 1 0x1",
            "v0 rounds stop = 2",
            "v0 rounds stop = 0",
            "v0 done",
        ]
    );
}

#[test]
fn listeners_are_shared_and_events_are_taken_one_by_one() {
    let text = "listen evtchn a; listen msi 0x41 b; meet | meet; wait b 2; send a 2; wait a";
    assert_eq!(
        run(text, 0),
        [
            "listen evtchn #0",
            "v0 port a = 5",
            "listen msi #1 0x41",
            "v0 vector b = 0x41",
            "meet",
            "v0 done"
        ]
    );
    assert_eq!(
        run(text, 1),
        ["meet", "take #1", "take #1", "send #0", "send #0", "take #0", "v1 done"]
    );
}

#[test]
fn a_line_is_reported_with_its_vector() {
    assert_eq!(
        run("listen isa 0 a; listen isa 15 b; listen intx 31 3 c", 0),
        [
            "listen line #0 input 2 edge",
            "v0 vector a = 0xc2",
            "listen line #1 input 15 edge",
            "v0 vector b = 0xcf",
            "listen line #2 input 18 level",
            "v0 vector c = 0xd2",
            "v0 done"
        ]
    );
}

#[test]
fn time_reports_the_distribution() {
    let log = run("time write mmio:0xfe000050 4 1 200", 0);
    let ticks = Ticks { min: 1, median: 100, p99: 198, max: 200, n: 200 };
    assert_eq!(Report::parse(&log[200]), Ok(Report::Ticks { vcpu: 0, ticks }));
}

#[test]
fn stamps_are_reported_in_the_order_in_which_they_were_recorded() {
    let log = run("stamp write pio:1 1 7 5; stamps", 0);
    assert_eq!(log[..5], ["write pio:0x1 1 0x7"; 5]);
    // The n-th write takes n ticks.
    assert_eq!(log[5..7], ["v0 clock 0xf = 115", "v0 stamps 0x0 0x1 0x1 0x3 0x3 0x6 0x6 0xa"]);
    assert_eq!(log[7..], ["v0 stamps 0xa 0xf", "v0 done"]);
    let waits = run("listen evtchn a; stamp wait a 2; stamps", 0);
    assert_eq!(waits[2..4], ["take #0", "take #0"]);
    assert_eq!(waits[4..], ["v0 clock 0x0 = 100", "v0 stamps 0x0 0x0", "v0 done"]);
    assert_eq!(run("stamps", 0), ["v0 clock 0x0 = 100", "v0 done"]);
}

#[test]
fn a_stop_ends_the_run_at_any_statement() {
    let mut recorder = Recorder::new();
    recorder.patience = 10;
    let endless = Program::parse("listen evtchn a; until a; write pio:1 1 1; end").unwrap();
    assert_eq!(endless.run(0, &mut recorder), Err(Stop::Impatient));
    assert_eq!(run("soft-reset; say again", 0), ["soft-reset", "v0 say again", "v0 done"]);
    let off = Program::parse("poweroff; say never").unwrap();
    assert_eq!(off.run(0, &mut Recorder::new()), Err(Stop::Poweroff));
    let crash = Program::parse("crash; say never").unwrap();
    assert_eq!(crash.run(0, &mut Recorder::new()), Err(Stop::Crash));
}
