# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""Shape of outlines: areas, lengths, hull, enclosing circle, least width. Called through nuclix.ext.shapes, which validates."""

import numpy as np

from libc.math cimport fabs, sqrt
from libc.stdint cimport int32_t, int64_t, uint8_t, uint64_t
from libc.stdlib cimport free, llabs, malloc, qsort

cdef enum:
    OK = 0
    NO_MEMORY = 1
    TOO_LARGE = 2

cdef enum:
    SPAN = 1 << 30          # beyond this, cross products leave 64 bits
    SPARSE = 4              # rows a corner above which corners are sorted, not put in row buckets

cdef enum:
    AREA, PERIMETER, EXTERIOR_AREA, EXTERIOR_PERIMETER, HULL_AREA, MIN_CIRCLE_DIAMETER, MIN_WIDTH, COLUMNS

cdef double SLACK = 1e-12   # of the squared radius: what rounding may leave outside the enclosing circle

cdef struct Work:
    int64_t capacity
    uint64_t *keys          # (row, column) packed, for sparse objects
    int64_t *row            # distinct rows with their least and greatest column
    int64_t *least
    int64_t *most
    int64_t *y              # the hull, counter-clockwise as (x, y)
    int64_t *x

cdef struct Circle:
    double y
    double x
    double square           # of the radius
    int64_t support[3]
    int count


cdef int reserve(Work *work, int64_t needed) noexcept nogil:
    if needed <= work.capacity:
        return OK
    release(work)
    work.capacity = 2 * needed
    work.keys = <uint64_t *> malloc(work.capacity * sizeof(uint64_t))
    work.row = <int64_t *> malloc(work.capacity * sizeof(int64_t))
    work.least = <int64_t *> malloc(work.capacity * sizeof(int64_t))
    work.most = <int64_t *> malloc(work.capacity * sizeof(int64_t))
    work.y = <int64_t *> malloc((2 * work.capacity + 1) * sizeof(int64_t))
    work.x = <int64_t *> malloc((2 * work.capacity + 1) * sizeof(int64_t))
    if (work.keys == NULL or work.row == NULL or work.least == NULL or work.most == NULL
            or work.y == NULL or work.x == NULL):
        return NO_MEMORY
    return OK


cdef void release(Work *work) noexcept nogil:
    free(work.keys)
    free(work.row)
    free(work.least)
    free(work.most)
    free(work.y)
    free(work.x)
    work.keys = NULL
    work.row = work.least = work.most = work.y = work.x = NULL
    work.capacity = 0


cdef int compare(const void *a, const void *b) noexcept nogil:
    cdef uint64_t p = (<const uint64_t *> a)[0], q = (<const uint64_t *> b)[0]
    return (p > q) - (p < q)


cdef void measure_ring(const int32_t *corners, int64_t n, int64_t y0, int64_t x0, double *area, double *length) noexcept nogil:
    """Return twice the signed area (shoelace) and the length of a ring; (y0, x0) is taken off to keep products small."""
    cdef int64_t i, dy, dx, straight = 0
    cdef uint64_t twice = 0         # parts of the sum may leave 64 bits, the whole does not: unsigned numbers wrap
    cdef double slanted = 0
    cdef int64_t y = corners[2 * n - 2] - y0, x = corners[2 * n - 1] - x0, next_y, next_x
    for i in range(n):
        next_y = corners[2 * i] - y0
        next_x = corners[2 * i + 1] - x0
        twice += <uint64_t> (x * next_y - next_x * y)
        dy = next_y - y
        dx = next_x - x
        if dy == 0 or dx == 0:
            straight += llabs(dy) + llabs(dx)
        else:
            slanted += sqrt(<double> dy * dy + <double> dx * dx)
        y = next_y
        x = next_x
    area[0] = 0.5 * <int64_t> twice
    length[0] = straight + slanted


cdef int64_t sorted_rows(const int32_t *corners, int64_t n, int64_t y0, int64_t x0, Work *work) noexcept nogil:
    """List the distinct rows of sparse corners by sorting them."""
    cdef int64_t i, y, x, rows = 0
    for i in range(n):
        work.keys[i] = (<uint64_t> (corners[2 * i] - y0) << 32) | <uint64_t> (corners[2 * i + 1] - x0)
    qsort(work.keys, n, sizeof(uint64_t), compare)
    for i in range(n):
        y = <int64_t> (work.keys[i] >> 32)
        x = <int64_t> (work.keys[i] & 0xffffffffULL)
        if rows == 0 or work.row[rows - 1] != y:
            work.row[rows] = y
            work.least[rows] = x
            rows += 1
        work.most[rows - 1] = x
    return rows


