/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Results, one a line: `ok      TEST: WHAT` or `FAILED  TEST: WHAT: WHY`. */

#ifndef CHECK_H
#define CHECK_H

#include <stdbool.h>
#include <stdint.h>

/* All results from here on belong to this test. */
void begin(const char *test);

/* The exit status: whether any check failed. */
int status(void);

/*
 * Checks that a system call with this result failed with `wanted`, or succeeded if `wanted` is 0.
 */
void ended(const char *what, int wanted, int result);

/* Checks the errno of an error when it is the only one, and when others come with it. */
void refused(const char *what, int wanted, int alone, int among_others);

/* Checks what an eventfd has counted since it was last read. */
void counted(const char *what, uint64_t wanted, int eventfd);

/* Checks any other condition. */
void holds(const char *what, bool true_or_not);

/* A precondition: if `result` is an error, prints it and exits. Otherwise returns `result`. */
int must(const char *what, int result);

/* An eventfd, close-on-exec, that can be read without waiting. */
int new_eventfd(void);

/* Reads and clears an eventfd's counter; 0 if it is empty. */
uint64_t taken(int eventfd);

/* Waits until the eventfd has counted this much. */
void await_count(uint64_t wanted, int eventfd);

void signal_eventfd(int eventfd);

/* The time limit of every wait, in milliseconds. */
#define PATIENCE 120000

#endif
