/* What a read of the kernel's queue ends with when the connection goes while a request is being
 * taken off it: ECONNABORTED instead of ENODEV (fuse_dev_do_read in fs/fuse/dev.c). The moment is
 * too short to be met on purpose, so that this library, loaded into the daemon first, says so each
 * time.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/uio.h>
#include <unistd.h>

static ssize_t told(ssize_t result)
{
	if (result < 0 && errno == ENODEV)
		errno = ECONNABORTED;
	return result;
}

ssize_t read(int descriptor, void *buffer, size_t count)
{
	static ssize_t (*real)(int, void *, size_t);
	if (!real)
		real = dlsym(RTLD_NEXT, "read");
	return told(real(descriptor, buffer, count));
}

ssize_t readv(int descriptor, const struct iovec *pieces, int count)
{
	static ssize_t (*real)(int, const struct iovec *, int);
	if (!real)
		real = dlsym(RTLD_NEXT, "readv");
	return told(real(descriptor, pieces, count));
}

ssize_t splice(int in, off64_t *in_offset, int out, off64_t *out_offset, size_t count,
	       unsigned flags)
{
	static ssize_t (*real)(int, off64_t *, int, off64_t *, size_t, unsigned);
	if (!real)
		real = dlsym(RTLD_NEXT, "splice");
	return told(real(in, in_offset, out, out_offset, count, flags));
}
