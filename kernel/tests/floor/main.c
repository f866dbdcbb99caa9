// SPDX-License-Identifier: GPL-2.0
/*
 * /dev/xen/eventfd-floor, for measurements only.
 *
 * Writing `DOM ADDRESS EVENTFD` (decimal, hexadecimal, decimal; -1: none) to an open file makes it
 * serve that doorbell until it is closed. Reading returns the three numbers of clocks.h.
 */

#include "clocks.h"
#include "server.h"

#include <linux/fs.h>
#include <linux/miscdevice.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/slab.h>
#include <linux/uaccess.h>

struct floor {
	struct mutex lock;
	bool serves;
	struct server server;
};

static int floor_open(struct inode *inode, struct file *file)
{
	struct floor *floor = kzalloc(sizeof(*floor), GFP_KERNEL);

	if (!floor)
		return -ENOMEM;
	mutex_init(&floor->lock);
	file->private_data = floor;
	return 0;
}

static int begin(struct floor *floor, const char *words)
{
	struct eventfd_ctx *eventfd = NULL;
	u64 doorbell;
	int dom, fd, error;

	if (floor->serves)
		return -EBUSY;
	if (sscanf(words, "%d %llx %d", &dom, &doorbell, &fd) != 3)
		return -EINVAL;
	if (fd >= 0)
		eventfd = eventfd_ctx_fdget(fd);
	if (IS_ERR(eventfd))
		return PTR_ERR(eventfd);
	error = server_begin(&floor->server, dom, doorbell, eventfd);
	if (error && eventfd)
		eventfd_ctx_put(eventfd);
	floor->serves = !error;
	return error;
}

static ssize_t floor_write(struct file *file, const char __user *from, size_t size, loff_t *offset)
{
	struct floor *floor = file->private_data;
	char words[64] = "";
	int error;

	if (size >= sizeof(words))
		return -EINVAL;
	if (copy_from_user(words, from, size))
		return -EFAULT;
	mutex_lock(&floor->lock);
	error = begin(floor, words);
	mutex_unlock(&floor->lock);
	return error ?: size;
}

static ssize_t floor_read(struct file *file, char __user *to, size_t size, loff_t *offset)
{
	loff_t from_the_start = 0;
	struct clocks clocks;
	char words[64];
	int length, error;

	error = clocks_read(&clocks);
	if (error)
		return error;
	length = scnprintf(words, sizeof(words), "%llu %llu %llu\n", clocks.running, clocks.ticks,
			   clocks.time);
	return simple_read_from_buffer(to, size, &from_the_start, words, length);
}

static int floor_release(struct inode *inode, struct file *file)
{
	struct floor *floor = file->private_data;

	if (floor->serves)
		server_end(&floor->server);
	kfree(floor);
	return 0;
}

static const struct file_operations operations = {
	.owner = THIS_MODULE,
	.open = floor_open,
	.read = floor_read,
	.write = floor_write,
	.release = floor_release,
};

static struct miscdevice device = {
	.minor = MISC_DYNAMIC_MINOR,
	.name = "xen-eventfd-floor",
	.nodename = "xen/eventfd-floor",
	.mode = 0600,
	.fops = &operations,
};

module_misc_device(device);
MODULE_DESCRIPTION("The minimal cost of an ioeventfd under Xen");
MODULE_LICENSE("GPL");