cdef int64_t bucket_rows(const int32_t *corners, int64_t n, int64_t y0, int64_t x0, int64_t height, Work *work) noexcept nogil:
    """List the distinct rows of corners that are `height` rows high by a bucket a row."""
    cdef int64_t i, y, x, rows = 0
    for y in range(height):
        work.least[y] = SPAN
        work.most[y] = -1
    for i in range(n):
        y = corners[2 * i] - y0
        x = corners[2 * i + 1] - x0
        work.least[y] = min(work.least[y], x)
        work.most[y] = max(work.most[y], x)
    for y in range(height):
        if work.most[y] >= 0:
            work.row[rows] = y
            work.least[rows] = work.least[y]
            work.most[rows] = work.most[y]
            rows += 1
    return rows


cdef inline int64_t cross(const Work *w, int64_t a, int64_t b, int64_t y, int64_t x) noexcept nogil:
    return (w.x[b] - w.x[a]) * (y - w.y[a]) - (w.y[b] - w.y[a]) * (x - w.x[a])


cdef int64_t hull(Work *work, int64_t rows) noexcept nogil:
    """Fill work.y, work.x with the strictly convex hull (monotone chain, Andrew 1979); return its size.

    Down the right side and up the left: positive shoelace area as (x, y).
    """
    cdef int64_t i, n = 0, floor
    for i in range(rows):
        while n >= 2 and cross(work, n - 2, n - 1, work.row[i], work.most[i]) <= 0:
            n -= 1
        work.y[n] = work.row[i]
        work.x[n] = work.most[i]
        n += 1
    floor = n
    for i in range(rows - 1, -1, -1):
        if work.least[i] == work.most[i] and (i == 0 or i == rows - 1):
            if i == 0 and n > floor:
                while n > floor and cross(work, n - 2, n - 1, work.y[0], work.x[0]) <= 0:
                    n -= 1
            continue
        while n > floor and cross(work, n - 2, n - 1, work.row[i], work.least[i]) <= 0:
            n -= 1
        work.y[n] = work.row[i]
        work.x[n] = work.least[i]
        n += 1
    return n


cdef double hull_area(const Work *work, int64_t n) noexcept nogil:
    cdef int64_t i, twice = 0
    for i in range(1, n - 1):
        twice += cross(work, 0, i, work.y[i + 1], work.x[i + 1])
    return 0.5 * twice


cdef double min_feret_diameter(const Work *work, int64_t n) noexcept nogil:
    """Return the least distance between parallel lines that enclose the hull: one of them lies on an edge (calipers)."""
    cdef int64_t i, j = 1, next_i, next_j, far, further
    cdef double best = -1, dy, dx, square
    if n < 3:
        return 0
    for i in range(n):
        next_i = i + 1 if i + 1 < n else 0
        far = cross(work, i, next_i, work.y[j], work.x[j])
        while True:
            next_j = j + 1 if j + 1 < n else 0
            further = cross(work, i, next_i, work.y[next_j], work.x[next_j])
            if further <= far:
                break
            far = further
            j = next_j
        dy = <double> (work.y[next_i] - work.y[i])
        dx = <double> (work.x[next_i] - work.x[i])
        square = <double> far * <double> far / (dy * dy + dx * dx)
        if best < 0 or square < best:
            best = square
    return sqrt(best)


cdef inline double distance(const Work *work, int64_t a, double y, double x) noexcept nogil:
    return (work.y[a] - y) * (work.y[a] - y) + (work.x[a] - x) * (work.x[a] - x)


cdef Circle circle_of_two(const Work *work, int64_t a, int64_t b) noexcept nogil:
    cdef Circle circle
    circle.y = 0.5 * (work.y[a] + work.y[b])
    circle.x = 0.5 * (work.x[a] + work.x[b])
    circle.square = distance(work, a, circle.y, circle.x)
    circle.support[0] = a
    circle.support[1] = b
    circle.support[2] = b
    circle.count = 2
    return circle


cdef bint acute(const Work *work, int64_t a, int64_t b, int64_t c) noexcept nogil:
    """Return whether the triangle's angle at `a` is below 90 degrees."""
    return ((work.y[b] - work.y[a]) * (work.y[c] - work.y[a]) + (work.x[b] - work.x[a]) * (work.x[c] - work.x[a])) > 0


cdef Circle circle_of_three(const Work *work, int64_t a, int64_t b, int64_t c) noexcept nogil:
    """Return the circle through three corners of an acute triangle; a circle of no size (square -1) for any other."""
    cdef Circle circle = circle_of_two(work, a, b)
    cdef double by, bx, cy, cx, twice, bb, cc, y, x
    circle.square = -1
    if not (acute(work, a, b, c) and acute(work, b, c, a) and acute(work, c, a, b)):
        return circle
    by = <double> (work.y[b] - work.y[a])
    bx = <double> (work.x[b] - work.x[a])
    cy = <double> (work.y[c] - work.y[a])
    cx = <double> (work.x[c] - work.x[a])
    twice = 2 * (bx * cy - by * cx)
    bb = bx * bx + by * by
    cc = cx * cx + cy * cy
    x = (cy * bb - by * cc) / twice
    y = (bx * cc - cx * bb) / twice
    circle.y = work.y[a] + y
    circle.x = work.x[a] + x
    circle.square = y * y + x * x
    circle.support[0] = a
    circle.support[1] = b
    circle.support[2] = c
    circle.count = 3
    return circle


