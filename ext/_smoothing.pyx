# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""Smooth, simplified polygons out of pixel-edge ones. Called through nuclix.ext.outlines, which validates.

Input: the pixel-edge rings of one polygon an object (a shell, then its holes), as _outlines.pyx traces them.
Output: rings with the same orientation, in units of 1/UNIT px.

An attempt at a polygon has five steps: midpoints of the pixel edges, low-pass filter, Douglas-Peucker simplification, an offset
that restores the area, and a check. Attempts get more careful until one passes the check; the ring of midpoints, which needs
no check, is the last. Invariants of every polygon that is returned:

- Two edges that share no corner are CLEARANCE apart or more, and neither edge at a corner comes closer than that to the other's
  far end. So no rounding that moves corners by less than CLEARANCE / (2 sqrt 2) along an axis can make rings cross.
- Every ring encloses the area of its pixels within max(MAX_AREA_ERROR of it, SMALL_AREA_ERROR px).
- It depends on the rings relative to their first corner alone: not on the array's origin, nor on other objects.

All numbers are dyadic fractions in double precision; sums and products round the same way on every machine (no contraction).
"""

import numpy as np

from libc.math cimport fabs, rint, sqrt
from libc.stdint cimport int32_t, int64_t, uint8_t
from libc.stdlib cimport free, malloc, qsort, realloc
from libc.string cimport memset

cdef enum:
    OK = 0
    NO_MEMORY = 1

cdef enum:
    UNIT = 32               # units a pixel: float32 holds them exactly up to 2^19 px
    CLEARANCE = UNIT // 4
    SORTED_FROM = 48        # edges from which on they are sorted for the check
    PAIRS_AN_EDGE = 512     # pairs to check for each edge before an attempt is given up: keeps combs linear
    ANCHOR_EVERY = 2048     # points between two that are kept in any case: keeps the simplification linear
    OFFSETS = 2             # Newton steps of the offset
    TAPS = 2                # of the filter on either side

cdef double MAX_AREA_ERROR = 0.01
cdef double SMALL_AREA_ERROR = 0.5      # px^2: what the midpoints cut off the corners of any ring
cdef double MAX_OFFSET = 0.25           # px
cdef double MIN_MITRE = 0.3             # 1 + cosine of the turn, below which a corner is not pushed further out

cdef struct Ring:
    int64_t begin           # of its corners, in the array that it is of
    int64_t end
    double area             # px^2, signed: that of its pixels

cdef struct Edge:
    int64_t y0
    int64_t x0
    int64_t y1
    int64_t x1
    int64_t top
    int64_t bottom
    int64_t left
    int64_t right
    int64_t begin_corner    # numbers of its ends within the polygon
    int64_t end_corner

cdef struct Work:
    int64_t capacity        # points
    int64_t ring_capacity
    double *y               # (capacity,) points of a ring, relative to the shell's first corner, in px
    double *x
    double *y2              # the filter's other buffer; later the corners that are left
    double *x2
    uint8_t *keep
    int64_t *stack          # (2 * capacity,)
    Edge *edges
    int64_t *corners        # (2 * capacity,) the attempt: (row, column) in units
    Ring *rings             # (ring_capacity,) the attempt's rings

cdef struct Output:
    int64_t corners
    int64_t corner_capacity
    int32_t *corner         # (2 * corner_capacity,) in units, relative to base
    int64_t rings
    int64_t ring_capacity
    int64_t *ring_end

# Attempts, each more careful than the one before: passes of the filter, and the tolerance as a share of the caller's.
cdef enum:
    ATTEMPTS = 4

cdef int PASSES[ATTEMPTS]
cdef double SHARES[ATTEMPTS]
PASSES[:] = [2, 2, 0, 0]
SHARES[:] = [1.0, 0.5, 0.5, 0.0]


cdef void release(Work *work) noexcept nogil:
    free(work.y)
    free(work.x)
    free(work.y2)
    free(work.x2)
    free(work.keep)
    free(work.stack)
    free(work.edges)
    free(work.corners)
    free(work.rings)
    memset(work, 0, sizeof(Work))


cdef int reserve(Work *work, int64_t points, int64_t rings) noexcept nogil:
    if points <= work.capacity and rings <= work.ring_capacity:
        return OK
    points = 2 * max(points, work.capacity)
    rings = 2 * max(rings, work.ring_capacity)
    release(work)
    work.capacity = points
    work.ring_capacity = rings
    work.y = <double *> malloc((points + 2 * TAPS) * sizeof(double))
    work.x = <double *> malloc((points + 2 * TAPS) * sizeof(double))
    work.y2 = <double *> malloc((points + 2 * TAPS) * sizeof(double))
    work.x2 = <double *> malloc((points + 2 * TAPS) * sizeof(double))
    work.keep = <uint8_t *> malloc(points + 1)
    work.stack = <int64_t *> malloc(2 * (points + 1) * sizeof(int64_t))
    work.edges = <Edge *> malloc(points * sizeof(Edge))
    work.corners = <int64_t *> malloc(2 * points * sizeof(int64_t))
    work.rings = <Ring *> malloc(rings * sizeof(Ring))
    if (work.y == NULL or work.x == NULL or work.y2 == NULL or work.x2 == NULL or work.keep == NULL
            or work.stack == NULL or work.edges == NULL or work.corners == NULL or work.rings == NULL):
        return NO_MEMORY
    return OK


cdef double pixel_area(const int32_t *corners, int64_t begin, int64_t end) noexcept nogil:
    """Return the signed area of a pixel-edge ring: only horizontal edges count."""
    cdef int64_t i, j, area = 0, top = corners[2 * begin]
    for i in range(begin, end):
        j = i + 1 if i + 1 < end else begin
        area -= (corners[2 * i] - top) * (<int64_t> corners[2 * j + 1] - corners[2 * i + 1])
    return <double> area


cdef int64_t unit_edges(const int32_t *corners, int64_t begin, int64_t end) noexcept nogil:
    """Return how many pixel edges a ring has."""
    cdef int64_t i, j, count = 0, dy, dx
    for i in range(begin, end):
        j = i + 1 if i + 1 < end else begin
        dy = <int64_t> corners[2 * j] - corners[2 * i]
        dx = <int64_t> corners[2 * j + 1] - corners[2 * i + 1]
        count += (dy if dy > 0 else -dy) + (dx if dx > 0 else -dx)
    return count


cdef int64_t midpoints(const int32_t *corners, int64_t begin, int64_t end, const int32_t *base, double *y, double *x) noexcept nogil:
    """List the midpoints of a ring's pixel edges, in px from `base`; return how many."""
    cdef int64_t i, j, k, length, n = 0
    cdef double y0, x0, dy, dx
    for i in range(begin, end):
        j = i + 1 if i + 1 < end else begin
        dy = <double> corners[2 * j] - corners[2 * i]
        dx = <double> corners[2 * j + 1] - corners[2 * i + 1]
        length = <int64_t> (fabs(dy) + fabs(dx))
        dy /= length
        dx /= length
        y0 = <double> corners[2 * i] - base[0] + 0.5 * dy
        x0 = <double> corners[2 * i + 1] - base[1] + 0.5 * dx
        for k in range(length):
            y[n] = y0 + k * dy
            x[n] = x0 + k * dx
            n += 1
    return n


