/* Loops over one row that the compiler vectorises, built once for every CPU and chosen when the module is loaded.
 *
 * CLONES asks GCC and Clang on x86-64 glibc for an AVX2 and a baseline version of a function; elsewhere, or with
 * -DNUCLIX_PLAIN (sanitizers), there is one baseline version. Nothing here touches Python or allocates. The compiler is GCC or
 * Clang: nuclix runs on Linux and macOS.
 */
#ifndef NUCLIX_ROWS_H
#define NUCLIX_ROWS_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define ROW static inline
#define fetch(address) __builtin_prefetch(address)
#define RESTRICT __restrict__

#if !defined(NUCLIX_PLAIN) && defined(__x86_64__) && defined(__GLIBC__) && defined(__has_attribute)
#if __has_attribute(target_clones)
#define CLONES __attribute__((target_clones("avx2", "default")))
#endif
#endif
#ifndef CLONES
#define CLONES
#endif

/* ---- foreground of a row as bytes 0 and 1, and where it changes ---- */

CLONES ROW void is_above(ptrdiff_t n, float floor, const float *RESTRICT row, uint8_t *RESTRICT out) {
    for (ptrdiff_t c = 0; c < n; c++)
        out[c] = row[c] > floor;
}

/* out[c] = 1 where there is a number at all */
CLONES ROW void is_number(ptrdiff_t n, const float *RESTRICT row, uint8_t *RESTRICT out) {
    for (ptrdiff_t c = 0; c < n; c++)
        out[c] = row[c] == row[c];
}

CLONES ROW void restrict_to(ptrdiff_t n, const uint8_t *RESTRICT mask, uint8_t *RESTRICT out) {
    for (ptrdiff_t c = 0; c < n; c++)
        out[c] = mask[c] ? out[c] : 0;
}

CLONES ROW void rename_labels(ptrdiff_t n, const int32_t *RESTRICT names, int32_t *RESTRICT row) {
    for (ptrdiff_t c = 0; c < n; c++)
        row[c] = names[row[c]];
}

/* ---- columns at which a row of bytes is 1 ----
 *
 * They are found 64 bytes at a time and without a branch for the first few of them: a branch for each column would be guessed
 * wrongly about as often as it comes, for the columns are where labels change.
 */

enum { CHANGES_BLOCK = 64, CHANGES_FIRST = 4 };

static inline int lowest_bit(uint64_t word) { return __builtin_ctzll(word); }

/* The eight bytes at `at`, byte k in bits 8k to 8k + 7 whatever the machine's order. */
static inline uint64_t eight_bytes(const uint8_t *at) {
    uint64_t word;
    memcpy(&word, at, 8);
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    word = __builtin_bswap64(word);
#endif
    return word;
}

/* Write the columns where `row` (0 and 1, followed by at least 8 zeros) changes; return how many, an even number.
 *
 * Bits are gathered from 64 bytes before they are looked at: a branch for every eight would often be guessed wrongly. */
