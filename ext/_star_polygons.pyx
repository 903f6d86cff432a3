# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False, cdivision=True
"""Kernel of nuclix.ext.star_polygons; preconditions are checked there.

A polygon is given by its distances from a centre along rays at equal angles. It is never stored as pixels: along every
row the columns where its edges cross, with their directions, suffice to cover pixels, to count them, and to count those
that another polygon has too (by that polygon's running sums). Coordinates are relative to the centre, so that the
pixels of a polygon do not depend on where it lies in the array.
"""

from libc.math cimport ceil, cos, sin
from libc.stdint cimport int32_t, int64_t, uint8_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memset

cdef enum:
    CELL = 16           # edge of the cells in which candidates are looked up, in px

cdef double PI = 3.141592653589793

cdef struct Stars:
    const float* distances  # rays of each candidate
    const int32_t* rows     # of their centres
    const int32_t* cols
    Py_ssize_t count
    int rays
    double* sines
    double* cosines
    double* y               # corners of the current polygon, the first again at the end
    double* x

cdef struct Sums:           # a polygon's pixels left of each column, in a frame around its centre
    int32_t* items
    Py_ssize_t reach        # rows and columns -reach..reach
    Py_ssize_t room


cdef int begin(Stars* stars, const float[:, ::1] distances, const int32_t[::1] rows,
               const int32_t[::1] cols) noexcept nogil:
    """Fill in the table of angles; return -1 without memory."""
    cdef int k
    stars.count, stars.rays = distances.shape[0], <int> distances.shape[1]
    stars.distances, stars.rows, stars.cols = &distances[0, 0], &rows[0], &cols[0]
    stars.sines = <double*> malloc((4 * stars.rays + 4) * sizeof(double))
    if stars.sines == NULL:
        return -1
    stars.cosines = stars.sines + stars.rays
    stars.y = stars.cosines + stars.rays
    stars.x = stars.y + stars.rays + 1
    for k in range(stars.rays):
        stars.sines[k] = sin(2 * PI * k / stars.rays)
        stars.cosines[k] = cos(2 * PI * k / stars.rays)
    return 0


cdef inline void take_corners(const Stars* stars, Py_ssize_t which) noexcept nogil:
    cdef const float* distance = stars.distances + which * stars.rays
    cdef int k
    for k in range(stars.rays):
        stars.y[k] = distance[k] * stars.sines[k]
        stars.x[k] = distance[k] * stars.cosines[k]
    stars.y[stars.rays] = stars.y[0]
    stars.x[stars.rays] = stars.x[0]


cdef inline int crossings(const Stars* stars, int edge, int32_t* first, int32_t* last, double* x,
                          double* slope) noexcept nogil:
    """Find the rows first..last-1 that an edge crosses, and where; return 1 if it runs down, -1 if up, 0 if none."""
    cdef double y0 = stars.y[edge], y1 = stars.y[edge + 1], x0 = stars.x[edge], x1 = stars.x[edge + 1]
    cdef int direction = 1
    if y0 > y1:
        y0, y1, x0, x1 = y1, y0, x1, x0
        direction = -1
    first[0], last[0] = <int32_t> ceil(y0), <int32_t> ceil(y1)
    if first[0] >= last[0]:
        return 0
    slope[0] = (x1 - x0) / (y1 - y0)
    x[0] = x0 + (first[0] - y0) * slope[0]
    return direction


cdef inline int32_t whole(double x) noexcept nogil:
    """Return the smallest integer at or above x, whose size fits 31 bits."""
    cdef int32_t cut = <int32_t> x
    return cut + (x > cut)


cdef void add_crossings(const Stars* stars, Py_ssize_t row, Py_ssize_t col, int32_t* steps, Py_ssize_t height,
                        Py_ssize_t width) noexcept nogil:
    """Add the polygon at (row, col): +1 where a row enters it, -1 behind its last pixel; `steps` is (H, W + 1)."""
    cdef int edge, direction
    cdef int32_t first, last, k
    cdef Py_ssize_t at, low, high
    cdef double x, slope
    for edge in range(stars.rays):
        direction = crossings(stars, edge, &first, &last, &x, &slope)
        if direction == 0:
            continue
        low, high = max(<Py_ssize_t> first, -row), min(<Py_ssize_t> last, height - row)
        for k in range(<int32_t> low, <int32_t> high):
            at = col + whole(x + (k - first) * slope)
            steps[(row + k) * (width + 1) + min(max(at, 0), width)] -= direction


