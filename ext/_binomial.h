/* Rows of the filters and bytes of a gradient energy, vectorised by the compiler; see _rows.h for CLONES. */
#ifndef NUCLIX_BINOMIAL_H
#define NUCLIX_BINOMIAL_H

#include "_rows.h"

enum { LANES = 8, BLOCK = 4 * LANES };

typedef float Lanes __attribute__((vector_size(LANES * sizeof(float)), aligned(sizeof(float))));

#define PART(address, v) (*(const Lanes *)((address) + (v) * LANES))

/* A row of a filter of 2 radius + 1 taps: out[c] = sum over k of weights[radius + k] * row[c + k * pitch], |k| <= radius,
 * from the middle outwards.
 *
 * The weights are symmetric (JOIN is +) or antisymmetric about the middle one (-). The sums of BLOCK columns stay in
 * registers; where the last block does not fit, it begins earlier. */
#define FILTER(NAME, JOIN)                                                                                            \
    CLONES ROW void NAME(ptrdiff_t n, int radius, const float *RESTRICT weights, const float *RESTRICT row,           \
                         ptrdiff_t pitch, float *RESTRICT out) {                                                      \
        for (ptrdiff_t from = 0; from < n && n >= BLOCK; from += BLOCK) {                                             \
            ptrdiff_t c = from + BLOCK <= n ? from : n - BLOCK;                                                       \
            const float *below = row + c, *over = row + c;                                                            \
            Lanes s0 = weights[radius] * PART(below, 0), s1 = weights[radius] * PART(below, 1);                       \
            Lanes s2 = weights[radius] * PART(below, 2), s3 = weights[radius] * PART(below, 3);                       \
            for (int k = 1; k <= radius; k++) {                                                                       \
                const float weight = weights[radius + k];                                                             \
                below += pitch;                                                                                       \
                over -= pitch;                                                                                        \
                s0 += weight * (PART(below, 0) JOIN PART(over, 0));                                                   \
                s1 += weight * (PART(below, 1) JOIN PART(over, 1));                                                   \
                s2 += weight * (PART(below, 2) JOIN PART(over, 2));                                                   \
                s3 += weight * (PART(below, 3) JOIN PART(over, 3));                                                   \
            }                                                                                                         \
            *(Lanes *)(out + c) = s0;                                                                                 \
            *(Lanes *)(out + c + LANES) = s1;                                                                         \
            *(Lanes *)(out + c + 2 * LANES) = s2;                                                                     \
            *(Lanes *)(out + c + 3 * LANES) = s3;                                                                     \
        }                                                                                                             \
        for (ptrdiff_t c = 0; c < n && n < BLOCK; c++)                                                                \
            out[c] = weights[radius] * row[c];                                                                        \
        for (int k = 1; k <= radius && n < BLOCK; k++)                                                                \
            for (ptrdiff_t c = 0; c < n; c++)                                                                         \
                out[c] += weights[radius + k] * (row[c + k * pitch] JOIN row[c - k * pitch]);                         \
    }

FILTER(filter_even, +)
FILTER(filter_odd, -)

/* Widen the limits of two slopes, low and high of one and then of the other; what is no number is passed over. */
ROW void widen_limits(ptrdiff_t n, const float *one, const float *two, float *limits) {
    float low0 = limits[0], high0 = limits[1], low1 = limits[2], high1 = limits[3];
    for (ptrdiff_t c = 0; c < n; c++) {
        low0 = one[c] < low0 ? one[c] : low0;
        high0 = one[c] > high0 ? one[c] : high0;
        low1 = two[c] < low1 ? two[c] : low1;
        high1 = two[c] > high1 ? two[c] : high1;
    }
    limits[0] = low0;
    limits[1] = high0;
    limits[2] = low1;
    limits[3] = high1;
}

/* How far below the highest a slope lies, in parts of `span`. */
ROW float fall(float slope, float high, float span) { return span > 0.0f ? (high - slope) / span : 0.0f; }

/* The energy of n pixels is the larger of two falls, cut to 0..1: `one` becomes 1 - energy, `calm` whether the energy is
 * less than `limit`. */
CLONES ROW void invert_energy(ptrdiff_t n, float *RESTRICT one, const float *RESTRICT two, const float *RESTRICT highs,
                              const float *RESTRICT spans, float limit, uint8_t *RESTRICT calm) {
    for (ptrdiff_t c = 0; c < n; c++) {
        float first = fall(one[c], highs[0], spans[0]), second = fall(two[c], highs[1], spans[1]);
        float energy = second > first ? second : first;
        energy = 0.0f > energy ? 0.0f : energy;
        energy = 1.0f < energy ? 1.0f : energy;
        calm[c] = energy < limit;
        one[c] = 1.0f - energy;
    }
}

/* out[c] = the binomial mean of three rows around column c; sums[-1] and sums[n] are 0. */
CLONES ROW void binomial_row(ptrdiff_t n, const float *RESTRICT above, const float *RESTRICT row,
                             const float *RESTRICT below, float *RESTRICT sums, float *RESTRICT out) {
    for (ptrdiff_t c = 0; c < n; c++)
        sums[c] = 0.25f * above[c] + 0.5f * row[c] + 0.25f * below[c];
    for (ptrdiff_t c = 0; c < n; c++)
        out[c] = 0.25f * sums[c - 1] + 0.5f * sums[c] + 0.25f * sums[c + 1];
}

/* ---- an element of three rows of five pixels with one more above and below, on bytes 0 and 1 ---- */

#define ELEMENT_ROWS(NAME, JOIN)                                                                                      \
    /* out[c] = five pixels around row[c] joined */                                                                   \
    CLONES ROW void NAME##_five(ptrdiff_t n, const uint8_t *RESTRICT row, uint8_t *RESTRICT out) {                    \
        for (ptrdiff_t c = 0; c < n; c++)                                                                             \
            out[c] = row[c - 2] JOIN row[c - 1] JOIN row[c] JOIN row[c + 1] JOIN row[c + 2];                          \
    }                                                                                                                 \
    /* `fives` are three rows of such, `over` and `below` the pixels of the rows two above and below */               \
    CLONES ROW void NAME##_rows(ptrdiff_t n, ptrdiff_t pitch, const uint8_t *RESTRICT over,                           \
                                const uint8_t *RESTRICT fives, const uint8_t *RESTRICT below,                         \
                                uint8_t *RESTRICT out) {                                                              \
        for (ptrdiff_t c = 0; c < n; c++)                                                                             \
            out[c] = over[c] JOIN fives[c] JOIN fives[c + pitch] JOIN fives[c + 2 * pitch] JOIN below[c];             \
    }

ELEMENT_ROWS(erode, &)
ELEMENT_ROWS(dilate, |)

/* out[c] = 1 where row[c] is 0 */
CLONES ROW void empty_bytes(ptrdiff_t n, const uint8_t *RESTRICT row, uint8_t *RESTRICT out) {
    for (ptrdiff_t c = 0; c < n; c++)
        out[c] = row[c] == 0;
}

#endif
