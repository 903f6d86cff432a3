# The check of a polygon in whole units. Included in _smoothing.pyx.
#
# Input: Work.corners and Work.rings, the shell first. Output: whether all edges keep CLEARANCE, holes lie inside the shell and
# in no other hole, and rings enclose the area of their pixels. Corners span less than 2^26 units, so nothing overflows.

cdef enum:
    SORTED_FROM = 48        # edges from which on they are sorted for the check
    PAIRS_AN_EDGE = 512     # pairs to check for each edge before a polygon is given up: keeps combs linear

cdef double MAX_AREA_ERROR = 0.01
cdef double SMALL_AREA_ERROR = 0.5      # px^2: what the midpoints cut off the corners of any ring


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
