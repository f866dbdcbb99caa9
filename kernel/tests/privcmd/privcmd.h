/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* /dev/xen/privcmd: device model operations, and struct xen_dm_op of Xen's public/hvm/dm_op.h. */

#ifndef PRIVCMD_H
#define PRIVCMD_H

#include <stddef.h>
#include <stdint.h>
#include <xen/privcmd.h>

#define XEN_DMOP_create_ioreq_server 1
#define XEN_DMOP_map_io_range_to_ioreq_server 3
#define XEN_DMOP_set_ioreq_server_state 5
#define XEN_DMOP_destroy_ioreq_server 6
#define XEN_DMOP_set_pci_intx_level 8
#define XEN_DMOP_set_isa_irq_level 9
#define XEN_DMOP_inject_msi 14
#define XEN_DMOP_set_irq_level 19
#define XEN_DMOP_nr_vcpus 20

struct dm_op {
	uint32_t op;
	uint32_t pad;
	union {
		struct {
			uint8_t handle_bufioreq;
			uint8_t pad[3];
			uint16_t id;
		} create;
		struct {
			uint16_t id;
			uint16_t pad;
			uint32_t type;
			uint64_t start;
			uint64_t end;
		} map;
		struct {
			uint16_t id;
			uint8_t enabled;
			uint8_t pad;
		} state;
		struct {
			uint16_t id;
			uint16_t pad;
		} destroy;
		struct {
			uint16_t domain;
			uint8_t bus;
			uint8_t device;
			uint8_t intx;
			uint8_t level;
		} intx;
		struct {
			uint8_t isa_irq;
			uint8_t level;
		} isa;
		struct {
			uint32_t data;
			uint32_t pad;
			uint64_t addr;
		} msi;
		struct {
			uint32_t irq;
			uint8_t level;
			uint8_t pad[3];
		} spi;
		struct {
			uint32_t vcpus;
		} nr_vcpus;
	};
};

/* The size that Xen expects of an operation. */
#define DM_OP_SIZE(member) (offsetof(struct dm_op, member) + sizeof(((struct dm_op *)0)->member))

/*
 * What a guest that listens for the MSI 0x41 takes, and its size: on Arm, where there are no MSIs, the SPI of that
 * number.
 */
#ifdef __aarch64__
#define OWN { .op = XEN_DMOP_set_irq_level, .spi = { .irq = 0x41, .level = 1 } }
#define OWN_SIZE DM_OP_SIZE(spi)
#else
#define OWN { .op = XEN_DMOP_inject_msi, .msi = { .addr = 0xfee00000, .data = 0x41 } }
#define OWN_SIZE DM_OP_SIZE(msi)
#endif

int privcmd_open(void);

/* Makes Xen carry out an operation on a guest. */
int privcmd_dm_op(int privcmd, domid_t dom, struct dm_op *op, size_t size);

/* The number of vCPUs of a guest. */
unsigned int privcmd_vcpus(int privcmd, domid_t dom);

#endif
