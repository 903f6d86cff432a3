/* Columns at which a row of bytes is 1, found 64 bytes at a time and without a branch for the first few of them.
 *
 * A branch for each column would be guessed wrongly about as often as it comes: the columns are where labels change.
 */
#ifndef NUCLIX_CHANGES_H
#define NUCLIX_CHANGES_H

#include <stdint.h>
#include <string.h>

enum { CHANGES_BLOCK = 64, CHANGES_FIRST = 4 };

#if defined(_MSC_VER)
#include <intrin.h>
static inline int lowest_bit(uint64_t word) {
    unsigned long at;
    _BitScanForward64(&at, word);
    return (int)at;
}
#else
static inline int lowest_bit(uint64_t word) { return __builtin_ctzll(word); }
#endif

/* The eight bytes at `at`, byte k in bits 8k to 8k + 7 whatever the machine's order. */
static inline uint64_t eight_bytes(const uint8_t *at) {
    uint64_t word;
    memcpy(&word, at, 8);
#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    word = __builtin_bswap64(word);
#endif
    return word;
}

/* Write the columns at which `marks` is 1 to `cols`; return how many.
 *
 * `marks` holds 0 and 1 and is `size` bytes long, a multiple of CHANGES_BLOCK; `cols` has room for CHANGES_FIRST more
 * than are found.
 */
static inline int64_t marked_columns(const uint8_t *marks, int64_t size, int32_t *cols) {
    int64_t found = 0;
    for (int64_t base = 0; base < size; base += CHANGES_BLOCK) {
        uint64_t bits = 0, sum = 0;
        int32_t *out = cols + found;
        for (int k = 0; k < 8; k++) {
            uint64_t word = eight_bytes(marks + base + 8 * k);
            sum += word;
            bits |= (word * 0x0102040810204080u >> 56) << 8 * k; /* byte i's bit to bit i of the top byte */
        }
        for (int k = 0; k < CHANGES_FIRST; k++) {
            out[k] = (int32_t)(base + lowest_bit(bits | 1ull << 63)); /* where none is left: overwritten later */
            bits &= bits - 1;
        }
        for (int k = CHANGES_FIRST; bits; k++) {
            out[k] = (int32_t)(base + lowest_bit(bits));
            bits &= bits - 1;
        }
        found += (int64_t)(sum * 0x0101010101010101u >> 56);
    }
    return found;
}

#endif
