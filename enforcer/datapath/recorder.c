/* SPDX-License-Identifier: Apache-2.0
 *
 * Loaded before libbcc by enforcer/datapath/compilation.py. bcc makes the maps of a program while it
 * compiles it; here every bpf() is answered with a memory file that holds what was asked, so that
 * compiling takes no rights and works where bpf() is refused, as in the build of an image.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdarg.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#define WORDS 6

long syscall(long number, ...)
{
	long (*real)(long, ...) = dlsym(RTLD_NEXT, "syscall");
	long given[WORDS];
	va_list list;
	int file;

	va_start(list, number);
	for (int i = 0; i < WORDS; i++)
		given[i] = va_arg(list, long);
	va_end(list);
	if (number != SYS_bpf)
		return real(number, given[0], given[1], given[2], given[3], given[4], given[5]);
	file = memfd_create("bpf", MFD_CLOEXEC);
	if (file >= 0 && write(file, (const void *)given[1], (size_t)given[2]) != given[2]) {
		close(file);
		errno = EIO;
		return -1;
	}
	return file;
}
