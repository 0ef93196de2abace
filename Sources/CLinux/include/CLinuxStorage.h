// Calls that the log store needs and Swift cannot name: `flock` is also a type there, and
// `posix_fallocate` reports its error by value.

#ifndef SKEIN_CLINUX_STORAGE_H
#define SKEIN_CLINUX_STORAGE_H

#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

/// Takes an exclusive lock on an open file without waiting: 0 or -errno (-EWOULDBLOCK if another
/// process holds it). The lock goes with the descriptor.
int skein_lock_exclusive(int descriptor);

/// Makes the first `bytes` bytes of a file exist on the disk, reading as zero where never written:
/// 0 or -errno.
int skein_allocate(int descriptor, int64_t bytes);

/// One pwritev: bytes written or -errno.
int64_t skein_write_at(int descriptor, const struct iovec *slices, int count, int64_t offset);

/// One pread: bytes read or -errno.
int64_t skein_read_at(int descriptor, void *bytes, size_t count, int64_t offset);

/// Whether the page cache has all of a range of a file, as mincore(2) tells: 0 where that fails, 1 for any
/// range of a file that the process neither owns nor may write.
int skein_is_cached(int descriptor, int64_t offset, int64_t bytes);

/// posix_fadvise with POSIX_FADV_DONTNEED: the page cache gives up what it has of the range and need not
/// write to the disk.
void skein_will_not_read(int descriptor, int64_t offset, int64_t bytes);

/// posix_fadvise with POSIX_FADV_WILLNEED: the kernel begins to read what it does not have.
void skein_will_read(int descriptor, int64_t offset, int64_t bytes);

/// One open(2) with O_CLOEXEC and mode 0644: descriptor or -errno.
int skein_open(const char *path, int is_writable, int is_created, int is_new);

/// One open(2) to write or to read with O_DIRECT and O_CLOEXEC: descriptor or -errno, -EINVAL where the
/// file system does not know it.
int skein_open_direct(const char *path, int is_written);

#endif
