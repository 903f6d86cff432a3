# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False, cdivision=True
"""Kernel of nuclix.ext.gradient_energy; preconditions are checked there."""

from libc.math cimport INFINITY
from libc.stdint cimport int32_t, uint8_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memset

cdef extern from "_binomial.h" nogil:
    void filter_columns(Py_ssize_t n, Py_ssize_t pitch, int radius, float sign, const float* weights,
                        const float* rows, float* out)
    void filter_row(Py_ssize_t n, int radius, float sign, const float* weights, const float* line, float* out)
    void invert_row(Py_ssize_t n, const float* row, const uint8_t* mask, float* out)
    void binomial_row(Py_ssize_t n, const float* above, const float* row, const float* below, const uint8_t* mask,
                      float* sums, float* out)


cdef bint extent(const int32_t* clumps, Py_ssize_t width, Py_ssize_t* first, Py_ssize_t* last) noexcept nogil:
    """Find the columns first..last-1 of a row that hold all its clumps; return whether there are any."""
    first[0], last[0] = 0, width
    while first[0] < width and clumps[first[0]] == 0:
        first[0] += 1
    while last[0] > first[0] and clumps[last[0] - 1] == 0:
        last[0] -= 1
    return first[0] < width


def gradient(const float[:, ::1] image, const int32_t[:, ::1] clumps, const float[::1] across,
             const float[::1] along, bint downwards, float[:, ::1] out):
    """Filter the rows of `image` that hold clumps; `image` has a margin of the filters' radius around `clumps`.

    `across` (between rows) and `along` (a row) are a binomial and its difference, or the other way for `downwards`.
    """
    cdef Py_ssize_t height = clumps.shape[0], width = clumps.shape[1], row, first, last
    cdef int radius = <int> (across.shape[0] // 2)
    cdef float* line = <float*> malloc((width + 2 * radius) * sizeof(float))
    if line == NULL:
        raise MemoryError("no memory for a row")
    with nogil:
        for row in range(height):
            if extent(&clumps[row, 0], width, &first, &last):
                filter_columns(last - first + 2 * radius, image.shape[1], radius, -1 if downwards else 1, &across[0],
                               &image[row, first], line)
                filter_row(last - first, radius, 1 if downwards else -1, &along[0], line, &out[row, first])
        free(line)


cdef void find_limits(const int32_t* clumps, const float* image, Py_ssize_t size, Py_ssize_t count, float* low,
                      float* high) noexcept nogil:
    """Fill in the least and the largest value of every clump's pixels."""
    cdef Py_ssize_t k
    cdef int32_t clump
    for k in range(count + 1):
        low[k], high[k] = INFINITY, -INFINITY
    for k in range(size):
        clump = clumps[k]
        if clump:
            low[clump] = min(low[clump], image[k])
            high[clump] = max(high[clump], image[k])


cdef inline float share(float value, float low, float high) noexcept nogil:
    """Return how far below the highest the value lies, 0..1."""
    return (high - value) / (high - low) if high > low else 0


def energy(const float[:, ::1] along_rows, const float[:, ::1] along_cols, const int32_t[:, ::1] clumps,
           Py_ssize_t count, float low, float high, float[:, ::1] out):
    """Write the larger share of the two gradients below the highest into the pixels of clumps.

    `low` and `high` are the gradients' limits; where `high` is not greater, each clump has its own.
    """
    cdef Py_ssize_t size = clumps.shape[0] * clumps.shape[1], k
    cdef const int32_t* owner = &clumps[0, 0]
    cdef const float* one = &along_rows[0, 0]
    cdef const float* two = &along_cols[0, 0]
    cdef float* target = &out[0, 0]
    cdef float* limits = <float*> malloc(4 * (count + 1) * sizeof(float))
    cdef Py_ssize_t step = count + 1
    cdef int32_t c
    cdef float value
    if limits == NULL:
        raise MemoryError("no memory for the limits of clumps")
    with nogil:
        if high > low:
            for k in range(step):
                limits[k] = limits[2 * step + k] = low
                limits[step + k] = limits[3 * step + k] = high
        else:
            find_limits(owner, one, size, count, limits, limits + step)
            find_limits(owner, two, size, count, limits + 2 * step, limits + 3 * step)
        for k in range(size):
            c = owner[k]
            if c:
                value = max(share(one[k], limits[c], limits[step + c]),
                            share(two[k], limits[2 * step + c], limits[3 * step + c]))
                target[k] = min(max(value, 0), 1)
        free(limits)


def smoothed_inverse(const float[:, ::1] image, const uint8_t[:, ::1] mask, float[:, ::1] out):
    """Write minus the 3 x 3 binomial mean of (1 - image) inside the mask; beyond the mask and the array it is 0."""
    cdef Py_ssize_t height = mask.shape[0], width = mask.shape[1], row
    # Three rows of (1 - image), each followed by a zero that is the margin of the next; one of their sums
    cdef Py_ssize_t pitch = width + 1
    cdef float* rows = <float*> calloc(4 * pitch + 2, sizeof(float))
    cdef float* sums = rows + 3 * pitch + 1
    if rows == NULL:
        raise MemoryError("no memory for rows")
    with nogil:
        invert_row(width, &image[0, 0], &mask[0, 0], rows)
        for row in range(height):
            if row + 1 < height:
                invert_row(width, &image[row + 1, 0], &mask[row + 1, 0], rows + (row + 1) % 3 * pitch)
            else:
                memset(rows + (row + 1) % 3 * pitch, 0, width * sizeof(float))
            binomial_row(width, rows + (row + 2) % 3 * pitch, rows + row % 3 * pitch, rows + (row + 1) % 3 * pitch,
                         &mask[row, 0], sums, &out[row, 0])
        free(rows)


cdef void flood_outside(uint8_t* frame, Py_ssize_t height, Py_ssize_t width, int32_t* stack) noexcept nogil:
    """Set the zeros of a frame that are 4-connected with its first to 2; its outermost pixels are zeros."""
    cdef Py_ssize_t filled = 1, at, near
    cdef Py_ssize_t[4] steps
    cdef int side
    steps[0], steps[1], steps[2], steps[3] = 1, -1, width, -width
    stack[0], frame[0] = 0, 2
    while filled:
        filled -= 1
        at = stack[filled]
        for side in range(4):
            near = at + steps[side]
            if 0 <= near < height * width and frame[near] == 0:
                frame[near] = 2
                stack[filled] = <int32_t> near
                filled += 1


def fill_holes(int32_t[:, ::1] labels, const int32_t[:, ::1] clumps, const int32_t[:, ::1] boxes):
    """Give every label the pixels of its clump that it encloses; a label's pixels lie in one clump.

    Labels are filled in rising order; `boxes` are their first and end rows and columns.
    """
    cdef Py_ssize_t k, row, col, top, left, height, width, at, room = 0
    cdef uint8_t* frame = NULL
    cdef int32_t* stack = NULL
    cdef int32_t owner
    cdef int status = 0
    with nogil:
        for k in range(1, boxes.shape[0]):
            top, left = boxes[k, 0], boxes[k, 1]
            height, width = boxes[k, 2] - top + 2, boxes[k, 3] - left + 2
            if height < 5 or width < 5:             # a hole needs a pixel on either side
                continue
            if height * width > room:
                room = 2 * height * width
                free(frame)
                free(stack)
                frame = <uint8_t*> malloc(room)
                stack = <int32_t*> malloc(room * sizeof(int32_t))
                if frame == NULL or stack == NULL:
                    status = -1
                    break
            owner = 0
            for at in range(height * width):
                frame[at] = 0
            for row in range(1, height - 1):
                for col in range(1, width - 1):
                    if labels[top + row - 1, left + col - 1] == k:
                        frame[row * width + col] = 1
                        owner = clumps[top + row - 1, left + col - 1]
            flood_outside(frame, height, width, stack)
            for row in range(1, height - 1):
                for col in range(1, width - 1):
                    if frame[row * width + col] == 0 and clumps[top + row - 1, left + col - 1] == owner:
                        labels[top + row - 1, left + col - 1] = <int32_t> k
        free(frame)
        free(stack)
    if status:
        raise MemoryError("no memory to fill the holes of labels")
