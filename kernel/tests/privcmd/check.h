/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Verdicts, one a line: `ok      TEST: WHAT` or `FAILED  TEST: WHAT: WHY`. */

#ifndef CHECK_H
#define CHECK_H

#include <stdbool.h>
#include <stdint.h>

/* All verdicts from here on are about this test. */
void begin(const char *test);

/* The exit status: whether any verdict was bad. */
int status(void);

/* `result` is that of a system call, which is to end with this errno; 0: it is to succeed. */
void ended(const char *what, int wanted, int result);

/* A mistake's errno when it is the only one, and when others come with it. */
void refused(const char *what, int wanted, int alone, int among_others);

/* What an eventfd has counted since it was last read. */
void counted(const char *what, uint64_t wanted, int eventfd);

/* Anything else. */
void holds(const char *what, bool true_or_not);

/* Without this nothing can be tested: a bad verdict and the end. Returns `result` if it is no error. */
int must(const char *what, int result);

/* An eventfd, close-on-exec, that can be read without waiting. */
int new_eventfd(void);

/* What it has counted; 0 if nothing. */
uint64_t taken(int eventfd);

/* Waits until it has counted this much, as it must. */
void await_count(uint64_t wanted, int eventfd);

void signal_eventfd(int eventfd);

/* How long anything may take before it counts as never, in milliseconds. */
#define PATIENCE 120000

#endif
