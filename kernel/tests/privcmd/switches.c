// SPDX-License-Identifier: MIT OR Apache-2.0
#define _GNU_SOURCE
#include "switches.h"
#include "check.h"

#include <ctype.h>
#include <dirent.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct task {
	uint64_t switches;
	bool user;		/* it is not a kernel thread */
};

/* A task may end while it is read: it counts nothing then. */
static struct task task_status(const char *path)
{
	struct task task = { 0 };
	FILE *file = fopen(path, "re");
	char line[256];

	while (file && fgets(line, sizeof(line), file)) {
		sscanf(line, "voluntary_ctxt_switches: %" SCNu64, &task.switches);
		task.user |= !strncmp(line, "VmSize:", 7);
	}
	if (file)
		fclose(file);
	return task;
}

static void add_task(struct switches *sum, pid_t pid, pid_t vmm, pid_t backend, struct task task)
{
	if (pid == vmm)
		sum->vmm += task.switches;
	else if (pid == backend)
		sum->backend += task.switches;
	else if (!task.user)
		sum->kernel += task.switches;
	else if (pid != getpid())
		sum->others += task.switches;
}

struct switches switches_now(pid_t vmm, pid_t backend)
{
	struct switches sum = { 0 };
	DIR *processes = opendir("/proc");
	struct dirent *process, *thread;

	must("/proc", processes ? 0 : -1);
	while ((process = readdir(processes))) {
		char folder[64], path[600];
		DIR *threads;

		if (!isdigit((unsigned char)process->d_name[0]))
			continue;
		snprintf(folder, sizeof(folder), "/proc/%.16s/task", process->d_name);
		threads = opendir(folder);
		while (threads && (thread = readdir(threads))) {
			if (!isdigit((unsigned char)thread->d_name[0]))
				continue;
			snprintf(path, sizeof(path), "%s/%s/status", folder, thread->d_name);
			add_task(&sum, atoi(process->d_name), vmm, backend, task_status(path));
		}
		if (threads)
			closedir(threads);
	}
	closedir(processes);
	return sum;
}
