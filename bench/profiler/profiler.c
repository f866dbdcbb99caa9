// SPDX-License-Identifier: GPL-2.0
/*
 * A QEMU plugin: counts, between two marks, how often each block of instructions is executed.
 *
 * A mark is a no-operation with a number that no compiler emits, in whatever runs on the
 * machine. At the second one, lines are written to the file that `out=` names; the first number of each
 * is that of the pair of marks:
 *
 *   block PAIR WORLD ADDRESS INSTRUCTIONS TIMES   an executed block
 *   entries PAIR WORLD TIMES                      how often Xen entered that world
 *
 * On x86 Xen enters by VMRUN. World 0 is whatever runs without it: Xen and PV domains. World 1 is the first vCPU
 * that was ever entered, which is a PVH dom0's, if that is what dom0 is; world 2 is all others. On Arm Xen enters by
 * ERET to EL1 or EL0. World 0 is Xen, world 1 the first domain that was ever entered, which is dom0, and world 2 all
 * others.
 */

#include <inttypes.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The part of QEMU's plugin interface that is used; no package contains its header. */
typedef uint64_t qemu_plugin_id_t;
struct qemu_plugin_tb;
struct qemu_plugin_insn;
/* The first of its fields. */
struct qemu_info {
	const char *target;
};
struct qemu_plugin_register;
enum { NO_REGISTERS, READS_REGISTERS };
/* GLib's arrays, as they are to those who use them. */
struct bytes {
	uint8_t *data;
	unsigned int length;
};
struct descriptions {
	struct description {
		struct qemu_plugin_register *handle;
		const char *name;
		const char *feature;
	} *data;
	unsigned int length;
};

size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *tb);
uint64_t qemu_plugin_tb_vaddr(const struct qemu_plugin_tb *tb);
struct qemu_plugin_insn *qemu_plugin_tb_get_insn(const struct qemu_plugin_tb *tb, size_t nth);
size_t qemu_plugin_insn_data(const struct qemu_plugin_insn *insn, void *to, size_t size);
void qemu_plugin_register_vcpu_tb_trans_cb(qemu_plugin_id_t id,
					   void (*translated)(qemu_plugin_id_t,
							      struct qemu_plugin_tb *));
void qemu_plugin_register_vcpu_tb_exec_cb(struct qemu_plugin_tb *tb,
					  void (*executed)(unsigned int, void *), int flags,
					  void *data);
void qemu_plugin_register_vcpu_insn_exec_cb(struct qemu_plugin_insn *insn,
					    void (*executed)(unsigned int, void *), int flags,
					    void *data);
void qemu_plugin_register_vcpu_init_cb(qemu_plugin_id_t id,
				       void (*began)(qemu_plugin_id_t, unsigned int));
struct descriptions *qemu_plugin_get_registers(void);
int qemu_plugin_read_register(struct qemu_plugin_register *handle, struct bytes *to);
struct bytes *g_byte_array_new(void);
struct bytes *g_byte_array_set_size(struct bytes *bytes, unsigned int length);

/* QEMU 9.2 and later. */
__attribute__((visibility("default"))) int qemu_plugin_version = 4;

enum { WORLDS = 3 };

struct block {
	struct block *next;
	uint64_t address;
	uint64_t instructions;
	uint64_t times[WORLDS];
	bool xens;
};

/* Instructions of one length. */
struct marks {
	size_t size;
	uint8_t begin[8];
	uint8_t end[8];
};

/* nopl NUMBER(%rax) */
static const struct marks of_x86 = {
	7,
	{ 0x0f, 0x1f, 0x80, 0x01, 0x45, 0x46, 0x58 },
	{ 0x0f, 0x1f, 0x80, 0x02, 0x45, 0x46, 0x58 },
};
/* movz xzr, #NUMBER */
static const struct marks of_arm = { 4, { 0x3f, 0xa0, 0x88, 0xd2 }, { 0x5f, 0xa0, 0x88, 0xd2 } };
static const uint8_t vmrun[] = { 0x0f, 0x01, 0xd8 };
static const uint8_t eret[] = { 0xe0, 0x03, 0x9f, 0xd6 };

static const struct marks *marks;
static struct block *blocks;
static bool counting;
static unsigned int pairs;
static FILE *out;
static unsigned int world;
static uint64_t entries[WORLDS];
/* What `what` has when world 1 is entered. */
static uint64_t first;
/* The register that tells who is entered: RAX has a control block's address, VTTBR_EL2 a domain's page tables. */
static struct qemu_plugin_register *what;
/* On Arm: SPSR_EL2, which has the exception level that ERET returns to. */
static struct qemu_plugin_register *state;
static struct bytes *value;

static void block_executed(unsigned int cpu, void *data)
{
	struct block *block = data;

	(void)cpu;
	if (block->xens)
		world = 0;
	if (counting)
		block->times[world]++;
}