ROW ptrdiff_t changes(ptrdiff_t n, const uint8_t *row, int32_t *out) {
    ptrdiff_t count = 0;
    uint64_t last = 0;
    for (ptrdiff_t base = 0; base <= n; base += 64) {
        const int words = n - base < 64 ? (int)((n - base) / 8) + 1 : 8;
        uint64_t bits = 0, changed;
        for (int k = 0; k < words; k++)
            bits |= (eight_bytes(row + base + 8 * k) * 0x0102040810204080u >> 56) << 8 * k;
        changed = bits ^ (bits << 1 | last);
        for (last = bits >> 63; changed; changed &= changed - 1)
            out[count++] = (int32_t)(base + lowest_bit(changed));
    }
    return count;
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

/* ---- heights as keys: the higher, the smaller; both zeros are one value ---- */

ROW uint32_t key_of(float height) {
    uint32_t bits;
    height += 0.0f;
    memcpy(&bits, &height, 4);
    return bits ^ ((uint32_t)((int32_t)~bits >> 31) >> 1);
}

/* Items of n pixels in places from `place` on: key << 32 | place. Keeps the least and the largest key. */
CLONES ROW void list_pixels(ptrdiff_t n, const float *RESTRICT heights, uint32_t place, uint64_t *RESTRICT items,
                            uint32_t *RESTRICT low, uint32_t *RESTRICT high) {
    uint32_t least = *low, most = *high;
    for (ptrdiff_t c = 0; c < n; c++) {
        uint32_t key = key_of(heights[c]);
        least = key < least ? key : least;
        most = key > most ? key : most;
        items[c] = (uint64_t)key << 32 | (place + (uint32_t)c);
    }
    *low = least;
    *high = most;
}

ROW float height_of(uint32_t key) {
    uint32_t bits = key >> 31 ? key : ~(key | 0x80000000u);
    float height;
    memcpy(&height, &bits, 4);
    return height;
}

/* ---- labels to bytes: T is the unsigned type of a label's size ---- */

#define LABEL_ROWS(T)                                                                                                 \
    CLONES ROW void differ_##T(ptrdiff_t n, const T *RESTRICT a, const T *RESTRICT b, uint8_t *RESTRICT out) {        \
        for (ptrdiff_t c = 0; c < n; c++)                                                                             \
            out[c] = a[c] != b[c];                                                                                    \
    }                                                                                                                 \
    CLONES ROW void occupied_##T(ptrdiff_t n, const T *RESTRICT a, uint8_t *RESTRICT out) {                           \
        for (ptrdiff_t c = 0; c < n; c++)                                                                             \
            out[c] = a[c] != 0;                                                                                       \
    }

LABEL_ROWS(uint8_t)
LABEL_ROWS(uint16_t)
LABEL_ROWS(uint32_t)
LABEL_ROWS(uint64_t)

/* out[c] = 1 where labels a and b of `size` bytes differ */
ROW void differ(int size, ptrdiff_t n, const void *a, const void *b, uint8_t *out) {
    switch (size) {
    case 1: differ_uint8_t(n, a, b, out); break;
    case 2: differ_uint16_t(n, a, b, out); break;
    case 4: differ_uint32_t(n, a, b, out); break;
    default: differ_uint64_t(n, a, b, out);
    }
}

/* out[c] = 1 where a is not 0 */
ROW void occupied(int size, ptrdiff_t n, const void *a, uint8_t *out) {
    switch (size) {
    case 1: occupied_uint8_t(n, a, out); break;
    case 2: occupied_uint16_t(n, a, out); break;
    case 4: occupied_uint32_t(n, a, out); break;
    default: occupied_uint64_t(n, a, out);
    }
}

/* rim[c] |= own[c] */
CLONES ROW void mark(ptrdiff_t n, const uint8_t *RESTRICT own, uint8_t *RESTRICT rim) {
    for (ptrdiff_t c = 0; c < n; c++)
        rim[c] |= own[c];
}

/* ---- distances: T holds them, TOP is its largest value and stands for "nothing seen yet" ---- */

#define WIDEN_ROW(T, NAME, WIDE)                                                                                      \
    CLONES ROW void widen_##NAME##_##WIDE(ptrdiff_t n, T most, const T *RESTRICT row, WIDE *RESTRICT out) {           \
        for (ptrdiff_t c = 0; c < n; c++)                                                                             \
            out[c] = (WIDE)(row[c] < most ? row[c] : most);                                                           \
    }

