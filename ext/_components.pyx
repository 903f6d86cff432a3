# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False, cdivision=True
"""Kernel of nuclix.ext.components; preconditions are checked there.

Run-based labelling: rows become runs, runs of neighbouring rows are joined with union-find under the run that comes
first, and one sweep over the runs numbers and paints them. Its cost follows the runs, not the pixels.
"""

from libc.stdlib cimport malloc
from libc.string cimport memset

include "_mask_runs.pxi"

cdef extern from "_rows.h" nogil:
    void occupied(int size, Py_ssize_t n, const void* a, uint8_t* out)


cdef int gather(const uint8_t* mask, Py_ssize_t height, Py_ssize_t width, bint corners, Runs* runs) noexcept nogil:
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


cdef int32_t paint(Runs* runs, int32_t* out, Py_ssize_t width) noexcept nogil:
    """Number components in raster order and write their runs; return how many there are."""
    cdef Py_ssize_t k, col
    cdef int32_t count = 0, label
    cdef int32_t* line
    cdef Run* run
    for k in range(runs.count):
        run = &runs.items[k]
        if run.parent == k:
            count += 1
            label = count
        else:
            label = runs.items[run.parent].parent
        run.parent = label
        line = out + run.row * width
        for col in range(run.start, run.stop):
            line[col] = label
    return count


def connected_components(const uint8_t[:, ::1] mask, int32_t[:, ::1] out, bint corners):
    """Label `mask`, which is not empty, into `out`, which is zero; return the number of components."""
    cdef Runs runs
    cdef int status
    cdef int32_t count = 0
    memset(&runs, 0, sizeof(Runs))
    with nogil:
        status = gather(&mask[0, 0], mask.shape[0], mask.shape[1], corners, &runs)
        if status == 0:
            count = paint(&runs, &out[0, 0], mask.shape[1])
        free(runs.items)
    if status:
        raise MemoryError("no memory for the runs of a mask")
    return count
