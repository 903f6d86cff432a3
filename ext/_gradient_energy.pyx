# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False, cdivision=True
"""Kernel of nuclix.ext.gradient_energy; preconditions are checked there.

The mask becomes runs, joined twice: by edges to pieces, whose area decides which are kept, and by corners too to clumps,
which have limits of their own. Whatever is only of interest inside clumps is done run by run.
"""

from libc.math cimport INFINITY
from libc.stdlib cimport calloc
from libc.string cimport memmove

include "_mask_runs.pxi"
include "_component_runs.pxi"

cdef extern from "_binomial.h" nogil:
    void filter_even(Py_ssize_t n, int radius, const float* weights, const float* row, Py_ssize_t pitch, float* out)
    void filter_odd(Py_ssize_t n, int radius, const float* weights, const float* row, Py_ssize_t pitch, float* out)
    void widen_limits(Py_ssize_t n, const float* one, const float* two, float* limits)
    void invert_energy(Py_ssize_t n, float* one, const float* two, const float* highs, const float* spans, float limit,
                       uint8_t* calm)
    void binomial_row(Py_ssize_t n, const float* above, const float* row, const float* below, float* sums, float* out)
    void erode_five(Py_ssize_t n, const uint8_t* row, uint8_t* out)
    void dilate_five(Py_ssize_t n, const uint8_t* row, uint8_t* out)
    void erode_rows(Py_ssize_t n, Py_ssize_t pitch, const uint8_t* over, const uint8_t* fives, const uint8_t* below,
                    uint8_t* out)
    void dilate_rows(Py_ssize_t n, Py_ssize_t pitch, const uint8_t* over, const uint8_t* fives, const uint8_t* below,
                     uint8_t* out)
    void empty_bytes(Py_ssize_t n, const uint8_t* row, uint8_t* out)

cdef enum:
    MARGIN = 2              # px that the element of the opening reaches, and that frames of bytes have on every side

cdef struct Clumps:         # of an image of this size
    Py_ssize_t height
    Py_ssize_t width
    Runs runs               # `parent`: the first run of the clump; -1: the piece is too small
    Py_ssize_t* starts      # of each row's runs, and the end of the last row's
    float* limits           # of each first run: low and high of one slope, then of the other

cdef struct Filter:
    int radius
    const float* smooth
    const float* slope
    float* line             # a row and `radius` px on either side
    float* rows             # 2 radius + 1 rows, some of them beyond the image
    float* zeros


cdef void release(Clumps* clumps, Filter* filter) noexcept nogil:
    free(clumps.runs.items)
    free(clumps.starts)
    free(clumps.limits)
    free(filter.rows)
    free(filter.line)
    free(filter.zeros)


cdef int list_runs(Clumps* clumps, const uint8_t* mask) noexcept nogil:
    """Find the runs of a mask and join them by edges; return -1 without memory."""
    cdef Py_ssize_t width = clumps.width, row
    cdef uint8_t* inside = <uint8_t*> calloc(width + 16, 1)
    cdef int32_t* edges = <int32_t*> malloc((width + 2) * sizeof(int32_t))
    cdef int status = 0
    clumps.starts = <Py_ssize_t*> calloc(clumps.height + 1, sizeof(Py_ssize_t))
    if inside == NULL or edges == NULL or clumps.starts == NULL:
        status = -1
    for row in range(clumps.height):
        if status:
            break
        occupied(1, width, mask + row * width, inside)
        status = add_row(&clumps.runs, <int32_t> row, width, inside, edges, False)
        clumps.starts[row + 1] = clumps.runs.count
    free(inside)
    free(edges)
    return status


cdef int find_clumps(Clumps* clumps, const uint8_t* mask, int64_t min_area) noexcept nogil:
    """Fill in the clumps; return -1 without memory."""
    cdef Py_ssize_t k, row
    cdef Run* runs
    cdef int64_t* areas
    cdef int32_t* pieces
    if list_runs(clumps, mask):
        return -1
    areas = <int64_t*> malloc((clumps.runs.count + 1) * sizeof(int64_t))
    pieces = <int32_t*> malloc((clumps.runs.count + 1) * sizeof(int32_t))
    if areas == NULL or pieces == NULL:
        free(areas)
        free(pieces)
        return -1
    runs = clumps.runs.items
    find_areas(&clumps.runs, areas)
    for k in range(clumps.runs.count):
        pieces[k], runs[k].parent = runs[k].parent, <int32_t> k
    for row in range(clumps.height - 1):
        join_rows(runs, <int32_t> clumps.starts[row], <int32_t> clumps.starts[row + 1],
                  <int32_t> clumps.starts[row + 2], True)
    for k in range(clumps.runs.count):          # a parent comes first, so it knows the first run
        runs[k].parent = runs[runs[k].parent].parent
    for k in range(clumps.runs.count):
        if areas[pieces[k]] < min_area:
            runs[k].parent = -1
    free(areas)
    free(pieces)
    return 0


