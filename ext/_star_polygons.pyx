# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False, cdivision=True
"""Kernel of nuclix.ext.star_polygons; preconditions are checked there.

A polygon is given by its distances from a centre along rays at equal angles. Its pixels are rows of bits, made from the
columns where its edges cross the rows, so that the pixels that two polygons share are counted 64 at a time. Coordinates
are relative to the centre: the pixels of a polygon do not depend on where it lies in the array.
"""

from libc.math cimport ceil, cos, sin
from libc.stdint cimport int32_t, int64_t, uint8_t, uint64_t
from libc.stdlib cimport calloc, free, malloc, realloc
from libc.string cimport memset

cdef extern from "_stars.h" nogil:
    ctypedef struct StarEdges:
        double* y
        double* x
        double* above
        double* start
        double* slope
        int32_t* first
        int32_t* count
        int32_t* cuts
    ctypedef struct StarRaster:
        uint64_t* bits
        Py_ssize_t room
        int32_t top
        int32_t rows
        int32_t words
        int32_t reach
        int64_t area
    int WORD
    float longest(int rays, const float* distances)
    void find_edges(int rays, const float* distances, const double* sines, const double* cosines, int32_t reach,
                    const StarEdges* edges)
    Py_ssize_t raster_room(int32_t reach)
    void fill_raster(int rays, const StarEdges* edges, int32_t reach, StarRaster* raster)
    int64_t shared_pixels(const StarRaster* one, const StarRaster* two, int32_t row, int32_t col)
    void add_raster(const StarRaster* raster, int64_t row, int64_t col, int64_t margin, uint64_t* image,
                    int64_t height, int64_t pitch)
    void unpack_bits(int64_t width, int64_t margin, const uint64_t* bits, uint8_t* out)

cdef extern from "_rows.h" nogil:
    void fetch(const void* address)

cdef enum:
    CELL = 16           # edge of the cells in which taken polygons are looked up, in px
    AHEAD = 8           # candidates whose distances are fetched before they are needed
    LINE = 16           # distances that are fetched at once

cdef double PI = 3.141592653589793

cdef struct Stars:
    const float* distances  # rays of each candidate
    const int32_t* rows     # of their centres
    const int32_t* cols
    Py_ssize_t count
    int rays
    double* sines
    double* cosines
    StarEdges edges         # of the current polygon
    StarRaster raster       # its pixels


cdef int begin(Stars* stars, const float[:, ::1] distances, const int32_t[::1] rows,
               const int32_t[::1] cols) noexcept nogil:
    """Fill in the table of angles; return -1 without memory."""
    cdef Py_ssize_t rays = distances.shape[1], k
    cdef StarEdges* edges = &stars.edges
    memset(stars, 0, sizeof(Stars))
    stars.count, stars.rays = distances.shape[0], <int> rays
    stars.distances, stars.rows, stars.cols = &distances[0, 0], &rows[0], &cols[0]
    stars.sines = <double*> malloc((7 * rays + 3) * sizeof(double))
    edges.first = <int32_t*> malloc(4 * rays * sizeof(int32_t))
    if stars.sines == NULL or edges.first == NULL:
        return -1
    stars.cosines = stars.sines + rays
    edges.y = stars.cosines + rays
    edges.x = edges.y + rays + 1
    edges.above = edges.x + rays + 1
    edges.start = edges.above + rays + 1
    edges.slope = edges.start + rays
    edges.count = edges.first + rays
    edges.cuts = edges.count + rays
    for k in range(rays):
        stars.sines[k] = sin(2 * PI * k / rays)
        stars.cosines[k] = cos(2 * PI * k / rays)
    return 0


cdef void end(Stars* stars) noexcept nogil:
    free(stars.sines)
    free(stars.edges.first)
    free(stars.raster.bits)


