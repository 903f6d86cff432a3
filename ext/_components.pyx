# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False, cdivision=True
"""Kernels of nuclix.ext.components and nuclix.ext.boxes; preconditions are checked there.

Input: a mask, or labels. Output: labels of connected components; bounding boxes of labels; the mask of chosen labels.
Run-based labelling: rows become runs, runs of neighbouring rows are joined with union-find under the run that comes
first, and one sweep over the runs numbers and paints them. Its cost follows the runs, not the pixels.
"""

from libc.stdint cimport int64_t
from libc.stdlib cimport malloc
from libc.string cimport memset

include "_mask_runs.pxi"
include "_component_runs.pxi"


def connected_components(const uint8_t[:, ::1] mask, int32_t[:, ::1] out, bint corners, int64_t min_area):
    """Label `mask`, which is not empty, into `out`, which is zero; return the number of components kept."""
    cdef Runs runs
    cdef int64_t* areas = NULL
    cdef int status
    cdef int32_t count = 0
    memset(&runs, 0, sizeof(Runs))
    with nogil:
        status = find_components(&mask[0, 0], mask.shape[0], mask.shape[1], corners, &runs)
        if status == 0 and min_area > 1:
            areas = <int64_t*> malloc((runs.count + 1) * sizeof(int64_t))
            if areas == NULL:
                status = -1
            else:
                find_areas(&runs, areas)
        if status == 0:
            count = paint(&runs, areas, min_area, &out[0, 0], mask.shape[1])
        free(areas)
        free(runs.items)
    if status:
        raise MemoryError("no memory for the runs of a mask")
    return count


def label_boxes(const int32_t[:, ::1] labels, int32_t[:, ::1] boxes):
    """Fill boxes[k] with the (first row, first column, end row, end column) of label k.

    Preconditions: labels lie in 0..len(boxes) - 1, and boxes[k] is (height, width, 0, 0), which stays where there is
    no pixel. One pass; equal neighbours of a row are taken together.
    """
    cdef Py_ssize_t height = labels.shape[0], width = labels.shape[1], r, c, start
    cdef int32_t label
    cdef int32_t *box
    with nogil:
        for r in range(height):
            c = 0
            while c < width:
                label = labels[r, c]
                start = c
                c += 1
                while c < width and labels[r, c] == label:
                    c += 1
                if label == 0:
                    continue
                box = &boxes[label, 0]
                if r < box[0]:
                    box[0] = <int32_t> r
                if start < box[1]:
                    box[1] = <int32_t> start
                box[2] = <int32_t> (r + 1)
                if c > box[3]:
                    box[3] = <int32_t> c


def label_areas(const int32_t[:, ::1] labels, int64_t[::1] areas):
    """Add every label's pixels to `areas`. Precondition: labels lie in 0..len(areas) - 1."""
    cdef Py_ssize_t height = labels.shape[0], width = labels.shape[1], r, c, start
    cdef int32_t label
    with nogil:
        for r in range(height):
            c = 0
            while c < width:
                label = labels[r, c]
                start = c
                c += 1
                while c < width and labels[r, c] == label:
                    c += 1
                areas[label] += c - start


def rename_labels(const int32_t[:, ::1] labels, const int32_t[::1] names, int32_t[:, ::1] out):
    """Set out to names[label], pixel by pixel. Precondition: labels lie in 0..len(names) - 1."""
    cdef Py_ssize_t height = labels.shape[0], width = labels.shape[1], r, c
    with nogil:
        for r in range(height):
            for c in range(width):
                out[r, c] = names[labels[r, c]]


def select_labels(const int32_t[:, ::1] labels, const uint8_t[::1] wanted, uint8_t[:, ::1] mask):
    """Set mask to wanted[label], pixel by pixel. Precondition: labels lie in 0..len(wanted) - 1."""
    cdef Py_ssize_t height = labels.shape[0], width = labels.shape[1], r, c
    with nogil:
        for r in range(height):
            for c in range(width):
                mask[r, c] = wanted[labels[r, c]]
