//! Xen through Linux: `/dev/xen/privcmd`, `/dev/xen/evtchn` and xenstore.
