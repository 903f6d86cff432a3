# One ring on its way from pixel edges to few corners. Included in _smoothing.pyx.
#
# In order: midpoints of the pixel edges, low-pass filter, simplification by longest chords, offset that restores the area.
# Input and output: coordinates in px relative to the shell's first corner, y and x apart. Invariant: a ring keeps three corners
# or more, and nothing but its own points has a say.

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
    The number of passes is even: the two take turns.
    """
    cdef int k
    for k in range(passes // 2):
        close_ring(values, n)
        filter_ring(n, values, spare)
        close_ring(spare, n)
        filter_ring(n, spare, values)


cdef inline void close_ring(double *values, int64_t n) noexcept nogil:
    cdef int64_t i
    for i in range(TAPS):       # a ring has four pixel edges or more
        values[n + i] = values[i]
        values[i - TAPS] = values[n + i - TAPS]


cdef int64_t farthest_from(const double *y, const double *x, int64_t n, int64_t at) noexcept nogil:
    cdef int64_t i, far = at
    cdef double square, most = -1
    for i in range(n):
        square = (y[i] - y[at]) * (y[i] - y[at]) + (x[i] - x[at]) * (x[i] - x[at])
        if square > most:
            most = square
            far = i
    return far


cdef bint chord_fits(const double *y, const double *x, int64_t n, int64_t i, int64_t j, double tolerance) noexcept nogil:
    """Return whether all points between i and j (cyclic, i < j <= i + n) are within `tolerance` of the chord.

    The offset that restores the area moves chords outwards where the outline is convex, which most of it is: points outside the
    chord may lie OUTER tolerances away.
    """
    cdef int64_t k, m, a = i if i < n else i - n, b = j if j < n else j - n
    cdef double dy = y[b] - y[a], dx = x[b] - x[a], norm = dy * dy + dx * dx
    cdef double py, px, along, across
    cdef double limit = tolerance * tolerance, outer = OUTER * OUTER * limit * norm, inner = limit * norm
    m = a
    for k in range(i + 1, j):
        m = m + 1 if m + 1 < n else 0
        py = y[m] - y[a]
        px = x[m] - x[a]
        along = py * dy + px * dx
        if along <= 0:
            if py * py + px * px > limit:
                return False
        elif along >= norm:
            py = y[m] - y[b]
            px = x[m] - x[b]
            if py * py + px * px > limit:
                return False
        else:
            across = px * dy - py * dx
            if across * across > (outer if across > 0 else inner):
                return False
    return True


cdef int64_t simplify(const double *y, const double *x, int64_t n, double tolerance, Work *work) noexcept nogil:
    """Keep few points of a ring; return how many.

    From one end of (nearly) the longest chord on, each chord is drawn as far as it fits all points between its ends, but over at
    most LONGEST_CHORD of them: fewer points than Douglas and Peucker (1973) keep.
    """
    cdef int64_t i, j, a = farthest_from(y, x, n, 0), count = 0
    i = a
    while i < a + n:
        j = i if i < n else i - n
        work.y2[count] = y[j]
        work.x2[count] = x[j]
        count += 1
        j = i + 1
        while j < a + n and j - i < LONGEST_CHORD and chord_fits(y, x, n, i, j + 1, tolerance):
            j += 1
        i = j
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


cdef bint restore_area(double *y, double *x, int64_t n, double area, double most) noexcept nogil:
    """Shift a ring's edges until it encloses `area` (signed); return whether that takes at most `most` px."""
    cdef int step
    cdef double length, offset, total = 0
    for step in range(OFFSETS):
        offset = (area - measure(y, x, n, &length))
        if length == 0:
            return False
        offset /= length
        total += offset
        if fabs(total) > most:
            return False
        shift_edges(y, x, n, offset)
    return True
