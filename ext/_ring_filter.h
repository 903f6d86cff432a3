/* The low-pass filter of smooth outlines, vectorised by the compiler; see _rows.h for CLONES. */
#ifndef NUCLIX_RING_FILTER_H
#define NUCLIX_RING_FILTER_H

#include "_rows.h"

/* out[i] = (-1, 4, 10, 4, -1) / 16 around values[i]; two values more on either side are read. */
CLONES ROW void filter_ring(ptrdiff_t n, const double *RESTRICT values, double *RESTRICT out) {
    for (ptrdiff_t i = 0; i < n; i++)
        out[i] = (10 * values[i] + 4 * (values[i - 1] + values[i + 1]) - (values[i - 2] + values[i + 2])) / 16;
}

#endif
