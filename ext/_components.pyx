# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False, cdivision=True
"""Kernels of nuclix.ext.components and nuclix.ext.boxes; preconditions are checked there.

Input: a mask, or labels. Output: labels of connected components; bounding boxes of labels.
Run-based labelling: rows become runs, runs of neighbouring rows are joined with union-find under the run that comes
first, and one sweep over the runs numbers and paints them. Its cost follows the runs, not the pixels.
"""

from libc.stdint cimport int64_t
from libc.stdlib cimport calloc, malloc
from libc.string cimport memset

import numpy as np

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


cdef enum Side:
    TOP = 1
    BOTTOM = 2
    LEFT = 4
    RIGHT = 8

cdef struct Block:          # a mask whose components may go on behind some of its sides
    Py_ssize_t height
    Py_ssize_t width
    int sides               # behind which the image goes on
    int32_t open            # components that touch one of them
    Py_ssize_t closed       # runs of the others
    int32_t* numbers        # (runs,) number from 1 of each run's open component, in raster order; 0: closed


cdef inline bint is_open(const Block* block, const Run* run) noexcept nogil:
    return ((block.sides & TOP and run.row == 0) or (block.sides & BOTTOM and run.row == block.height - 1)
            or (block.sides & LEFT and run.start == 0) or (block.sides & RIGHT and run.stop == block.width))


cdef int number_open(Block* block, Runs* runs) noexcept nogil:
    """Number the open components; every run's parent becomes its component's first run. Return -1 without memory."""
    cdef Py_ssize_t k
    block.numbers = <int32_t*> calloc(runs.count + 1, sizeof(int32_t))
    if block.numbers == NULL:
        return -1
    for k in range(runs.count):
        if runs.items[k].parent != k:
            runs.items[k].parent = runs.items[runs.items[k].parent].parent
        if is_open(block, &runs.items[k]):
            block.numbers[runs.items[k].parent] = 1
    for k in range(runs.count):
        if runs.items[k].parent == k:
            if block.numbers[k]:
                block.open += 1
                block.numbers[k] = block.open
        else:
            block.numbers[k] = block.numbers[runs.items[k].parent]
        block.closed += block.numbers[k] == 0
    return 0


cdef void paint_closed(const Block* block, const Runs* runs, uint8_t* closed) noexcept nogil:
    cdef Py_ssize_t k
    cdef const Run* run
    for k in range(runs.count):
        run = &runs.items[k]
        if not block.numbers[k]:
            memset(closed + run.row * block.width + run.start, 1, run.stop - run.start)


cdef void measure_open(const Block* block, const Runs* runs, int32_t[:, ::1] boxes, int64_t[::1] ends,
                       int32_t[::1] rows, int32_t[::1] cols) noexcept nogil:
    """Find the open components' boxes, and add up their pixels behind `ends[0]`; list their numbers along the sides."""
    cdef Py_ssize_t k, col
    cdef int32_t number
    cdef const Run* run
    for k in range(runs.count):
        number = block.numbers[k]
        if not number:
            continue
        run = &runs.items[k]
        boxes[number - 1, 0] = min(boxes[number - 1, 0], run.row)
        boxes[number - 1, 1] = min(boxes[number - 1, 1], run.start)
        boxes[number - 1, 2] = max(boxes[number - 1, 2], run.row + 1)
        boxes[number - 1, 3] = max(boxes[number - 1, 3], run.stop)
        ends[number] += run.stop - run.start
        if run.row == 0:
            for col in range(run.start, run.stop):
                cols[col] = number
        if run.row == block.height - 1:
            for col in range(run.start, run.stop):
                cols[block.width + col] = number
        if run.start == 0:
            rows[run.row] = number
        if run.stop == block.width:
            rows[block.height + run.row] = number
    for k in range(1, block.open + 1):
        ends[k] += ends[k - 1]


cdef void list_open(const Block* block, const Runs* runs, const int32_t[:, ::1] boxes, int64_t[::1] at,
                    int32_t[::1] pixels) noexcept nogil:
    """List the pixels of each open component as flat indices into its box; `at` is where each list begins."""
    cdef Py_ssize_t k
    cdef int32_t number, place, col
    cdef const Run* run
    for k in range(runs.count):
        number = block.numbers[k]
        if not number:
            continue
        run = &runs.items[k]
        place = (run.row - boxes[number - 1, 0]) * (boxes[number - 1, 3] - boxes[number - 1, 1]) - boxes[number - 1, 1]
        for col in range(run.start, run.stop):
            pixels[at[number - 1]] = place + col
            at[number - 1] += 1


def block_clumps(const uint8_t[:, ::1] mask, uint8_t[:, ::1] closed, int sides):
    """Tell the 8-connected components of `mask`, which is not empty, that touch one of `sides` from the others.

    The others are written into `closed`, which is zero. Returns whether there are any, and of the open ones in raster
    order: boxes (n, 4), ends of their lists (n + 1,), pixels as flat indices into the boxes, and their numbers from 1
    along the left and right (2, height) and along the upper and lower side (2, width).
    """
    cdef Runs runs
    cdef Block block
    cdef int status
    memset(&runs, 0, sizeof(Runs))
    memset(&block, 0, sizeof(Block))
    block.height, block.width, block.sides = mask.shape[0], mask.shape[1], sides
    rows, cols = np.zeros(2 * block.height, np.int32), np.zeros(2 * block.width, np.int32)
    try:
        with nogil:
            status = find_components(&mask[0, 0], block.height, block.width, True, &runs)
            if status == 0:
                status = number_open(&block, &runs)
            if status == 0 and block.closed:
                paint_closed(&block, &runs, &closed[0, 0])
        if status:
            raise MemoryError("no memory for the runs of a mask")
        boxes, ends = np.zeros((block.open, 4), np.int32), np.zeros(block.open + 1, np.int64)
        boxes[:, :2] = mask.shape[0], mask.shape[1]
        measure_open(&block, &runs, boxes, ends, rows, cols)
        pixels = np.empty(ends[-1], np.int32)
        list_open(&block, &runs, boxes, ends.copy(), pixels)
        return block.closed > 0, boxes, ends, pixels, rows.reshape(2, -1), cols.reshape(2, -1)
    finally:
        free(block.numbers)
        free(runs.items)


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


def label_totals(const int32_t[:, ::1] labels, const float[:, ::1] values, double[::1] sums, int64_t[::1] areas):
    """Add every label's values to `sums`, one after the other, and its pixels to `areas`; 0 is left out.

    Precondition: labels lie in 0..len(sums) - 1.
    """
    cdef Py_ssize_t height = labels.shape[0], width = labels.shape[1], r, c, start
    cdef int32_t label
    cdef double total
    with nogil:
        for r in range(height):
            c = 0
            while c < width:
                label = labels[r, c]
                if label == 0:
                    c += 1
                    continue
                start = c
                total = sums[label]
                while c < width and labels[r, c] == label:
                    total += values[r, c]
                    c += 1
                sums[label] = total
                areas[label] += c - start


def rename_labels(const int32_t[:, ::1] labels, const int32_t[::1] names, int32_t[:, ::1] out):
    """Set out to names[label], pixel by pixel. Precondition: labels lie in 0..len(names) - 1."""
    cdef Py_ssize_t height = labels.shape[0], width = labels.shape[1], r, c
    with nogil:
        for r in range(height):
            for c in range(width):
                out[r, c] = names[labels[r, c]]
