// SPDX-License-Identifier: GPL-2.0
/*
 * A QEMU plugin: counts, between two marks, how often each block of instructions is executed.
 *
 * A mark is a multi-byte no-operation with a number that no compiler emits. At the second one, a
 * line for each executed block is written to the file that `out=` names: the number of the pair of
 * marks, the block's address, its number of instructions, and its number of executions.
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
struct qemu_info;
enum { NO_REGISTERS };

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

/* QEMU 9.2 and later. */
__attribute__((visibility("default"))) int qemu_plugin_version = 4;

struct block {
	struct block *next;
	uint64_t address;
	uint64_t instructions;
	uint64_t times;
};

/* nopl NUMBER(%rax) */
static const uint8_t begin_mark[] = { 0x0f, 0x1f, 0x80, 0x01, 0x45, 0x46, 0x58 };
static const uint8_t end_mark[] = { 0x0f, 0x1f, 0x80, 0x02, 0x45, 0x46, 0x58 };

static struct block *blocks;
static bool counting;
static unsigned int pairs;
static FILE *out;

static void block_executed(unsigned int cpu, void *data)
{
	(void)cpu;
	if (counting)
		((struct block *)data)->times++;
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
	for (struct block *block = blocks; block; block = block->next) {
		if (block->times)
			fprintf(out, "%u %" PRIx64 " %" PRIu64 " %" PRIu64 "\n", pairs,
				block->address, block->instructions, block->times);
		block->times = 0;
	}
	fflush(out);
	pairs++;
}

static bool is(const struct qemu_plugin_insn *insn, const uint8_t mark[7])
{
	uint8_t bytes[7];

	return qemu_plugin_insn_data(insn, bytes, sizeof(bytes)) == sizeof(bytes) &&
	       !memcmp(bytes, mark, sizeof(bytes));
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
	blocks = block;
	qemu_plugin_register_vcpu_tb_exec_cb(tb, block_executed, NO_REGISTERS, block);
	for (size_t nth = 0; nth < count; nth++) {
		struct qemu_plugin_insn *insn = qemu_plugin_tb_get_insn(tb, nth);

		if (is(insn, begin_mark))
			qemu_plugin_register_vcpu_insn_exec_cb(insn, began, NO_REGISTERS, NULL);
		else if (is(insn, end_mark))
			qemu_plugin_register_vcpu_insn_exec_cb(insn, ended, NO_REGISTERS, NULL);
	}
}

__attribute__((visibility("default"))) int qemu_plugin_install(qemu_plugin_id_t id,
								const struct qemu_info *info,
								int count, char **words)
{
	(void)info;
	for (int nth = 0; nth < count; nth++) {
		if (!strncmp(words[nth], "out=", 4))
			out = fopen(words[nth] + 4, "w");
	}
	if (!out)
		return -1;
	qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
	return 0;
}
