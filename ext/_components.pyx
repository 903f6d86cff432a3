# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False
"""Kernel of nuclix.ext.components; preconditions are checked there."""

from libc.stdint cimport int32_t, uint8_t
from libc.stdlib cimport free, malloc


cdef inline int32_t find(int32_t* parent, int32_t node) noexcept nogil:
    while parent[node] != node:
        parent[node] = parent[parent[node]]
        node = parent[node]
    return node


cdef inline int32_t join(int32_t* parent, int32_t a, int32_t b) noexcept nogil:
    """Join two trees under the smaller root, which lies first in raster order."""
    a, b = find(parent, a), find(parent, b)
    if a < b:
        parent[b] = a
        return a
    parent[a] = b
    return b


def connected_components(const uint8_t[:, ::1] mask, int32_t[:, ::1] out, bint corners):
    """Label `mask` into `out` (zeros); return the number of components."""
    cdef Py_ssize_t height = mask.shape[0], width = mask.shape[1], row, col, k, c
    cdef int32_t count = 0, final = 0, label, node
    cdef int32_t* parent = <int32_t*> malloc((height * width // 2 + 2) * sizeof(int32_t))
    if parent == NULL:
        raise MemoryError
    with nogil:
        parent[0] = 0
        for row in range(height):
            for col in range(width):
                if not mask[row, col]:
                    continue
                label = out[row, col - 1] if col else 0
                if row:
                    for k in range(-1, 2):
                        c = col + k
                        if (k != 0 and not corners) or c < 0 or c >= width or not out[row - 1, c]:
                            continue
                        label = join(parent, label, out[row - 1, c]) if label else out[row - 1, c]
                if not label:
                    count += 1
                    parent[count] = count
                    label = count
                out[row, col] = label
        for node in range(1, count + 1):
            if parent[node] == node:
                final += 1
                parent[node] = final
            else:
                parent[node] = parent[parent[node]]
        for row in range(height):
            for col in range(width):
                out[row, col] = parent[out[row, col]]
        free(parent)
    return final
