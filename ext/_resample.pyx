# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False, cdivision=True
"""Kernels of nuclix.ext.resample; preconditions are checked there."""

from libc.stdint cimport int16_t, int32_t, int64_t, uint8_t, uint32_t
from libc.stdlib cimport free, malloc
from libc.string cimport memset


cdef inline void add_row(uint32_t* sums, const uint8_t* row, Py_ssize_t n) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(n):
        sums[i] += row[i]


cdef inline void add_weighted(int32_t* sums, const uint8_t* row, int16_t weight, Py_ssize_t n) noexcept nogil:
    # 16-bit factors: SSE2, which every x86-64 has, multiplies those eight at a time
    cdef Py_ssize_t i
    for i in range(n):
        sums[i] += <int32_t> (<int16_t> row[i] * weight)


def box_mean(const uint8_t[:, :, ::1] image, Py_ssize_t factor, uint8_t[:, :, ::1] out):
    """Write to `out` the means of factor x factor pixels of `image`, rounded half up."""
    cdef Py_ssize_t height = out.shape[0], width = out.shape[1], line = image.shape[1] * 3, row, col, k
    cdef uint32_t area = factor * factor, half = area // 2, red, green, blue
    cdef double divisor = area  # of integers below 2 ** 32 the quotient's floor is exact, and faster than theirs
    cdef uint32_t* sums = <uint32_t*> malloc(line * sizeof(uint32_t))
    cdef uint32_t* at
    if sums == NULL:
        raise MemoryError
    with nogil:
        for row in range(height):
            memset(sums, 0, line * sizeof(uint32_t))
            for k in range(factor):
                add_row(sums, &image[row * factor + k, 0, 0], line)
            at = sums
            for col in range(width):
                red = green = blue = half
                for k in range(factor):
                    red += at[0]
                    green += at[1]
                    blue += at[2]
                    at += 3
                out[row, col, 0] = <uint8_t> (red / divisor)
                out[row, col, 1] = <uint8_t> (green / divisor)
                out[row, col, 2] = <uint8_t> (blue / divisor)
        free(sums)


def separable(
    const uint8_t[:, :, ::1] image,
    const int64_t[::1] tops,
    const int16_t[:, ::1] row_weights,
    const int64_t[::1] lefts,
    const int16_t[:, ::1] col_weights,
    int bits,
    uint8_t[:, :, ::1] out,
):
    """Weigh rows, then columns of `image` into `out`; either axis' weights sum to 2 ** bits."""
    cdef Py_ssize_t height = out.shape[0], width = out.shape[1], line = image.shape[1] * 3, row, col, k
    cdef Py_ssize_t row_taps = row_weights.shape[1], col_taps = col_weights.shape[1]
    cdef int32_t half = 1 << (2 * bits - 1), red, green, blue, weight
    cdef int32_t* sums = <int32_t*> malloc(line * sizeof(int32_t))
    cdef int32_t* at
    if sums == NULL:
        raise MemoryError
    with nogil:
        for row in range(height):
            memset(sums, 0, line * sizeof(int32_t))
            for k in range(row_taps):
                if row_weights[row, k]:
                    add_weighted(sums, &image[tops[row] + k, 0, 0], row_weights[row, k], line)
            for col in range(width):
                red = green = blue = half
                at = sums + 3 * lefts[col]
                for k in range(col_taps):
                    weight = col_weights[col, k]
                    red += weight * at[0]
                    green += weight * at[1]
                    blue += weight * at[2]
                    at += 3
                out[row, col, 0] = <uint8_t> (red >> (2 * bits))
                out[row, col, 1] = <uint8_t> (green >> (2 * bits))
                out[row, col, 2] = <uint8_t> (blue >> (2 * bits))
        free(sums)
