// CRC-32C three ways: one instruction per 8 bytes, three interleaved streams for long inputs
// (the instruction has a latency of 3 and a throughput of 1), and tables where there is neither.
//
// The streams are joined by multiplying with x^(8n) modulo the polynomial, done with the same
// table of "n zero bytes" operators that zlib's crc32_combine explains.

#include "CLinux.h"

#include <pthread.h>
#include <string.h>

#define POLYNOMIAL 0x82f63b78u
enum { LANE = 256, LONG_LANE = 4096 };

static uint32_t table[8][256];
static uint32_t shift_lane[4][256];
static uint32_t shift_long[4][256];
static int has_instruction;
static pthread_once_t once = PTHREAD_ONCE_INIT;

static uint32_t by_table(uint32_t crc, const uint8_t *p, size_t n) {
  while (n && ((uintptr_t)p & 7)) {
    crc = table[0][(crc ^ *p++) & 0xff] ^ (crc >> 8);
    n--;
  }
  while (n >= 8) {
    uint64_t word;
    memcpy(&word, p, 8);
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    word = __builtin_bswap64(word);
#endif
    word ^= crc;
    crc = table[7][word & 0xff] ^ table[6][(word >> 8) & 0xff] ^ table[5][(word >> 16) & 0xff] ^
          table[4][(word >> 24) & 0xff] ^ table[3][(word >> 32) & 0xff] ^
          table[2][(word >> 40) & 0xff] ^ table[1][(word >> 48) & 0xff] ^ table[0][word >> 56];
    p += 8;
    n -= 8;
  }
  while (n--) crc = table[0][(crc ^ *p++) & 0xff] ^ (crc >> 8);
  return crc;
}

// The operator that appends `count` zero bytes to a checksum, as four byte-indexed tables.
static void make_shift(uint32_t out[4][256], size_t count) {
  uint32_t column[32];
  for (int bit = 0; bit < 32; bit++) {
    uint32_t crc = 1u << bit;
    for (size_t i = 0; i < count; i++) crc = table[0][crc & 0xff] ^ (crc >> 8);
    column[bit] = crc;
  }
  for (int byte = 0; byte < 4; byte++)
    for (int value = 0; value < 256; value++) {
      uint32_t crc = 0;
      for (int bit = 0; bit < 8; bit++)
        if (value >> bit & 1) crc ^= column[byte * 8 + bit];
      out[byte][value] = crc;
    }
}

static void prepare(void) {
  for (int i = 0; i < 256; i++) {
    uint32_t crc = (uint32_t)i;
    for (int k = 0; k < 8; k++) crc = crc & 1 ? (crc >> 1) ^ POLYNOMIAL : crc >> 1;
    table[0][i] = crc;
  }
  for (int k = 1; k < 8; k++)
    for (int i = 0; i < 256; i++)
      table[k][i] = (table[k - 1][i] >> 8) ^ table[0][table[k - 1][i] & 0xff];
  make_shift(shift_lane, LANE);
  make_shift(shift_long, LONG_LANE);
#if defined(__x86_64__)
  has_instruction = __builtin_cpu_supports("sse4.2") != 0;
#elif defined(__aarch64__) && defined(__ARM_FEATURE_CRC32)
  has_instruction = 1;
#endif
}

#if defined(__x86_64__)
#define HARDWARE __attribute__((target("sse4.2")))
#define STEP8(c, w) ((uint32_t)__builtin_ia32_crc32di((c), (w)))
#define STEP1(c, b) __builtin_ia32_crc32qi((c), (b))
#elif defined(__aarch64__) && defined(__ARM_FEATURE_CRC32)
#define HARDWARE
#define STEP8(c, w) __builtin_arm_crc32cd((c), (w))
#define STEP1(c, b) __builtin_arm_crc32cb((c), (b))
#endif

#ifdef HARDWARE
static uint32_t shifted(uint32_t t[4][256], uint32_t crc) {
  return t[0][crc & 0xff] ^ t[1][(crc >> 8) & 0xff] ^ t[2][(crc >> 16) & 0xff] ^ t[3][crc >> 24];
}

static inline uint64_t load(const uint8_t *p) {
  uint64_t word;
  memcpy(&word, p, 8);
  return word;
}

HARDWARE static uint32_t three_lanes(uint32_t crc, const uint8_t *p, size_t lane,
                                     uint32_t shift[4][256]) {
  uint64_t a = crc, b = 0, c = 0;
  for (size_t i = 0; i < lane; i += 8) {
    a = STEP8(a, load(p + i));
    b = STEP8(b, load(p + lane + i));
    c = STEP8(c, load(p + 2 * lane + i));
  }
  crc = shifted(shift, (uint32_t)a) ^ (uint32_t)b;
  return shifted(shift, crc) ^ (uint32_t)c;
}

HARDWARE static uint32_t by_instruction(uint32_t crc, const uint8_t *p, size_t n) {
  for (; n >= 3 * LONG_LANE; p += 3 * LONG_LANE, n -= 3 * LONG_LANE)
    crc = three_lanes(crc, p, LONG_LANE, shift_long);
  for (; n >= 3 * LANE; p += 3 * LANE, n -= 3 * LANE) crc = three_lanes(crc, p, LANE, shift_lane);
  for (; n >= 8; p += 8, n -= 8) crc = STEP8(crc, load(p));
  for (; n; p++, n--) crc = STEP1(crc, *p);
  return crc;
}
#endif

uint32_t skein_crc32c(uint32_t seed, const void *bytes, size_t count) {
  pthread_once(&once, prepare);
  uint32_t crc = ~seed;
#ifdef HARDWARE
  if (has_instruction) return ~by_instruction(crc, bytes, count);
#endif
  return ~by_table(crc, bytes, count);
}
