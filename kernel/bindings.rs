// SPDX-License-Identifier: GPL-2.0

//! What the kernel crate does not bind, made by bindgen from `bindings.h`; the kernel crate's own
//! bindings are its types.

#![allow(
    clippy::all,
    clippy::cast_lossless,
    clippy::ptr_as_ptr,
    clippy::ref_as_ptr,
    clippy::undocumented_unsafe_blocks,
    dead_code,
    improper_ctypes,
    missing_docs,
    non_camel_case_types,
    non_snake_case,
    non_upper_case_globals,
    unreachable_pub,
    unsafe_op_in_unsafe_fn
)]

use kernel::{bindings::*, ffi};

include!(env!("XEN_EVENTFD_BINDINGS"));
