# Connected components of a mask as runs: what finds, counts and paints them.
# Included after _mask_runs.pxi.

from libc.stdint cimport int64_t
from libc.stdlib cimport malloc
from libc.string cimport memset

cdef extern from "_rows.h" nogil:
    void occupied(int size, Py_ssize_t n, const void* a, uint8_t* out)


cdef int find_components(const uint8_t* mask, Py_ssize_t height, Py_ssize_t width, bint corners, Runs* runs) noexcept nogil:
    """Find and join the runs of a mask; return -1 without memory."""
    cdef uint8_t* inside = <uint8_t*> malloc(width + 16)
    cdef int32_t* edges = <int32_t*> malloc((width + 2) * sizeof(int32_t))
    cdef Py_ssize_t row
    cdef int status = -1 if inside == NULL or edges == NULL else 0
    if status == 0:
        memset(inside, 0, width + 16)
        for row in range(height):
            occupied(1, width, mask + row * width, inside)
            status = add_row(runs, <int32_t> row, width, inside, edges, corners)
            if status:
                break
    free(inside)
    free(edges)
    return status


cdef void find_areas(Runs* runs, int64_t* areas) noexcept nogil:
    """Count the pixels of every component at its first run; every run's parent becomes that run."""
    cdef Py_ssize_t k
    cdef Run* run
    for k in range(runs.count):
        run = &runs.items[k]
        if run.parent == k:
            areas[k] = 0
        else:
            run.parent = runs.items[run.parent].parent
        areas[run.parent] += run.stop - run.start


cdef int32_t paint(Runs* runs, const int64_t* areas, int64_t min_area, int32_t* out, Py_ssize_t width) noexcept nogil:
    """Number components in raster order and write their runs; return how many there are.

    Where `areas` is not NULL, components of fewer than `min_area` pixels are left out.
    """
    cdef Py_ssize_t k, col
    cdef int32_t count = 0, label
    cdef int32_t* line
    cdef Run* run
    for k in range(runs.count):
        run = &runs.items[k]
        if run.parent != k:
            label = runs.items[run.parent].parent
        elif areas != NULL and areas[k] < min_area:
            label = 0
        else:
            count += 1
            label = count
        run.parent = label
        if label == 0:
            continue
        line = out + run.row * width
        for col in range(run.start, run.stop):
            line[col] = label
    return count