cdef void low_pass(double *values, double *spare, int64_t n, int passes) noexcept nogil:
    """Filter a cyclic sequence with (-1, 4, 10, 4, -1) / 16, which keeps parabolas as they are and removes the finest zigzag.

    `values` has room for TAPS more on either side: it begins at values[0], and values[-TAPS] may be written. So has `spare`.
    """
    cdef int64_t i
    cdef int k
    for k in range(passes):
        for i in range(TAPS):       # a ring has four pixel edges or more
            values[n + i] = values[i]
            values[i - TAPS] = values[n + i - TAPS]
        for i in range(n):
            spare[i] = (10 * values[i] + 4 * (values[i - 1] + values[i + 1]) - (values[i - 2] + values[i + 2])) / 16
        for i in range(n):
            values[i] = spare[i]


cdef int64_t farthest_from(const double *y, const double *x, int64_t n, int64_t at) noexcept nogil:
    cdef int64_t i, far = at
    cdef double square, most = -1
    for i in range(n):
        square = (y[i] - y[at]) * (y[i] - y[at]) + (x[i] - x[at]) * (x[i] - x[at])
        if square > most:
            most = square
            far = i
    return far


cdef int64_t farthest_between(const double *y, const double *x, int64_t n, int64_t i, int64_t j, double *square) noexcept nogil:
    """Return the point between i and j (cyclic, i < j <= i + n) that is farthest from the chord, and its squared distance."""
    cdef int64_t k, m, a = i if i < n else i - n, b = j if j < n else j - n, far = -1
    cdef double dy = y[b] - y[a], dx = x[b] - x[a], norm = dy * dy + dx * dx
    cdef double py, px, along, across, value, most = -1
    cdef double scale = norm if norm > 0 else 1
    m = a
    for k in range(i + 1, j):
        m = m + 1 if m + 1 < n else 0
        py = y[m] - y[a]
        px = x[m] - x[a]
        along = py * dy + px * dx
        if along <= 0:
            value = (py * py + px * px) * scale
        elif along >= norm:
            py = y[m] - y[b]
            px = x[m] - x[b]
            value = (py * py + px * px) * scale
        else:
            across = px * dy - py * dx
            value = across * across
        if value > most:
            most = value
            far = k
    square[0] = most / scale
    return far


