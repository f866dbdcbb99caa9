//! What carries script out.

use crate::{Line, ListenerId, MAX_SAMPLES, Place, Report, Width};

/// One vCPU of a guest, on real Xen or simulated.
///
/// The vCPUs of a guest are separate values of a machine, each run on a thread or processor of its
/// own; what they share (listeners, the barrier, the console) is behind them.
///
/// # Invariants
///
/// - An access is *one* access of exactly that width: a doorbell is matched by width.
/// - Whatever waits (`take_event`, `meet`) sleeps, or lets others run: the load of a waiting vCPU
///   must not be part of what a test measures.
/// - `place`, `width`, `value` and listeners are those that [`crate::Program::parse`] let pass.
pub trait Machine {
    /// Why a vCPU stops before the end of its script: a simulated domain was destroyed, say.
    ///
    /// A machine that cannot survive its domain says [`core::convert::Infallible`].
    type Stop;

    /// Writes `value`, which fits `width`.
    ///
    /// # Errors
    /// The domain ended.
    fn write(&mut self, place: Place, width: Width, value: u64) -> Result<(), Self::Stop>;

    /// Reads; the upper bits of the answer are zero.
    ///
    /// # Errors
    /// The domain ended.
    fn read(&mut self, place: Place, width: Width) -> Result<u64, Self::Stop>;

    /// One string instruction that writes `value` `count` times: upwards from an MMIO address, or
    /// to one and the same port. At most [`crate::MAX_REP_BYTES`] in all.
    ///
    /// # Errors
    /// The domain ended.
    fn rep(&mut self, place: Place, width: Width, value: u64, count: u64)
    -> Result<(), Self::Stop>;

    /// Allocates an event channel that domain 0 may bind, and returns its port.
    ///
    /// # Errors
    /// The domain ended.
    fn listen_evtchn(&mut self, listener: ListenerId) -> Result<u32, Self::Stop>;

    /// Counts the interrupts on `vector`, on whichever vCPU they arrive, from now on.
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

    /// Takes one event if there is one. A listener that is not there yet has none.
    ///
    /// # Errors
    /// The domain ended.
    fn poll_event(&mut self, listener: ListenerId) -> Result<bool, Self::Stop>;

    /// Notifies the other end of an event channel, after waiting for its `listen` if need be.
    ///
    /// # Errors
    /// The domain ended.
    fn send(&mut self, listener: ListenerId) -> Result<(), Self::Stop>;

    /// Gives one page, never given before, back to Xen.
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

    /// The time, in ticks that only make sense to this machine.
    fn now(&mut self) -> u64;

    /// One moment, by [`Machine::now`] and in nanoseconds since Xen's start.
    fn clock(&mut self) -> (u64, u64);

    /// Room for this vCPU's measurements.
    fn samples(&mut self) -> &mut [u64; MAX_SAMPLES];

    /// Tells the test.
    ///
    /// # Errors
    /// The domain ended.
    fn report(&mut self, report: Report<'_>) -> Result<(), Self::Stop>;

    /// Ends the guest in good order.
    fn poweroff(&mut self) -> Self::Stop;

    /// Ends the guest as crashed.
    fn crash(&mut self) -> Self::Stop;
}