cdef int draw(Stars* stars, Py_ssize_t which, float extent) noexcept nogil:
    """Make the current raster that of a candidate; return -1 without memory."""
    cdef int32_t reach = <int32_t> ceil(extent) + 1
    cdef Py_ssize_t room = raster_room(reach)
    cdef uint64_t* bits
    if room > stars.raster.room:
        bits = <uint64_t*> realloc(stars.raster.bits, 2 * room * sizeof(uint64_t))
        if bits == NULL:
            return -1
        stars.raster.bits, stars.raster.room = bits, 2 * room
    find_edges(stars.rays, stars.distances + which * stars.rays, stars.sines, stars.cosines, reach,
               &stars.edges)
    fill_raster(stars.rays, &stars.edges, reach, &stars.raster)
    return 0


cdef int draw_all(Stars* stars, Py_ssize_t height, Py_ssize_t width, uint8_t* out) noexcept nogil:
    """Write the union of all polygons; return -1 without memory."""
    cdef Py_ssize_t k, pitch, margin
    cdef float most = longest(<int> stars.rays, stars.distances)
    cdef uint64_t* image
    cdef int status = 0
    for k in range(1, stars.count):
        most = max(most, longest(stars.rays, stars.distances + k * stars.rays))
    margin = <Py_ssize_t> ceil(most) + 1
    pitch = (width + 2 * margin) // WORD + 2
    image = <uint64_t*> calloc(height * pitch, sizeof(uint64_t))
    if image == NULL:
        return -1
    for k in range(stars.count):
        status = draw(stars, k, longest(stars.rays, stars.distances + k * stars.rays))
        if status:
            break
        add_raster(&stars.raster, stars.rows[k], stars.cols[k], margin, image, height, pitch)
    for k in range(height):
        unpack_bits(width, margin, image + k * pitch, out + k * width)
    free(image)
    return status


def cover(const float[:, ::1] distances, const int32_t[::1] rows, const int32_t[::1] cols, uint8_t[:, ::1] out):
    """Set `out` to 1 in every pixel of a polygon, and to 0 elsewhere. No array is empty."""
    cdef Stars stars
    cdef int status
    with nogil:
        status = begin(&stars, distances, rows, cols)
        if status == 0:
            status = draw_all(&stars, out.shape[0], out.shape[1], &out[0, 0])
        end(&stars)
    if status:
        raise MemoryError("no memory for the polygons of an image")


def gather(const float[:, :, :] planes, const uint8_t[:, ::1] mask, float low, float high, int32_t[::1] rows,
           int32_t[::1] cols, float[:, ::1] out):
    """List the pixels of a mask and their values in every plane, cut to low..high; what is no number becomes low.

    Parameters
    ----------
    planes : (P, H, W) float32
        In any memory order.
    mask : (H, W) uint8
        With N ones.
    low, high : float
        Limits.
    rows, cols : (N,) int32
        Filled.
    out : (N, P) float32
        Filled.
    """
    cdef Py_ssize_t row, col, first, found = 0, plane, k
    cdef float value
    with nogil:
        for row in range(mask.shape[0]):
            first = found
            for col in range(mask.shape[1]):
                if mask[row, col]:
                    rows[found], cols[found] = <int32_t> row, <int32_t> col
                    found += 1
            for plane in range(planes.shape[0]):
                for k in range(first, found):
                    value = planes[plane, row, cols[k]]
                    out[k, plane] = min(value, high) if value >= low else low


cdef struct Taken:          # polygons that were taken, by squares of CELL px
    Py_ssize_t rows
    Py_ssize_t cols
    int32_t* heads          # of each square: its last polygon, or -1
    float* reach            # of each square: its largest polygon's
    int32_t* nexts          # of each polygon: the one before it in its square
    int32_t* candidates
    float* extents
    StarRaster* rasters
    int32_t count
    int32_t room
    float largest


cdef int set_out(Taken* taken, Py_ssize_t height, Py_ssize_t width) noexcept nogil:
    """Make empty squares; return -1 without memory."""
    cdef Py_ssize_t k, cells
    memset(taken, 0, sizeof(Taken))
    taken.rows, taken.cols = height // CELL + 1, width // CELL + 1
    cells = taken.rows * taken.cols
    taken.heads = <int32_t*> malloc(cells * sizeof(int32_t))
    taken.reach = <float*> calloc(cells, sizeof(float))
    if taken.heads == NULL or taken.reach == NULL:
        return -1
    for k in range(cells):
        taken.heads[k] = -1
    return 0