cdef int64_t simplify(const double *y, const double *x, int64_t n, double tolerance, Work *work) noexcept nogil:
    """Keep the points of a ring that Douglas and Peucker (1973) keep; return how many there are.

    Anchors are the two ends of (nearly) the longest chord, the point farthest from it, and one point in ANCHOR_EVERY. A point
    is dropped if the distance to its chord is at most `tolerance`.
    """
    cdef int64_t a, b, c, i, j, k, top = 0, far, count = 0, anchors
    cdef double square, other, limit = tolerance * tolerance
    memset(work.keep, 0, n)
    a = farthest_from(y, x, n, 0)
    b = farthest_from(y, x, n, a)
    work.keep[a] = work.keep[b] = 1
    if b < a:
        a, b = b, a
    c = farthest_between(y, x, n, a, b, &square)
    k = farthest_between(y, x, n, b, a + n, &other)
    if c < 0 or other > square:
        c = k
    if c >= 0:
        work.keep[c % n] = 1
    for i in range(1, (n - 1) // ANCHOR_EVERY + 1):
        work.keep[(a + ANCHOR_EVERY * i) % n] = 1
    i = a
    k = a
    for j in range(a + 1, a + n + 1):       # chains between anchors
        k = k + 1 if k + 1 < n else 0
        if work.keep[k]:
            work.stack[2 * top] = i
            work.stack[2 * top + 1] = j
            top += 1
            i = j
    while top:
        top -= 1
        i = work.stack[2 * top]
        j = work.stack[2 * top + 1]
        if j - i < 2:
            continue
        far = farthest_between(y, x, n, i, j, &square)
        if square <= limit:
            continue
        work.keep[far if far < n else far - n] = 1
        work.stack[2 * top] = i
        work.stack[2 * top + 1] = far
        work.stack[2 * top + 2] = far
        work.stack[2 * top + 3] = j
        top += 2
    for i in range(n):
        if work.keep[i]:
            work.y2[count] = y[i]
            work.x2[count] = x[i]
            count += 1
    return count


cdef double measure(const double *y, const double *x, int64_t n, double *length) noexcept nogil:
    """Return the signed area and the length of a ring."""
    cdef int64_t i, j
    cdef double twice = 0, total = 0
    for i in range(n):
        j = i + 1 if i + 1 < n else 0
        twice += x[i] * y[j] - x[j] * y[i]
        total += sqrt((y[j] - y[i]) * (y[j] - y[i]) + (x[j] - x[i]) * (x[j] - x[i]))
    length[0] = total
    return 0.5 * twice


cdef void shift_edges(double *y, double *x, int64_t n, double offset) noexcept nogil:
    """Move every edge of a ring outwards by `offset`: corners move along their mitres."""
    cdef int64_t i, j
    cdef double dy, dx, length, ny, nx, last_ny, last_nx, first_y = y[0], first_x = x[0], mitre
    dy = y[0] - y[n - 1]
    dx = x[0] - x[n - 1]
    length = sqrt(dy * dy + dx * dx)
    if length == 0:
        return
    last_ny, last_nx = -dx / length, dy / length
    for i in range(n):
        j = i + 1
        dy = (y[j] if j < n else first_y) - y[i]
        dx = (x[j] if j < n else first_x) - x[i]
        length = sqrt(dy * dy + dx * dx)
        if length == 0:
            return
        ny, nx = -dx / length, dy / length
        mitre = offset / max(MIN_MITRE, 1 + ny * last_ny + nx * last_nx)
        y[i] += mitre * (ny + last_ny)
        x[i] += mitre * (nx + last_nx)
        last_ny, last_nx = ny, nx


cdef bint restore_area(double *y, double *x, int64_t n, double area) noexcept nogil:
    """Shift a ring's edges until it encloses `area` (signed); return whether that takes at most MAX_OFFSET."""
    cdef int step
    cdef double length, offset, total = 0
    for step in range(OFFSETS):
        offset = (area - measure(y, x, n, &length))
        if length == 0:
            return False
        offset /= length
        total += offset
        if fabs(total) > MAX_OFFSET:
            return False
        shift_edges(y, x, n, offset)
    return True


cdef int by_top(const void *a, const void *b) noexcept nogil:
    cdef int64_t p = (<const Edge *> a).top, q = (<const Edge *> b).top
    return (p > q) - (p < q)


cdef inline bint far_from(int64_t y, int64_t x, const Edge *e) noexcept nogil:
    """Return whether a point is CLEARANCE or more from an edge. Edges span less than 2^26 units, so nothing overflows."""
    cdef int64_t dy = e.y1 - e.y0, dx = e.x1 - e.x0, py = y - e.y0, px = x - e.x0
    cdef int64_t norm = dy * dy + dx * dx, along = py * dy + px * dx
    cdef double across
    if along <= 0:
        return py * py + px * px >= CLEARANCE * CLEARANCE
    if along >= norm:
        return (y - e.y1) * (y - e.y1) + (x - e.x1) * (x - e.x1) >= CLEARANCE * CLEARANCE
    across = <double> (px * dy - py * dx)
    return across * across >= <double> (CLEARANCE * CLEARANCE) * norm


cdef inline int64_t side_of(const Edge *e, int64_t y, int64_t x) noexcept nogil:
    return (e.x1 - e.x0) * (y - e.y0) - (e.y1 - e.y0) * (x - e.x0)


cdef bint apart(const Edge *a, const Edge *b) noexcept nogil:
    """Return whether two edges keep their distance: all of them, or but for the corner that they share."""
    cdef int64_t p, q, r, s
    if a.end_corner == b.begin_corner or b.end_corner == a.begin_corner:
        if b.end_corner == a.begin_corner:
            a, b = b, a
        return far_from(b.y1, b.x1, a) and far_from(a.y0, a.x0, b)
    if not (far_from(b.y0, b.x0, a) and far_from(b.y1, b.x1, a) and far_from(a.y0, a.x0, b) and far_from(a.y1, a.x1, b)):
        return False
    p, q, r, s = side_of(a, b.y0, b.x0), side_of(a, b.y1, b.x1), side_of(b, a.y0, a.x0), side_of(b, a.y1, a.x1)
    return not ((p > 0) != (q > 0) and (r > 0) != (s > 0))


cdef bint well_apart(Work *work, int64_t count) noexcept nogil:
    """Return whether all edges of the attempt keep their distance from each other, as far as PAIRS_AN_EDGE lets one look."""
    cdef int64_t i, j, pairs = 0
    cdef const Edge *a
    cdef const Edge *b
    if count > SORTED_FROM:
        qsort(work.edges, count, sizeof(Edge), by_top)
    for i in range(count):
        a = work.edges + i
        for j in range(i + 1, count):
            b = work.edges + j
            if count > SORTED_FROM and b.top > a.bottom + CLEARANCE:
                break
            pairs += 1
            if (b.top > a.bottom + CLEARANCE or a.top > b.bottom + CLEARANCE
                    or b.left > a.right + CLEARANCE or a.left > b.right + CLEARANCE):
                continue
            if not apart(a, b):
                return False
        if count > SORTED_FROM and pairs > PAIRS_AN_EDGE * count:
            return False
    return True


cdef bint inside(const int64_t *corners, const Ring *ring, int64_t y, int64_t x) noexcept nogil:
    """Return whether a point that no edge touches lies inside a ring (crossing number)."""
    cdef int64_t i, j, y0, x0, y1, x1
    cdef bint result = False
    for i in range(ring.begin, ring.end):
        j = i + 1 if i + 1 < ring.end else ring.begin
        y0, x0, y1, x1 = corners[2 * i], corners[2 * i + 1], corners[2 * j], corners[2 * j + 1]
        if (y0 > y) != (y1 > y):
            if ((x1 - x0) * (y - y0) > (x - x0) * (y1 - y0)) == (y1 > y0):
                result = not result
    return result


cdef bint holes_nested(const Work *work, int64_t rings) noexcept nogil:
    """Return whether every hole lies inside the shell and in no other hole. The rings do not cross."""
    cdef int64_t i, j, y, x
    for i in range(1, rings):
        y = work.corners[2 * work.rings[i].begin]
        x = work.corners[2 * work.rings[i].begin + 1]
        if not inside(work.corners, work.rings, y, x):
            return False
        for j in range(1, rings):
            if j != i and inside(work.corners, work.rings + j, y, x):
                return False
    return True


cdef void list_edges(Work *work, int64_t rings) noexcept nogil:
    cdef int64_t r, i, j
    cdef Edge *e
    for r in range(rings):
        for i in range(work.rings[r].begin, work.rings[r].end):
            j = i + 1 if i + 1 < work.rings[r].end else work.rings[r].begin
            e = work.edges + i
            e.y0, e.x0, e.y1, e.x1 = (work.corners[2 * i], work.corners[2 * i + 1], work.corners[2 * j],
                                      work.corners[2 * j + 1])
            e.begin_corner = i
            e.end_corner = j
            e.top, e.bottom = min(e.y0, e.y1), max(e.y0, e.y1)
            e.left, e.right = min(e.x0, e.x1), max(e.x0, e.x1)


cdef bint area_kept(const Work *work, const Ring *ring) noexcept nogil:
    """Return whether a ring of the attempt encloses the area of its pixels, nearly."""
    cdef int64_t i, j, twice = 0
    cdef double error
    for i in range(ring.begin, ring.end):
        j = i + 1 if i + 1 < ring.end else ring.begin
        twice += work.corners[2 * i + 1] * work.corners[2 * j] - work.corners[2 * j + 1] * work.corners[2 * i]
    error = fabs(0.5 * twice / (UNIT * UNIT) - ring.area)
    return error <= max(SMALL_AREA_ERROR, MAX_AREA_ERROR * fabs(ring.area)) and (twice > 0) == (ring.area > 0)


cdef bint attempt(const int32_t *corners, const int64_t *offsets, int64_t ring, int64_t rings, int passes,
                  double tolerance, Work *work) noexcept nogil:
    """Draw a polygon into work.corners and work.rings; return whether it passes the check."""
    cdef int64_t r, i, n, count, total = 0
    cdef double *y = work.y + TAPS
    cdef double *x = work.x + TAPS
    cdef const int32_t *base = corners + 2 * offsets[ring]
    for r in range(rings):
        n = midpoints(corners, offsets[ring + r], offsets[ring + r + 1], base, y, x)
        if passes:
            low_pass(y, work.y2, n, passes)
            low_pass(x, work.y2, n, passes)
        count = simplify(y, x, n, tolerance, work)
        work.rings[r].area = pixel_area(corners, offsets[ring + r], offsets[ring + r + 1])
        if count < 3 or not restore_area(work.y2, work.x2, count, work.rings[r].area):
            return False
        work.rings[r].begin = total
        for i in range(count):
            work.corners[2 * (total + i)] = <int64_t> rint(UNIT * work.y2[i])
            work.corners[2 * (total + i) + 1] = <int64_t> rint(UNIT * work.x2[i])
        total += count
        work.rings[r].end = total
        if not area_kept(work, work.rings + r):
            return False
    list_edges(work, rings)
    return well_apart(work, total) and (rings == 1 or holes_nested(work, rings))


cdef void draw_midpoints(const int32_t *corners, const int64_t *offsets, int64_t ring, int64_t rings, Work *work) noexcept nogil:
    """Draw the polygon through the midpoints, corners only: simple, with sqrt(1/2) px between edges, whatever the pixels are."""
    cdef int64_t r, i, n, count, total = 0
    for r in range(rings):
        n = midpoints(corners, offsets[ring + r], offsets[ring + r + 1], corners + 2 * offsets[ring], work.y, work.x)
        work.rings[r].begin = total
        for i in range(n):
            count = i + 1 if i + 1 < n else 0
            if i and work.y[i] - work.y[i - 1] == work.y[count] - work.y[i] and work.x[i] - work.x[i - 1] == work.x[count] - work.x[i]:
                continue
            work.corners[2 * total] = <int64_t> (UNIT * work.y[i])
            work.corners[2 * total + 1] = <int64_t> (UNIT * work.x[i])
            total += 1
        work.rings[r].end = total


cdef int append(Output *out, const Work *work, int64_t rings, const int32_t *base) noexcept nogil:
    cdef int64_t r, i, count = work.rings[rings - 1].end, capacity
    cdef void *moved
    if out.corners + count > out.corner_capacity:
        capacity = 2 * (out.corner_capacity + count)
        moved = realloc(out.corner, 2 * capacity * sizeof(int32_t))
        if moved == NULL:
            return NO_MEMORY
        out.corner = <int32_t *> moved
        out.corner_capacity = capacity
    if out.rings + rings > out.ring_capacity:
        capacity = 2 * (out.ring_capacity + rings)
        moved = realloc(out.ring_end, capacity * sizeof(int64_t))
        if moved == NULL:
            return NO_MEMORY
        out.ring_end = <int64_t *> moved
        out.ring_capacity = capacity
    for i in range(count):
        out.corner[2 * (out.corners + i)] = <int32_t> (work.corners[2 * i] + UNIT * <int64_t> base[0])
        out.corner[2 * (out.corners + i) + 1] = <int32_t> (work.corners[2 * i + 1] + UNIT * <int64_t> base[1])
    for r in range(rings):
        out.ring_end[out.rings + r] = out.corners + work.rings[r].end
    out.corners += count
    out.rings += rings
    return OK


cdef int smooth_polygon(const int32_t *corners, const int64_t *offsets, int64_t ring, int64_t rings, double tolerance,
                        Work *work, Output *out) noexcept nogil:
    cdef int64_t r, points = 0
    cdef int k
    cdef bint done = False
    for r in range(ring, ring + rings):
        points += unit_edges(corners, offsets[r], offsets[r + 1])
    if reserve(work, points, rings) != OK:
        return NO_MEMORY
    for k in range(ATTEMPTS):
        if attempt(corners, offsets, ring, rings, PASSES[k], SHARES[k] * tolerance, work):
            done = True
            break
    if not done:
        draw_midpoints(corners, offsets, ring, rings, work)
    return append(out, work, rings, corners + 2 * offsets[ring])


def largest_polygons(const int64_t[::1] rings, const uint8_t[::1] shells, const int64_t[::1] offsets,
                     const int32_t[:, ::1] corners):
    """Return, for each object, the first ring and the end of the rings of its polygon with the largest shell, as (N, 2).

    Of several equal ones the first counts. Every object's first ring is a shell.
    """
    cdef int64_t i, r, count = rings.shape[0] - 1
    cdef double area, most
    chosen = np.empty((count, 2), np.int64)
    cdef int64_t[:, ::1] found = chosen
    with nogil:
        for i in range(count):
            found[i, 0] = rings[i]
            found[i, 1] = rings[i + 1]
            most = -1
            for r in range(rings[i], rings[i + 1]):
                if not shells[r]:
                    continue
                area = pixel_area(&corners[0, 0], offsets[r], offsets[r + 1])
                if area > most:
                    most = area
                    found[i, 0] = r
            for r in range(found[i, 0] + 1, rings[i + 1]):
                if shells[r]:
                    found[i, 1] = r
                    break
    return chosen


def smooth(const int64_t[:, ::1] polygons, const int64_t[::1] offsets, const int32_t[:, ::1] corners, double tolerance):
    """Return (offsets, corners) of the smoothed polygons; corners are (V, 2) int32 in units of 1/UNIT px.

    Polygon i is the rings polygons[i, 0]:polygons[i, 1], its shell first. Corners are below 2^25 px.
    """
    cdef int64_t i, count = polygons.shape[0]
    cdef int status = OK
    cdef Work work
    cdef Output out
    memset(&work, 0, sizeof(Work))
    memset(&out, 0, sizeof(Output))
    if not count:
        return np.zeros(1, np.int64), np.zeros((0, 2), np.int32)
    try:
        with nogil:
            for i in range(count):
                status = smooth_polygon(&corners[0, 0], &offsets[0], polygons[i, 0], polygons[i, 1] - polygons[i, 0],
                                        tolerance, &work, &out)
                if status != OK:
                    break
        if status != OK:
            raise MemoryError("no memory for smooth outlines")
        ends = np.array(<int64_t[:out.rings]> out.ring_end)
        drawn = np.array(<int32_t[:2 * out.corners]> out.corner).reshape(-1, 2)
        return np.concatenate([np.zeros(1, np.int64), ends]), drawn
    finally:
        release(&work)
        free(out.corner)
        free(out.ring_end)


UNITS_PER_PIXEL = UNIT
