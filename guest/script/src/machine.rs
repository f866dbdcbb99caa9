//! The machine that carries out a script.

use crate::{Line, ListenerId, MAX_SAMPLES, Place, Report, Width};

/// One vCPU of a guest, on real Xen or simulated.
///
/// The vCPUs of a guest are separate values of a machine, each run on a thread or processor of its
/// own; the state that they share (listeners, the barrier, the console) is behind them.
///
/// # Invariants
///
/// - An access is *one* access of exactly that width: a doorbell is matched by width.
/// - A waiting vCPU (`take_event`, `meet`) sleeps, or lets others run: the load of a waiting vCPU
///   must not be part of what a test measures.
/// - `place`, `width`, `value` and listeners have passed [`crate::Program::parse`].
pub trait Machine {
    /// Why a vCPU stops before the end of its script, for example because a simulated domain was destroyed.
    ///
    /// A machine that cannot survive its domain uses [`core::convert::Infallible`].
    type Stop;

    /// Writes `value`, which fits `width`.
    ///
    /// # Errors
    /// The domain ended.
    fn write(&mut self, place: Place, width: Width, value: u64) -> Result<(), Self::Stop>;

    /// Reads; the upper bits of the result are zero.
    ///
    /// # Errors
    /// The domain ended.
    fn read(&mut self, place: Place, width: Width) -> Result<u64, Self::Stop>;

    /// One string instruction that writes `value` `count` times: upwards from an MMIO address, or
    /// to one and the same port. On Arm, so many stores that increment their address. At most [`crate::MAX_REP_BYTES`] in all.
    ///
    /// # Errors
    /// The domain ended.
    fn rep(&mut self, place: Place, width: Width, value: u64, count: u64)
    -> Result<(), Self::Stop>;

    /// One instruction that writes `value` twice, the second time beside the first. The place is MMIO, the width 4 or 8
    /// bytes.
    ///
    /// # Errors
    /// The domain ended.
    fn pair(&mut self, place: Place, width: Width, value: u64) -> Result<(), Self::Stop>;

    /// Allocates an event channel that domain 0 may bind, and returns its port.
    ///
    /// # Errors
    /// The domain ended.
    fn listen_evtchn(&mut self, listener: ListenerId) -> Result<u32, Self::Stop>;

    /// Counts the interrupts on `vector`, on any vCPU, from now on.
    ///
    /// # Errors
    /// The domain ended.
    fn listen_msi(&mut self, listener: ListenerId, vector: u8) -> Result<(), Self::Stop>;

    /// Counts the interrupts of `line`, from now on.
    ///
    /// # Errors
    /// The domain ended.
    fn listen_line(&mut self, listener: ListenerId, line: Line) -> Result<(), Self::Stop>;

    /// Takes one event, and sleeps until there is one.
    ///
    /// # Errors
    /// The domain ended.
    fn take_event(&mut self, listener: ListenerId) -> Result<(), Self::Stop>;

    /// Takes one event if one is pending. A listener that does not exist yet has none.
    ///
    /// # Errors
    /// The domain ended.
    fn poll_event(&mut self, listener: ListenerId) -> Result<bool, Self::Stop>;

    /// Notifies the other end of an event channel; waits for its `listen` first.
    ///
    /// # Errors
    /// The domain ended.
    fn send(&mut self, listener: ListenerId) -> Result<(), Self::Stop>;

    /// Returns one page to Xen, a new one for each call.
    ///
    /// # Errors
    /// The domain ended.
    fn balloon(&mut self) -> Result<(), Self::Stop>;

    /// Waits for all vCPUs that have a section.
    ///
    /// # Errors
    /// The domain ended.
    fn meet(&mut self) -> Result<(), Self::Stop>;

    /// Executes `count` pause instructions.
    ///
    /// # Errors
    /// The domain ended.
    fn pause(&mut self, count: u64) -> Result<(), Self::Stop>;

    /// The time, in ticks of this machine.
    fn now(&mut self) -> u64;

    /// One reading of both clocks: [`Machine::now`], and nanoseconds of one that domain 0 reads too.
    fn clock(&mut self) -> (u64, u64);

    /// Room for this vCPU's measurements.
    fn samples(&mut self) -> &mut [u64; MAX_SAMPLES];

    /// Reports to the test.
    ///
    /// # Errors
    /// The domain ended.
    fn report(&mut self, report: Report<'_>) -> Result<(), Self::Stop>;

    /// Shuts the whole guest down for a soft reset, and returns when it runs again: with its memory, and
    /// without the event channels that it had.
    ///
    /// # Errors
    /// The domain ended.
    fn soft_reset(&mut self) -> Result<(), Self::Stop>;

    /// Ends the guest cleanly.
    fn poweroff(&mut self) -> Self::Stop;

    /// Ends the guest as crashed.
    fn crash(&mut self) -> Self::Stop;
}