cdef void put_away(Taken* taken) noexcept nogil:
    cdef int32_t k
    for k in range(taken.count):
        free(taken.rasters[k].bits)
    free(taken.heads)
    free(taken.reach)
    free(taken.nexts)
    free(taken.candidates)
    free(taken.extents)
    free(taken.rasters)


cdef int reserve(Taken* taken) noexcept nogil:
    """Make room for one more; return -1 without memory."""
    cdef int32_t room = 2 * taken.room + 64
    if taken.count < taken.room:
        return 0
    cdef int32_t* nexts = <int32_t*> realloc(taken.nexts, room * sizeof(int32_t))
    if nexts != NULL:
        taken.nexts = nexts
    cdef int32_t* candidates = <int32_t*> realloc(taken.candidates, room * sizeof(int32_t))
    if candidates != NULL:
        taken.candidates = candidates
    cdef float* extents = <float*> realloc(taken.extents, room * sizeof(float))
    if extents != NULL:
        taken.extents = extents
    cdef StarRaster* rasters = <StarRaster*> realloc(taken.rasters, room * sizeof(StarRaster))
    if rasters != NULL:
        taken.rasters = rasters
    if nexts == NULL or candidates == NULL or extents == NULL or rasters == NULL:
        return -1
    taken.room = room
    return 0


cdef int take(Taken* taken, Stars* stars, Py_ssize_t which, float extent) noexcept nogil:
    """Add the current polygon, whose raster goes with it; return -1 without memory."""
    cdef Py_ssize_t cell = stars.rows[which] // CELL * taken.cols + stars.cols[which] // CELL
    cdef int32_t k = taken.count
    if reserve(taken):
        return -1
    taken.rasters[k] = stars.raster
    stars.raster.bits, stars.raster.room = NULL, 0
    taken.nexts[k], taken.heads[cell] = taken.heads[cell], k
    taken.candidates[k], taken.extents[k] = <int32_t> which, extent
    taken.reach[cell] = max(taken.reach[cell], extent)
    taken.largest = max(taken.largest, extent)
    taken.count += 1
    return 0


cdef inline bint overlaps(const Taken* taken, const Stars* stars, int32_t k, Py_ssize_t which, float extent,
                          double overlap) noexcept nogil:
    """Return whether the current polygon shares more than `overlap` of the smaller one with the k-th taken."""
    cdef int32_t other = taken.candidates[k]
    cdef int32_t dy = stars.rows[which] - stars.rows[other], dx = stars.cols[which] - stars.cols[other]
    cdef double near = <double> taken.extents[k] + extent + 2
    cdef int64_t shared
    if <double> dy * dy + <double> dx * dx > near * near:
        return False
    shared = shared_pixels(&taken.rasters[k], &stars.raster, dy, dx)
    return shared > overlap * min(taken.rasters[k].area, stars.raster.area)


cdef inline double gap(Py_ssize_t at, Py_ssize_t cell) noexcept nogil:
    """Return how far `at` lies from the rows (or columns) of a cell."""
    return max(max(cell * CELL - at, at - (cell * CELL + CELL - 1)), 0)


