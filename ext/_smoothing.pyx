# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""Smooth, simplified polygons out of pixel-edge ones. Called through nuclix.ext.outlines, which validates.

Input: the pixel-edge rings of one polygon an object (a shell, then its holes), as _outlines.pyx traces them.
Output: rings with the same orientation, in units of 1/UNIT px.

An attempt at a polygon has five steps: midpoints of the pixel edges, low-pass filter, simplification, an offset that restores
the area, and a check. Attempts get more careful until one passes the check; the ring of midpoints, which needs
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

cdef extern from "_ring_filter.h" nogil:
    void filter_ring(Py_ssize_t n, const double* values, double* out)

cdef enum:
    OK = 0
    NO_MEMORY = 1

cdef enum:
    UNIT = 32               # units a pixel: float32 holds them exactly up to 2^19 px
    CLEARANCE = UNIT // 4
    LONGEST_CHORD = 512     # points under a chord at most: keeps the simplification linear
    OFFSETS = 2             # Newton steps of the offset
    TAPS = 2                # of the filter on either side

cdef double MAX_OFFSET = 0.25           # px, and OFFSET_SHARE of the tolerance, two thirds of which chords of a convex outline lie inside
cdef double OFFSET_SHARE = 0.7
cdef double OUTER = 1.15                # with it a disc of radius 10 px has ten corners, circularity 0.96
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
PASSES[:] = [32, 8, 0, 0]
SHARES[:] = [1.0, 0.5, 0.5, 0.0]


cdef void release(Work *work) noexcept nogil:
    free(work.y)
    free(work.x)
    free(work.y2)
    free(work.x2)
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
    work.edges = <Edge *> malloc(points * sizeof(Edge))
    work.corners = <int64_t *> malloc(2 * points * sizeof(int64_t))
    work.rings = <Ring *> malloc(rings * sizeof(Ring))
    if (work.y == NULL or work.x == NULL or work.y2 == NULL or work.x2 == NULL or work.edges == NULL
            or work.corners == NULL or work.rings == NULL):
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


include "_simplification.pxi"
include "_simple_polygon.pxi"


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
            low_pass(y, work.y2 + TAPS, n, passes)
            low_pass(x, work.y2 + TAPS, n, passes)
        count = simplify(y, x, n, tolerance, work)
        work.rings[r].area = pixel_area(corners, offsets[ring + r], offsets[ring + r + 1])
        if count < 3 or not restore_area(work.y2, work.x2, count, work.rings[r].area, MAX_OFFSET + OFFSET_SHARE * tolerance):
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