#define DISTANCE_ROWS(T, NAME, TOP)                                                                                   \
    /* out: 0 outside, 1 on the rim of an instance, TOP within */                                                     \
    CLONES ROW void seed_##NAME(ptrdiff_t n, const uint8_t *RESTRICT inside, const uint8_t *RESTRICT rim,             \
                                T *RESTRICT out) {                                                                    \
        for (ptrdiff_t c = 0; c < n; c++) {                                                                           \
            T within = rim[c] ? 1 : TOP;                                                                              \
            out[c] = inside[c] ? within : 0;                                                                          \
        }                                                                                                             \
    }                                                                                                                 \
    /* out = min(own, 1 + the least of the three neighbours in the row visited before) */                             \
    CLONES ROW void relax_##NAME(ptrdiff_t n, const T *RESTRICT before, const T *RESTRICT own, T *RESTRICT out) {     \
        for (ptrdiff_t c = 1; c + 1 < n; c++) {                                                                       \
            T least = before[c - 1] < before[c] ? before[c - 1] : before[c];                                          \
            least = least < before[c + 1] ? least : before[c + 1];                                                    \
            least = (T)((least < TOP - 1 ? least : TOP - 1) + 1);                                                     \
            out[c] = own[c] < least ? own[c] : least;                                                                 \
        }                                                                                                             \
        for (ptrdiff_t c = 0; c < n; c += n > 1 ? n - 1 : 1) {                                                        \
            T least = before[c];                                                                                      \
            if (c > 0 && before[c - 1] < least)                                                                       \
                least = before[c - 1];                                                                                \
            if (c + 1 < n && before[c + 1] < least)                                                                   \
                least = before[c + 1];                                                                                \
            least = (T)((least < TOP - 1 ? least : TOP - 1) + 1);                                                     \
            out[c] = own[c] < least ? own[c] : least;                                                                 \
        }                                                                                                             \
    }                                                                                                                 \
    CLONES ROW T highest_##NAME(ptrdiff_t n, const T *RESTRICT row) {                                                 \
        T high = 0;                                                                                                   \
        for (ptrdiff_t c = 0; c < n; c++)                                                                             \
            high = row[c] > high ? row[c] : high;                                                                     \
        return high;                                                                                                  \
    }                                                                                                                 \
    /* out[c] = min(row[c], row[c - step] + step, row[c + step] + step), step <= n */                                 \
    CLONES ROW void spread_##NAME(ptrdiff_t n, ptrdiff_t step, const T *RESTRICT row, T *RESTRICT out) {              \
        ptrdiff_t low = step < n - step ? step : n - step, high = n - low;                                            \
        T add = (T)step, cap = (T)(TOP - add);                                                                        \
        for (ptrdiff_t c = 0; c < low; c++) {                                                                         \
            T far = (T)((row[c + step] < cap ? row[c + step] : cap) + add);                                           \
            out[c] = row[c] < far ? row[c] : far;                                                                     \
        }                                                                                                             \
        if (low == step)                                                                                              \
            for (ptrdiff_t c = low; c < high; c++) {                                                                  \
                T far = row[c - step] < row[c + step] ? row[c - step] : row[c + step];                                \
                far = (T)((far < cap ? far : cap) + add);                                                             \
                out[c] = row[c] < far ? row[c] : far;                                                                 \
            }                                                                                                         \
        else                                                                                                          \
            for (ptrdiff_t c = low; c < high; c++)                                                                    \
                out[c] = row[c];                                                                                      \
        for (ptrdiff_t c = high; c < n; c++) {                                                                        \
            T far = (T)((row[c - step] < cap ? row[c - step] : cap) + add);                                           \
            out[c] = row[c] < far ? row[c] : far;                                                                     \
        }                                                                                                             \
    }                                                                                                                 \
    WIDEN_ROW(T, NAME, uint8_t)                                                                                       \
    WIDEN_ROW(T, NAME, uint16_t)                                                                                      \
    WIDEN_ROW(T, NAME, uint32_t)                                                                                      \
    WIDEN_ROW(T, NAME, uint64_t)                                                                                      \
    /* out[c] = min(row[c], most) in `size` bytes */                                                                  \
    ROW void widen_##NAME(int size, ptrdiff_t n, T most, const T *row, void *out) {                                   \
        switch (size) {                                                                                               \
        case 1: widen_##NAME##_uint8_t(n, most, row, out); break;                                                     \
        case 2: widen_##NAME##_uint16_t(n, most, row, out); break;                                                    \
        case 4: widen_##NAME##_uint32_t(n, most, row, out); break;                                                    \
        default: widen_##NAME##_uint64_t(n, most, row, out);                                                          \
        }                                                                                                             \
    }

DISTANCE_ROWS(uint8_t, u8, UINT8_MAX)
DISTANCE_ROWS(uint16_t, u16, UINT16_MAX)

#endif