static uint64_t read_register(struct qemu_plugin_register *handle)
{
	uint64_t read = 0;

	g_byte_array_set_size(value, 0);
	if (!handle || qemu_plugin_read_register(handle, value) != sizeof(read))
		abort();
	memcpy(&read, value->data, sizeof(read));
	return read;
}

static void entered(unsigned int cpu, void *data)
{
	uint64_t whom;

	(void)cpu;
	(void)data;
	/* SPSR_ELx.M[3:2]: Xen returns to itself from an interrupt. */
	if (state && (read_register(state) >> 2 & 3) == 2)
		return;
	whom = read_register(what);
	if (!first)
		first = whom;
	world = whom == first ? 1 : 2;
	entries[world] += counting;
}

static void cpu_began(qemu_plugin_id_t id, unsigned int cpu)
{
	struct descriptions *registers = qemu_plugin_get_registers();

	(void)id;
	(void)cpu;
	for (unsigned int nth = 0; nth < registers->length; nth++) {
		const char *name = registers->data[nth].name;

		if (!strcmp(name, marks == &of_x86 ? "rax" : "VTTBR_EL2"))
			what = registers->data[nth].handle;
		else if (marks == &of_arm && !strcmp(name, "SPSR_EL2"))
			state = registers->data[nth].handle;
	}
	if (!what || (marks == &of_arm && !state))
		abort();
}

static void began(unsigned int cpu, void *data)
{
	(void)cpu;
	(void)data;
	counting = true;
}

static void ended(unsigned int cpu, void *data)
{
	(void)cpu;
	(void)data;
	counting = false;
	for (unsigned int of = 0; of < WORLDS; of++) {
		for (struct block *block = blocks; block; block = block->next) {
			if (block->times[of])
				fprintf(out, "block %u %u %" PRIx64 " %" PRIu64 " %" PRIu64 "\n", pairs,
					of, block->address, block->instructions, block->times[of]);
			block->times[of] = 0;
		}
		if (entries[of])
			fprintf(out, "entries %u %u %" PRIu64 "\n", pairs, of, entries[of]);
		entries[of] = 0;
	}
	fflush(out);
	pairs++;
}

/* The part of Xen's addresses (`is_xen` in lab-runs/src/bench/blocks.rs). */
static bool is_xens(uint64_t address)
{
	if (marks == &of_x86)
		return address >= 0xffff800000000000 && address < 0xffff880000000000;
	return address >= 0x0a0000000000 && address < 0x0a8000000000;
}

static bool is(const struct qemu_plugin_insn *insn, const uint8_t *wanted, size_t size)
{
	uint8_t bytes[16];

	return qemu_plugin_insn_data(insn, bytes, sizeof(bytes)) == size && !memcmp(bytes, wanted, size);
}

/* Whether an instruction of Xen's enters a domain. */
static bool enters(const struct qemu_plugin_insn *insn)
{
	return marks == &of_x86 ? is(insn, vmrun, sizeof(vmrun)) : is(insn, eret, sizeof(eret));
}

static void translated(qemu_plugin_id_t id, struct qemu_plugin_tb *tb)
{
	struct block *block = calloc(1, sizeof(*block));
	size_t count = qemu_plugin_tb_n_insns(tb);

	(void)id;
	if (!block)
		abort();
	block->next = blocks;
	block->address = qemu_plugin_tb_vaddr(tb);
	block->instructions = count;
	block->xens = is_xens(block->address);
	blocks = block;
	qemu_plugin_register_vcpu_tb_exec_cb(tb, block_executed, NO_REGISTERS, block);
	for (size_t nth = 0; nth < count; nth++) {
		struct qemu_plugin_insn *insn = qemu_plugin_tb_get_insn(tb, nth);

		if (is(insn, marks->begin, marks->size))
			qemu_plugin_register_vcpu_insn_exec_cb(insn, began, NO_REGISTERS, NULL);
		else if (is(insn, marks->end, marks->size))
			qemu_plugin_register_vcpu_insn_exec_cb(insn, ended, NO_REGISTERS, NULL);
		else if (block->xens && enters(insn))
			qemu_plugin_register_vcpu_insn_exec_cb(insn, entered, READS_REGISTERS, NULL);
	}
}

__attribute__((visibility("default"))) int qemu_plugin_install(qemu_plugin_id_t id,
								const struct qemu_info *info,
								int count, char **words)
{
	marks = strcmp(info->target, "aarch64") ? &of_x86 : &of_arm;
	for (int nth = 0; nth < count; nth++) {
		if (!strncmp(words[nth], "out=", 4))
			out = fopen(words[nth] + 4, "w");
	}
	value = g_byte_array_new();
	if (!out || !value)
		return -1;
	qemu_plugin_register_vcpu_init_cb(id, cpu_began);
	qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
	return 0;
}