def cover(const float[:, ::1] distances, const int32_t[::1] rows, const int32_t[::1] cols, uint8_t[:, ::1] out):
    """Set `out`, which is zero, to 1 in every pixel of a polygon. No array is empty."""
    cdef Stars stars
    cdef Py_ssize_t height = out.shape[0], width = out.shape[1], k, row, col
    cdef int32_t* steps
    cdef int32_t depth
    cdef int status = -1
    with nogil:
        memset(&stars, 0, sizeof(Stars))
        steps = <int32_t*> calloc(height * (width + 1), sizeof(int32_t))
        if steps != NULL and begin(&stars, distances, rows, cols) == 0:
            status = 0
            for k in range(stars.count):
                take_corners(&stars, k)
                add_crossings(&stars, rows[k], cols[k], steps, height, width)
            for row in range(height):
                depth = 0
                for col in range(width):
                    depth += steps[row * (width + 1) + col]
                    out[row, col] = depth > 0
        free(steps)
        free(stars.sines)
    if status:
        raise MemoryError("no memory for the polygons of an image")


cdef float extent(const Stars* stars, Py_ssize_t which) noexcept nogil:
    cdef const float* distance = stars.distances + which * stars.rays
    cdef float most = distance[0]
    cdef int k
    for k in range(1, stars.rays):
        most = max(most, distance[k])
    return most


cdef int sum_up(const Stars* stars, Py_ssize_t which, float reach, Sums* sums, int32_t* area) noexcept nogil:
    """Turn a polygon into running sums along the rows of its frame; return -1 without memory."""
    cdef Py_ssize_t size, row, col
    cdef int32_t depth, total
    cdef int32_t* line
    sums.reach = <Py_ssize_t> ceil(reach) + 1
    size = 2 * sums.reach + 1
    if size * (size + 1) > sums.room:
        free(sums.items)
        sums.room = 2 * size * (size + 1)
        sums.items = <int32_t*> malloc(sums.room * sizeof(int32_t))
        if sums.items == NULL:
            return -1
    memset(sums.items, 0, size * (size + 1) * sizeof(int32_t))
    take_corners(stars, which)
    add_crossings(stars, sums.reach, sums.reach, sums.items, size, size)
    area[0] = 0
    for row in range(size):
        line = sums.items + row * (size + 1)
        depth = total = 0
        for col in range(size + 1):
            depth += line[col]
            line[col] = total               # pixels left of this column
            total += depth > 0
        area[0] += total
    return 0


cdef void compare(const Stars* stars, Py_ssize_t which, Py_ssize_t row, Py_ssize_t col, const Sums* sums,
                  int64_t* area, int64_t* shared) noexcept nogil:
    """Count the pixels of a polygon whose centre lies (row, col) from that of `sums`, and those they share."""
    cdef Py_ssize_t reach = sums.reach, size = 2 * reach + 1, at
    cdef int edge, direction
    cdef int32_t first, last, k, x_cut
    cdef double x, slope
    take_corners(stars, which)
    area[0] = shared[0] = 0
    for edge in range(stars.rays):
        direction = crossings(stars, edge, &first, &last, &x, &slope)
        if direction == 0:
            continue
        for k in range(first, last):
            x_cut = whole(x + (k - first) * slope)
            area[0] += direction * x_cut
            if -reach <= row + k <= reach:
                at = min(max(col + x_cut + reach, 0), size)
                shared[0] += direction * sums.items[(row + k + reach) * (size + 1) + at]


cdef struct Cells:          # candidates by squares of CELL px, each square's in one stretch of `members`
    Py_ssize_t rows
    Py_ssize_t cols
    int32_t* starts
    int32_t* members
    float* reach            # of each square: its largest polygon's
    float* extents          # of each candidate


cdef int sort_into(Cells* cells, const Stars* stars, Py_ssize_t height, Py_ssize_t width) noexcept nogil:
    """Fill the cells; return -1 without memory."""
    cdef Py_ssize_t k, cell, total
    cells.rows, cells.cols = height // CELL + 1, width // CELL + 1
    total = cells.rows * cells.cols
    cells.starts = <int32_t*> calloc(total + 2, sizeof(int32_t))
    cells.members = <int32_t*> malloc(stars.count * sizeof(int32_t))
    cells.reach = <float*> calloc(total, sizeof(float))
    cells.extents = <float*> malloc(stars.count * sizeof(float))
    if cells.starts == NULL or cells.members == NULL or cells.reach == NULL or cells.extents == NULL:
        return -1
    for k in range(stars.count):
        cell = stars.rows[k] // CELL * cells.cols + stars.cols[k] // CELL
        cells.starts[cell + 2] += 1
        cells.extents[k] = extent(stars, k)
        cells.reach[cell] = max(cells.reach[cell], cells.extents[k])
    for cell in range(total):
        cells.starts[cell + 2] += cells.starts[cell + 1]
    for k in range(stars.count):
        cell = stars.rows[k] // CELL * cells.cols + stars.cols[k] // CELL
        cells.members[cells.starts[cell + 1]] = <int32_t> k
        cells.starts[cell + 1] += 1
    return 0


