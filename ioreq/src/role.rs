//! What a server of a guest is for.

/// What a server of a guest is for. A guest has at most one of each of ours, each with a lock and a record
/// of its own, so that two processes can share the work on it.
///
/// Xen asks the servers of a guest from the highest id down and takes the first whose ranges hold the whole
/// access. So doorbells that lie amid a device's registers go to the server with the higher id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Role {
    /// Doorbells: the server takes the highest id that is free, and none that comes later outranks it.
    #[default]
    Doorbells,
    /// A device's registers: the server takes the lowest id that is free.
    Registers,
}

impl Role {
    /// Each role.
    pub const ALL: [Self; 2] = [Self::Doorbells, Self::Registers];

    /// What stands in the name of a file of a guest, between its number and its kind.
    pub(crate) const fn infix(self) -> &'static str {
        match self {
            Self::Doorbells => "",
            Self::Registers => ".registers",
        }
    }
}
