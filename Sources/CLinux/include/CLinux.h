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

#endif
