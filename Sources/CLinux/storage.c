#define _GNU_SOURCE
#include "CLinuxStorage.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/mman.h>
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

int skein_is_cached(int descriptor, int64_t offset, int64_t bytes) {
  int64_t page = sysconf(_SC_PAGESIZE);
  int64_t start = offset / page * page;
  int64_t length = offset + bytes - start;
  if (length <= 0) return 0;
  // Mapped to be asked about only: nothing is read through it. (preadv2 with RWF_NOWAIT would begin to read
  // from the disk what it does not find.)
  unsigned char *map = mmap(NULL, length, PROT_READ, MAP_SHARED, descriptor, start);
  if (map == MAP_FAILED) return 0;
  unsigned char present[256];
  int64_t stretch = page * (int64_t)sizeof present;
  int is_cached = 1;
  for (int64_t at = 0; at < length && is_cached; at += stretch) {
    int64_t asked = length - at < stretch ? length - at : stretch;
    if (mincore(map + at, asked, present) != 0) is_cached = 0;
    for (int64_t place = 0; place * page < asked && is_cached; place++) {
      is_cached = present[place] & 1;
    }
  }
  munmap(map, length);
  return is_cached;
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

void skein_will_not_read(int descriptor, int64_t offset, int64_t bytes) {
  posix_fadvise(descriptor, offset, bytes, POSIX_FADV_DONTNEED);
}
