//! Part of xen-eventfd.