cdef inline double gap(Py_ssize_t at, Py_ssize_t cell) noexcept nogil:
    """Return how far `at` lies from the rows (or columns) of a cell."""
    return max(max(cell * CELL - at, at - (cell * CELL + CELL - 1)), 0)


cdef void suppress(const Stars* stars, const Cells* cells, Py_ssize_t winner, const Sums* sums, int64_t area,
                   float largest, double overlap, const int32_t* owners, uint8_t* gone) noexcept nogil:
    """Drop the candidates of the winner's clump that share more than `overlap` of the smaller polygon with it."""
    cdef Py_ssize_t row = stars.rows[winner], col = stars.cols[winner], i, j, cell, k, dy, dx
    cdef double own = cells.extents[winner] + 2, near, reach = own + largest
    cdef int64_t other = 0, shared = 0
    cdef int32_t m
    for i in range(<Py_ssize_t> max(row - reach, 0) // CELL, min(<Py_ssize_t> (row + reach) // CELL + 1, cells.rows)):
        for j in range(<Py_ssize_t> max(col - reach, 0) // CELL,
                       min(<Py_ssize_t> (col + reach) // CELL + 1, cells.cols)):
            cell = i * cells.cols + j
            near = own + cells.reach[cell]
            if gap(row, i) ** 2 + gap(col, j) ** 2 > near * near:
                continue
            for m in range(cells.starts[cell], cells.starts[cell + 1]):
                k = cells.members[m]
                if gone[k] or owners[k] != owners[winner]:
                    continue
                dy, dx = stars.rows[k] - row, stars.cols[k] - col
                near = own + cells.extents[k]
                if dy * dy + dx * dx > near * near:
                    continue
                compare(stars, k, dy, dx, sums, &other, &shared)
                if shared > overlap * min(area, other):
                    gone[k] = 1


cdef void paint(const Stars* stars, Py_ssize_t winner, const Sums* sums, int32_t label, const int32_t* clumps,
                int32_t* out, Py_ssize_t height, Py_ssize_t width) noexcept nogil:
    """Give the winner's pixels in its own clump its label, where they have none."""
    cdef Py_ssize_t reach = sums.reach, size = 2 * reach + 1, row, col, at
    cdef Py_ssize_t top = stars.rows[winner] - reach, left = stars.cols[winner] - reach
    cdef int32_t clump = clumps[stars.rows[winner] * width + stars.cols[winner]]
    cdef const int32_t* line
    for row in range(max(top, 0), min(top + size, height)):
        line = sums.items + (row - top) * (size + 1)
        for col in range(max(left, 0), min(left + size, width)):
            at = row * width + col
            if line[col - left + 1] > line[col - left] and clumps[at] == clump and out[at] == 0:
                out[at] = label


def select(const float[:, ::1] distances, const int32_t[::1] rows, const int32_t[::1] cols, const int64_t[::1] order,
           const int32_t[::1] owners, double overlap, const int32_t[:, ::1] clumps, int32_t[:, ::1] out,
           int32_t[::1] winners):
    """Take candidates in `order` and drop what overlaps one that was taken; paint them; return how many.

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
    cdef Cells cells
    cdef Sums sums
    cdef Py_ssize_t n, k, height = out.shape[0], width = out.shape[1]
    cdef int32_t count = 0, area = 0
    cdef float largest = 0
    cdef uint8_t* gone = NULL
    cdef int status = -1
    with nogil:
        memset(&stars, 0, sizeof(Stars))
        memset(&cells, 0, sizeof(Cells))
        memset(&sums, 0, sizeof(Sums))
        gone = <uint8_t*> calloc(rows.shape[0], 1)
        if gone != NULL and begin(&stars, distances, rows, cols) == 0:
            status = sort_into(&cells, &stars, height, width)
        if status == 0:
            for k in range(stars.count):
                largest = max(largest, cells.extents[k])
            for n in range(stars.count):
                k = order[n]
                if gone[k]:
                    continue
                gone[k] = 1
                if sum_up(&stars, k, cells.extents[k], &sums, &area):
                    status = -1
                    break
                winners[count] = <int32_t> k
                count += 1
                paint(&stars, k, &sums, count, &clumps[0, 0], &out[0, 0], height, width)
                suppress(&stars, &cells, k, &sums, area, largest, overlap, &owners[0], gone)
        free(gone)
        free(stars.sines)
        free(cells.starts)
        free(cells.members)
        free(cells.reach)
        free(cells.extents)
        free(sums.items)
    if status:
        raise MemoryError("no memory for the polygons of an image")
    return count
