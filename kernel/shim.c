// SPDX-License-Identifier: GPL-2.0
/* What is inline in C, for Rust. */

#include <linux/kernel.h>