cdef int set_limits(Clumps* clumps, float low, float high) noexcept nogil:
    """Start with these limits of both slopes, or with none where `high` is not greater; return -1 without memory."""
    cdef Py_ssize_t k
    cdef bint fixed = high > low
    clumps.limits = <float*> malloc((4 * clumps.runs.count + 1) * sizeof(float))
    if clumps.limits == NULL:
        return -1
    for k in range(2 * clumps.runs.count):
        clumps.limits[2 * k] = low if fixed else <float> INFINITY
        clumps.limits[2 * k + 1] = high if fixed else <float> -INFINITY
    return 0


cdef int begin(Filter* filter, Py_ssize_t width, const float[::1] smooth, const float[::1] slope) noexcept nogil:
    filter.radius = <int> (smooth.shape[0] // 2)
    filter.smooth, filter.slope = &smooth[0], &slope[0]
    filter.rows = <float*> malloc((2 * filter.radius + 1) * width * sizeof(float))
    filter.line = <float*> malloc((width + 2 * filter.radius) * sizeof(float))
    filter.zeros = <float*> calloc(width, sizeof(float))
    return -1 if filter.rows == NULL or filter.line == NULL or filter.zeros == NULL else 0


cdef const float* rows_around(const Filter* filter, const float* image, Py_ssize_t height, Py_ssize_t width,
                              Py_ssize_t row, Py_ssize_t left, Py_ssize_t right) noexcept nogil:
    """Return a row whose columns left..right-1 have `radius` rows above and below; beyond the image they are zeros."""
    cdef Py_ssize_t radius = filter.radius, near
    cdef float* copy
    if radius <= row < height - radius:
        return image + row * width
    for near in range(row - radius, row + radius + 1):
        copy = filter.rows + (near - row + radius) * width + left
        if 0 <= near < height:
            memmove(copy, image + near * width + left, (right - left) * sizeof(float))
        else:
            memset(copy, 0, (right - left) * sizeof(float))
    return filter.rows + radius * width


cdef void slope_part(const Filter* filter, const float* image, Py_ssize_t height, Py_ssize_t width, Py_ssize_t row,
                     Py_ssize_t first, Py_ssize_t last, bint downwards, float* out) noexcept nogil:
    """Write the slope of the columns first..last-1 of a row; beyond the image there are zeros."""
    cdef int radius = filter.radius
    cdef Py_ssize_t left = max(first - radius, 0), right = min(last + radius, width)
    cdef const float* middle = rows_around(filter, image, height, width, row, left, right) + left
    cdef float* line = filter.line + left - (first - radius)
    memset(filter.line, 0, (left - (first - radius)) * sizeof(float))
    memset(line + right - left, 0, (last + radius - right) * sizeof(float))
    if downwards:
        filter_odd(right - left, radius, filter.slope, middle, width, line)
        filter_even(last - first, radius, filter.smooth, filter.line + radius, 1, out + first)
    else:
        filter_even(right - left, radius, filter.smooth, middle, width, line)
        filter_odd(last - first, radius, filter.slope, filter.line + radius, 1, out + first)


cdef void slope_row(const Clumps* clumps, const Filter* filter, const float* image, Py_ssize_t row, bint downwards,
                    float* out) noexcept nogil:
    """Write the slope where a row has runs of clumps, those that are near each other together."""
    cdef Py_ssize_t k, first = -1, last = -1
    cdef const Run* run
    for k in range(clumps.starts[row], clumps.starts[row + 1]):
        run = &clumps.runs.items[k]
        if run.parent < 0:
            continue
        if first >= 0 and run.start > last + 2 * filter.radius:
            slope_part(filter, image, clumps.height, clumps.width, row, first, last, downwards, out)
            first = -1
        if first < 0:
            first = run.start
        last = run.stop
    if first >= 0:
        slope_part(filter, image, clumps.height, clumps.width, row, first, last, downwards, out)


cdef void widen_row(const Clumps* clumps, Py_ssize_t row, const float* one, const float* two) noexcept nogil:
    """Widen the limits of clumps by the slopes of a row."""
    cdef const Run* run
    cdef float* limits
    cdef Py_ssize_t k
    for k in range(clumps.starts[row], clumps.starts[row + 1]):
        run = &clumps.runs.items[k]
        if run.parent >= 0:
            limits = clumps.limits + 4 * run.parent
            widen_limits(run.stop - run.start, one + run.start, two + run.start, limits)


cdef void calm_row(const Clumps* clumps, Py_ssize_t row, float* one, const float* two, float limit, uint8_t* calm,
                   uint8_t* inside) noexcept nogil:
    """Turn one slope of a row into 1 - energy, 0 outside the clumps; set the bytes of `calm` and `inside`."""
    cdef Py_ssize_t k, size
    cdef int32_t last = 0
    cdef float[2] highs
    cdef float[2] spans
    cdef const float* limits
    cdef const Run* run
    for k in range(clumps.starts[row], clumps.starts[row + 1]):
        run = &clumps.runs.items[k]
        if run.parent < 0:
            continue
        limits = clumps.limits + 4 * run.parent
        highs[0], highs[1] = limits[1], limits[3]
        spans[0] = limits[1] - limits[0] if limits[1] > limits[0] else 0
        spans[1] = limits[3] - limits[2] if limits[3] > limits[2] else 0
        size = run.stop - run.start
        memset(one + last, 0, (run.start - last) * sizeof(float))
        invert_energy(size, one + run.start, two + run.start, highs, spans, limit, calm + run.start)
        memset(inside + run.start, 1, size)
        last = run.stop
    memset(one + last, 0, (clumps.width - last) * sizeof(float))


cdef int find_energy(const Clumps* clumps, float* one, float* two, float limit, const float* zeros, uint8_t* calm,
                     uint8_t* inside) noexcept nogil:
    """Turn slopes into smoothed heights, in `two`, and calm pixels, in a frame of zeros; return -1 without memory."""
    cdef Py_ssize_t height = clumps.height, width = clumps.width, row
    cdef float* sums = <float*> calloc(width + 2, sizeof(float))
    if sums == NULL:
        return -1
    for row in range(height + 1):
        if row < height:
            calm_row(clumps, row, one + row * width, two + row * width, limit,
                     calm + (row + MARGIN) * (width + 2 * MARGIN) + MARGIN, inside + row * width)
        if row > 0:             # the row before, now that it has both neighbours
            binomial_row(width, one + (row - 2) * width if row > 1 else zeros, one + (row - 1) * width,
                         one + row * width if row < height else zeros, sums + 1, two + (row - 1) * width)
    free(sums)
    return 0


def energies(const uint8_t[:, ::1] mask, const float[:, ::1] horizontal, const float[:, ::1] vertical,
             const float[::1] smooth, const float[::1] slope, float low, float high, float limit, int64_t min_area,
             int64_t min_marker, uint8_t[:, ::1] inside, float[:, ::1] heights, int32_t[:, ::1] markers):
    """Find what a watershed needs: where, how high, and from where.

    Parameters
    ----------
    mask : (H, W) uint8
        Foreground; pieces (4-connected) of fewer than `min_area` pixels are dropped.
    horizontal, vertical : (H, W) float32
        Maps.
    smooth, slope : (size,) float32
        Weights of the filters.
    low, high : float
        Limits of both slopes; where `high` is not greater, each clump has its own.
    limit, min_marker
        Markers are where the energy is less, and have so many pixels.
    inside, markers : (H, W) uint8, int32
        Zero; filled.
    heights : (H, W) float32
        Filled where `inside` is.
    """
    cdef Clumps clumps
    cdef Filter filter
    cdef Py_ssize_t height = mask.shape[0], width = mask.shape[1], row
    cdef Py_ssize_t frame = (height + 2 * MARGIN) * (width + 2 * MARGIN)
    cdef float* one = <float*> malloc(max(height * width * <Py_ssize_t> sizeof(float), 2 * frame))
    cdef float* two = &heights[0, 0]
    cdef uint8_t* calm = <uint8_t*> calloc(frame, 1)
    cdef int status = -1
    memset(&clumps, 0, sizeof(Clumps))
    memset(&filter, 0, sizeof(Filter))
    clumps.height, clumps.width = height, width
    with nogil:
        if (one != NULL and calm != NULL and find_clumps(&clumps, &mask[0, 0], min_area) == 0
                and set_limits(&clumps, low, high) == 0 and begin(&filter, width, smooth, slope) == 0):
            for row in range(height):
                slope_row(&clumps, &filter, &horizontal[0, 0], row, False, one + row * width)
                slope_row(&clumps, &filter, &vertical[0, 0], row, True, two + row * width)
                if not high > low:
                    widen_row(&clumps, row, one + row * width, two + row * width)
            status = find_energy(&clumps, one, two, limit, filter.zeros, calm, &inside[0, 0])
            if status == 0:
                status = find_markers(&clumps, calm, <uint8_t*> one, min_marker, &markers[0, 0])
        release(&clumps, &filter)
        free(one)
        free(calm)
    if status:
        raise MemoryError("no memory for the energy of an image")


include "_calm_regions.pxi"
include "_label_holes.pxi"