cdef bint encloses(const Work *work, const Circle *circle, const Circle *old, int64_t p) noexcept nogil:
    cdef int i
    cdef double limit = circle.square * (1 + SLACK)
    if circle.square < 0 or distance(work, p, circle.y, circle.x) > limit:
        return False
    for i in range(old.count):
        if distance(work, old.support[i], circle.y, circle.x) > limit:
            return False
    return True


cdef Circle grow(const Work *work, const Circle *old, int64_t p) noexcept nogil:
    """Return the least circle around the old one's support and `p`, which lies outside the old circle and so on the new one."""
    cdef Circle best = old[0], circle
    cdef int i, j
    best.square = -1
    for i in range(old.count):
        circle = circle_of_two(work, p, old.support[i])
        if (best.square < 0 or circle.square < best.square) and encloses(work, &circle, old, p):
            best = circle
    for i in range(old.count):
        for j in range(i):
            circle = circle_of_three(work, p, old.support[i], old.support[j])
            if (best.square < 0 or circle.square < best.square) and encloses(work, &circle, old, p):
                best = circle
    return best


cdef double min_bounding_circle_diameter(const Work *work, int64_t n) noexcept nogil:
    """Return the diameter of the least circle around the hull (Elzinga and Hearn 1972).

    The least circle of two or three corners grows by the corner furthest outside until there is none. Its radius grows
    strictly, so no support comes twice.
    """
    cdef Circle circle, next_circle
    cdef int64_t i, far
    cdef double square, furthest
    circle = circle_of_two(work, 0, n // 2)
    while True:
        far = -1
        furthest = circle.square * (1 + SLACK)
        for i in range(n):
            square = distance(work, i, circle.y, circle.x)
            if square > furthest:
                furthest = square
                far = i
        if far < 0:
            break
        next_circle = grow(work, &circle, far)
        if next_circle.square <= circle.square:     # rounding: nothing is left to gain
            break
        circle = next_circle
    return 2 * sqrt(circle.square)


cdef int measure_object(int64_t ring, int64_t ring_end, const uint8_t *shells, const int64_t *offsets,
                        const int32_t *corners, Work *work, double *columns) noexcept nogil:
    """Fill the COLUMNS of one object."""
    cdef int64_t begin = offsets[ring], end = offsets[ring_end], i, n
    cdef int64_t top = corners[2 * begin], bottom = top, left = corners[2 * begin + 1], right = left
    cdef double area, length
    for i in range(begin, end):
        top = min(top, <int64_t> corners[2 * i])
        bottom = max(bottom, <int64_t> corners[2 * i])
        left = min(left, <int64_t> corners[2 * i + 1])
        right = max(right, <int64_t> corners[2 * i + 1])
    if bottom - top >= SPAN or right - left >= SPAN:
        return TOO_LARGE
    for i in range(COLUMNS):
        columns[i] = 0
    for i in range(ring, ring_end):
        measure_ring(corners + 2 * offsets[i], offsets[i + 1] - offsets[i], top, left, &area, &length)
        columns[AREA] += fabs(area) if shells[i] else -fabs(area)
        columns[PERIMETER] += length
        if shells[i]:
            columns[EXTERIOR_AREA] += fabs(area)
            columns[EXTERIOR_PERIMETER] += length
    # Holes lie inside their shells, so their corners change neither hull nor rows.
    if reserve(work, max(end - begin, min(bottom - top + 1, SPARSE * (end - begin)))) != OK:
        return NO_MEMORY
    if bottom - top + 1 <= SPARSE * (end - begin):
        n = bucket_rows(corners + 2 * begin, end - begin, top, left, bottom - top + 1, work)
    else:
        n = sorted_rows(corners + 2 * begin, end - begin, top, left, work)
    n = hull(work, n)
    columns[HULL_AREA] = hull_area(work, n)
    columns[MIN_CIRCLE_DIAMETER] = min_bounding_circle_diameter(work, n)
    columns[MIN_WIDTH] = min_feret_diameter(work, n)
    return OK


def shapes(const int64_t[::1] rings, const uint8_t[::1] shells, const int64_t[::1] offsets, const int32_t[:, ::1] corners):
    """Return the (N, COLUMNS) measurements. Every object owns a ring and every ring three corners or more."""
    cdef int64_t i, count = rings.shape[0] - 1
    cdef int status = OK
    cdef Work work
    work.keys = NULL
    work.row = work.least = work.most = work.y = work.x = NULL
    work.capacity = 0
    result = np.empty((count, COLUMNS))
    cdef double[:, ::1] columns = result
    with nogil:
        for i in range(count):
            status = measure_object(rings[i], rings[i + 1], &shells[0], &offsets[0], &corners[0, 0], &work, &columns[i, 0])
            if status != OK:
                break
        release(&work)
    if status == NO_MEMORY:
        raise MemoryError("no memory to measure outlines")
    if status == TOO_LARGE:
        raise ValueError("an outline spans 2^30 pixels or more")
    return result
