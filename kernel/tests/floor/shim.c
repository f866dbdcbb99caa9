// SPDX-License-Identifier: GPL-2.0
/* Hypercalls and mappings, the same as the module's. */
#include "../../shim.c"
