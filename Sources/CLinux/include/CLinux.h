// Linux calls and instructions that Swift cannot reach by itself. No logic lives here: every
// function is one system call or one instruction loop. Called by Base (checksum only), LogStore
// and Transport.

#ifndef SKEIN_CLINUX_H
#define SKEIN_CLINUX_H

#include <stddef.h>
#include <stdint.h>

#include "CLinuxPoll.h"
#include "CLinuxStorage.h"

/// CRC-32C (Castagnoli, RFC 3720 appendix B.4) of `count` bytes, going on from `seed` (0 at the
/// start). Uses the SSE 4.2 or ARMv8 instruction where the processor has it, else tables.
uint32_t skein_crc32c(uint32_t seed, const void *bytes, size_t count);

/// mallopt(3): freed memory is kept for the next batch instead of going back to the system and being
/// asked for, and zeroed, again. Called once by Server. Nothing without glibc.
void skein_keep_freed_memory(void);

/// malloc_trim(3): gives freed memory back after all. Nothing without glibc.
void skein_return_freed_memory(void);

#endif
