//! The rules of xen-eventfd.
#![no_std]
#![forbid(unsafe_code)]
