// SPDX-License-Identifier: GPL-2.0
/* Hypercalls and mappings, as the module under test has them. */
#include "../../shim.c"
