// What the allocator does with freed memory.

#include "CLinux.h"

#ifdef __linux__
#include <features.h>
#endif

#ifdef __GLIBC__
#include <malloc.h>

void skein_keep_freed_memory(void) {
  (void)mallopt(M_MMAP_THRESHOLD, 32 << 20);
  (void)mallopt(M_TRIM_THRESHOLD, 128 << 20);
}

void skein_return_freed_memory(void) { (void)malloc_trim(0); }
#else
void skein_keep_freed_memory(void) {}
void skein_return_freed_memory(void) {}
#endif
