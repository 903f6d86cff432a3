# Runs of foreground pixels along rows, joined to components with union-find: what the kernels share.

from libc.stdint cimport int32_t, uint8_t
from libc.stdlib cimport free, realloc

cdef extern from "_rows.h" nogil:
    Py_ssize_t changes(Py_ssize_t n, const uint8_t* row, int32_t* out)

cdef struct Run:            # pixels [start, stop) of a row
    int32_t row
    int32_t start
    int32_t stop
    int32_t parent          # a run of the same component that does not lie behind in raster order

cdef struct Runs:           # in raster order
    Run* items
    Py_ssize_t count
    Py_ssize_t capacity
    Py_ssize_t above        # where the runs of the row added last begin


cdef inline int32_t find_run(Run* runs, int32_t node) noexcept nogil:
    """Return a component's first run, halving the path to it."""
    while runs[node].parent != node:
        runs[node].parent = runs[runs[node].parent].parent
        node = runs[node].parent
    return node


cdef inline void join_runs(Run* runs, int32_t a, int32_t b) noexcept nogil:
    a, b = find_run(runs, a), find_run(runs, b)
    if a < b:
        runs[b].parent = a
    else:
        runs[a].parent = b


cdef void join_rows(Run* runs, int32_t a, int32_t b, int32_t end, bint corners) noexcept nogil:
    """Join the runs [a, b) of a row with the runs [b, end) of the next where they touch."""
    cdef int32_t stop = b, reach = 1 if corners else 0
    while a < stop and b < end:
        if runs[a].start < runs[b].stop + reach and runs[b].start < runs[a].stop + reach:
            join_runs(runs, a, b)
        if runs[a].stop <= runs[b].stop:
            a += 1
        else:
            b += 1


cdef int add_row(Runs* runs, int32_t row, Py_ssize_t width, const uint8_t* inside, int32_t* edges,
                 bint corners) noexcept nogil:
    """Add the runs of a row, given as bytes 0 and 1 with 8 zeros behind; return -1 without memory.

    Rows come one after the other; `edges` is room for width + 1 columns.
    """
    cdef Py_ssize_t count = changes(width, inside, edges) // 2, first = runs.count, k
    cdef Py_ssize_t capacity = max(2 * runs.capacity, first + count)
    cdef Run* items
    cdef Run* run
    if first + count > 0x7FFFFFFF:
        return -1
    if first + count > runs.capacity:
        items = <Run*> realloc(runs.items, capacity * sizeof(Run))
        if items == NULL:
            return -1
        runs.items, runs.capacity = items, capacity
    for k in range(count):
        run = &runs.items[first + k]
        run.row, run.start, run.stop, run.parent = row, edges[2 * k], edges[2 * k + 1], <int32_t> (first + k)
    runs.count = first + count
    join_rows(runs.items, <int32_t> runs.above, <int32_t> first, <int32_t> runs.count, corners)
    runs.above = first
    return 0
