/* Rows of binomial derivative filters, vectorised by the compiler; see _rows.h for CLONES. */
#ifndef NUCLIX_BINOMIAL_H
#define NUCLIX_BINOMIAL_H

#include "_rows.h"

/* out[c] = sum over k of weights[k] * rows[k * pitch + c], k in order; `sign` +1: weights are symmetric, -1:
 * antisymmetric about the middle row, whose weight is then 0. */
CLONES ROW void filter_columns(ptrdiff_t n, ptrdiff_t pitch, int radius, float sign, const float *RESTRICT weights,
                               const float *RESTRICT rows, float *RESTRICT out) {
    const float *middle = rows + radius * pitch;
    for (ptrdiff_t c = 0; c < n; c++)
        out[c] = weights[radius] * middle[c];
    for (int k = 1; k <= radius; k++) {
        const float *below = middle + k * pitch, *over = middle - k * pitch;
        const float weight = weights[radius + k];
        for (ptrdiff_t c = 0; c < n; c++)
            out[c] += weight * (below[c] + sign * over[c]);
    }
}

/* The same along a row: out[c] from in[c .. c + 2 radius]. */
CLONES ROW void filter_row(ptrdiff_t n, int radius, float sign, const float *RESTRICT weights, const float *RESTRICT in,
                           float *RESTRICT out) {
    const float *middle = in + radius;
    for (ptrdiff_t c = 0; c < n; c++)
        out[c] = weights[radius] * middle[c];
    for (int k = 1; k <= radius; k++) {
        const float weight = weights[radius + k];
        for (ptrdiff_t c = 0; c < n; c++)
            out[c] += weight * (middle[c + k] + sign * middle[c - k]);
    }
}

/* out[c] = 1 - row[c] inside the mask, else 0 */
CLONES ROW void invert_row(ptrdiff_t n, const float *RESTRICT row, const uint8_t *RESTRICT mask, float *RESTRICT out) {
    for (ptrdiff_t c = 0; c < n; c++) {
        float inverse = 1.0f - row[c];
        out[c] = mask[c] ? inverse : 0.0f;
    }
}

/* out[c] = minus the binomial mean of three rows around column c inside the mask, else 0; sums[-1] and sums[n] are 0. */
CLONES ROW void binomial_row(ptrdiff_t n, const float *RESTRICT above, const float *RESTRICT row,
                             const float *RESTRICT below, const uint8_t *RESTRICT mask, float *RESTRICT sums,
                             float *RESTRICT out) {
    for (ptrdiff_t c = 0; c < n; c++)
        sums[c] = 0.25f * above[c] + 0.5f * row[c] + 0.25f * below[c];
    for (ptrdiff_t c = 0; c < n; c++) {
        float mean = 0.25f * sums[c - 1] + 0.5f * sums[c] + 0.25f * sums[c + 1];
        out[c] = mask[c] ? -mean : 0.0f;
    }
}

#endif
