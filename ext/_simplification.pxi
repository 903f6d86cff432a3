# One ring on its way from pixel edges to few corners. Included in _smoothing.pyx.
#
# In order: midpoints of the pixel edges, low-pass filter, Douglas-Peucker simplification, offset that restores the area.
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