cdef bint is_dropped(const Taken* taken, const Stars* stars, Py_ssize_t which, float extent, double overlap,
                     const int32_t* owners) noexcept nogil:
    """Return whether a polygon that was taken in the current one's clump overlaps it too much."""
    cdef Py_ssize_t row = stars.rows[which], col = stars.cols[which], i, j, cell
    cdef double near, reach = <double> extent + taken.largest + 2
    cdef int32_t k
    for i in range(<Py_ssize_t> max(row - reach, 0) // CELL, min(<Py_ssize_t> (row + reach) // CELL + 1, taken.rows)):
        for j in range(<Py_ssize_t> max(col - reach, 0) // CELL,
                       min(<Py_ssize_t> (col + reach) // CELL + 1, taken.cols)):
            cell = i * taken.cols + j
            near = <double> extent + taken.reach[cell] + 2
            if taken.heads[cell] < 0 or gap(row, i) ** 2 + gap(col, j) ** 2 > near * near:
                continue
            k = taken.heads[cell]
            while k >= 0:
                if (owners[taken.candidates[k]] == owners[which]
                        and overlaps(taken, stars, k, which, extent, overlap)):
                    return True
                k = taken.nexts[k]
    return False


cdef void paint(const Stars* stars, const Taken* taken, const int32_t* clumps, int32_t* out, Py_ssize_t height,
                Py_ssize_t width) noexcept nogil:
    """Give the pixels of the polygon that was taken last their label, in its own clump and where they have none."""
    cdef const StarRaster* raster = &taken.rasters[taken.count - 1]
    cdef int32_t which = taken.candidates[taken.count - 1]
    cdef Py_ssize_t top = stars.rows[which] + raster.top, left = stars.cols[which] - raster.reach, row, col, at
    cdef int32_t clump = clumps[stars.rows[which] * width + stars.cols[which]]
    cdef const uint64_t* line
    for row in range(max(top, 0), min(top + raster.rows, height)):
        line = raster.bits + (row - top) * raster.words
        for col in range(max(left, 0), min(left + 2 * raster.reach + 1, width)):
            at = row * width + col
            if line[(col - left) // WORD] >> (col - left) % WORD & 1 and clumps[at] == clump and out[at] == 0:
                out[at] = taken.count


cdef int suppress(Stars* stars, Taken* taken, const int64_t* order, const int32_t* owners, double overlap,
                  const int32_t* clumps, int32_t* out, Py_ssize_t height, Py_ssize_t width) noexcept nogil:
    """Take or drop each candidate; return -1 without memory."""
    cdef Py_ssize_t n, k, ray
    cdef int32_t label
    cdef float extent
    for n in range(stars.count):
        k = order[min(n + AHEAD, stars.count - 1)]
        for ray in range(stars.rays // LINE + 1):
            fetch(stars.distances + k * stars.rays + ray * LINE)
        k = order[n]
        extent = longest(stars.rays, stars.distances + k * stars.rays)
        if draw(stars, k, extent):
            return -1
        label = out[stars.rows[k] * width + stars.cols[k]]     # most candidates overlap what covers their centre
        if label and overlaps(taken, stars, label - 1, k, extent, overlap):
            continue
        if is_dropped(taken, stars, k, extent, overlap, owners):
            continue
        if take(taken, stars, k, extent):
            return -1
        paint(stars, taken, clumps, out, height, width)
    return 0


def select(const float[:, ::1] distances, const int32_t[::1] rows, const int32_t[::1] cols, const int64_t[::1] order,
           const int32_t[::1] owners, double overlap, const int32_t[:, ::1] clumps, int32_t[:, ::1] out,
           int32_t[::1] winners):
    """Take candidates in `order` that overlap none that was taken; paint them; return how many.

    Parameters
    ----------
    distances : (N, rays) float32
        Positive and finite.
    rows, cols : (N,) int32
        Centres, in the array.
    order : (N,) int64
        The candidates from the most to the least probable.
    owners : (N,) int32
        The clump of each.
    overlap : float
        Share of the smaller polygon's pixels.
    clumps, out : (H, W) int32
        Where the clumps lie; the labels, zero at first.
    winners : (N,) int32
        Filled with the candidate of each label.
    """
    cdef Stars stars
    cdef Taken taken
    cdef int32_t k
    cdef int status
    with nogil:
        status = set_out(&taken, out.shape[0], out.shape[1])
        if begin(&stars, distances, rows, cols):
            status = -1
        if status == 0:
            status = suppress(&stars, &taken, &order[0], &owners[0], overlap, &clumps[0, 0], &out[0, 0], out.shape[0],
                              out.shape[1])
        for k in range(taken.count):
            winners[k] = taken.candidates[k]
        put_away(&taken)
        end(&stars)
    if status:
        raise MemoryError("no memory for the polygons of an image")
    return taken.count
