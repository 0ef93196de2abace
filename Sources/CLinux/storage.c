#define _GNU_SOURCE
#include "CLinuxStorage.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

int skein_lock_exclusive(int descriptor) {
  return flock(descriptor, LOCK_EX | LOCK_NB) == 0 ? 0 : -errno;
}

int skein_allocate(int descriptor, int64_t bytes) {
  return -posix_fallocate(descriptor, 0, bytes);
}

int64_t skein_write_at(int descriptor, const struct iovec *slices, int count, int64_t offset) {
  ssize_t written = pwritev(descriptor, slices, count, offset);
  return written >= 0 ? written : -errno;
}

int64_t skein_read_at(int descriptor, void *bytes, size_t count, int64_t offset) {
  ssize_t got = pread(descriptor, bytes, count, offset);
  return got >= 0 ? got : -errno;
}

void skein_will_read(int descriptor, int64_t offset, int64_t bytes) {
  // Advice: where it is not taken, the read itself will tell.
  posix_fadvise(descriptor, offset, bytes, POSIX_FADV_WILLNEED);
}

int skein_open(const char *path, int is_writable, int is_created, int is_new) {
  int flags = O_CLOEXEC | (is_writable ? O_RDWR : O_RDONLY);
  if (is_created) flags |= O_CREAT;
  if (is_new) flags |= O_CREAT | O_EXCL;
  int descriptor = open(path, flags, 0644);
  return descriptor >= 0 ? descriptor : -errno;
}

int skein_open_direct(const char *path, int is_written) {
  int descriptor = open(path, (is_written ? O_WRONLY : O_RDONLY) | O_DIRECT | O_CLOEXEC);
  return descriptor >= 0 ? descriptor : -errno;
}
