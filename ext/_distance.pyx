# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False
"""Kernel of nuclix.ext.distance; preconditions are checked there."""

from libc.stdint cimport uint16_t, uint64_t


cdef inline void step(const uint64_t[:, ::1] labels, uint16_t[:, ::1] out, Py_ssize_t row, Py_ssize_t col,
                      Py_ssize_t side) noexcept nogil:
    """Relax one pixel from the four neighbours that a pass in direction `side` has already visited."""
    cdef Py_ssize_t height = labels.shape[0], width = labels.shape[1]
    cdef Py_ssize_t k, r, c
    cdef uint16_t best = out[row, col], candidate
    for k in range(4):
        r = row if k == 3 else row + side
        c = col + side if k == 3 else col + k - 1
        if r < 0 or r >= height or c < 0 or c >= width:
            continue
        candidate = out[r, c] if labels[r, c] == labels[row, col] else <uint16_t> 0
        if candidate < best:
            best = <uint16_t> (candidate + 1)
    out[row, col] = best


def instance_distance(const uint64_t[:, ::1] labels, uint16_t[:, ::1] out, uint16_t infinity):
    """Fill `out` with chessboard distances to the nearest pixel of another label."""
    cdef Py_ssize_t height = labels.shape[0], width = labels.shape[1], row, col
    with nogil:
        for row in range(height):
            for col in range(width):
                out[row, col] = 0 if labels[row, col] == 0 else <uint16_t> infinity
                if labels[row, col]:
                    step(labels, out, row, col, -1)
        for row in range(height - 1, -1, -1):
            for col in range(width - 1, -1, -1):
                if labels[row, col]:
                    step(labels, out, row, col, 1)
