# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False
"""Kernel of nuclix.ext.dynamics; preconditions are checked there."""

from libc.stdint cimport int32_t, int64_t, uint8_t
from libc.stdlib cimport free, malloc


cdef struct Basin:
    int32_t parent
    int64_t peak      # rank of the highest pixel
    int64_t joined    # rank at which its pixels joined another basin; 0: pixels of the peak's own plateau


cdef inline int32_t find(Basin* basins, int32_t node) noexcept nogil:
    cdef int32_t up = basins[node].parent
    while basins[up].parent != up:
        basins[node].joined = basins[up].joined
        basins[node].parent = basins[up].parent
        up = basins[node].parent
    return up


def dynamics_watershed(const float[::1] values, const int64_t[::1] order, int64_t[::1] ranks, int32_t[::1] out,
                       int32_t[::1] parents, int64_t[::1] peaks, Py_ssize_t stride, double h, int neighbours):
    """Flood `values` (padded, flat) from high to low along `order`; return the number of basins."""
    cdef Py_ssize_t offsets[8]
    cdef Py_ssize_t i, k, p, q, best
    cdef int64_t latest, when
    cdef int32_t count = 0, root, top
    cdef Basin* basins = <Basin*> malloc((order.shape[0] + 2) * sizeof(Basin))
    if basins == NULL:
        raise MemoryError
    for k, p in enumerate((-1, 1, -stride, stride, -1 - stride, 1 - stride, stride - 1, stride + 1)):
        offsets[k] = p
    with nogil:
        for i in range(order.shape[0]):
            p = order[i]
            # The basin that a flood reaches first: the highest grown one, or else the highest peak.
            top = 0
            latest = 0
            for k in range(neighbours):
                q = p + offsets[k]
                if out[q] == 0:
                    continue
                root = find(basins, out[q])
                if <double> values[order[basins[root].peak]] - <double> values[p] > h:
                    when = ranks[q]
                    if root != out[q] and basins[out[q]].joined > when:
                        when = basins[out[q]].joined
                    if top == 0 or when < latest:
                        top = root
                        latest = when
            if top == 0:
                for k in range(neighbours):
                    q = p + offsets[k]
                    if out[q]:
                        root = find(basins, out[q])
                        if top == 0 or basins[root].peak < basins[top].peak:
                            top = root
            if top == 0:
                count += 1
                basins[count].parent = count
                basins[count].peak = i
                basins[count].joined = 0
                top = count
            for k in range(neighbours):
                q = p + offsets[k]
                if out[q] == 0:
                    continue
                root = find(basins, out[q])
                if root != top and not (<double> values[order[basins[root].peak]] - <double> values[p] > h):
                    basins[root].parent = top
                    basins[root].joined = 0 if values[order[basins[top].peak]] == values[p] else i
            out[p] = top
            ranks[p] = i
        for k in range(1, count + 1):
            root = find(basins, <int32_t> k)
            parents[k] = root
            peaks[k] = order[basins[k].peak]
        free(basins)
    return count
