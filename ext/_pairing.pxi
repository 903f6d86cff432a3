# Pairing the sides of runs across row boundaries. Included after _label_runs.pxi, not imported.
#
# A run has a left and a right side, each a vertical edge one pixel high: side 2 * run + right. At every row boundary the ends
# of sides that lie on it are paired by the horizontal stretches between them; a ring is a cycle through these pairs, down
# right sides and up left ones. Node 2 * side + bottom is one end of a side.
#
# A run is a record of eight numbers, a side four of them, so that a step of a ring touches one cache line: the column, the
# nodes that its upper and lower ends are paired with, and on the left side the run's parent in the forest of 4-connected
# parts, on the right side the part's number if the run is the forest's root.

cdef enum:
    PIXELS_A_RUN = 64       # room for runs to begin with: several times that of tissue

cdef struct Runs:
    int64_t count
    int64_t capacity
    int64_t straight        # pairs without a horizontal stretch: these make no corners
    int64_t *first          # (height + 1,) first run of each row
    int32_t *data           # (8 * capacity,) the records
    int64_t saddles
    int64_t saddle_capacity
    int32_t *saddle         # (2 * saddle_capacity,) two nodes each: one label on both sides of a corner, diagonally

cdef struct Row:
    int64_t count
    int64_t first           # number of its first run
    int32_t *cols           # (2 * width + 2,)
    int64_t *labels         # (width + 1,)


cdef int reserve_runs(Runs *runs, int64_t needed) noexcept nogil:
    cdef int64_t capacity
    if needed <= runs.capacity:
        return OK
    if needed > 0x1fffffff:         # four nodes a run, counted in 32 bits
        return TOO_MANY_RUNS
    capacity = max(needed, min(2 * runs.capacity, 0x1fffffff))
    if resize(<void **> &runs.data, 8 * capacity * sizeof(int32_t)):
        return NO_MEMORY
    runs.capacity = capacity
    return OK


cdef inline int32_t *link(const Runs *runs, int64_t node) noexcept nogil:
    """Return where the node's partner stands."""
    return runs.data + 2 * node + 1 - (node & 1)


cdef inline void pair(Runs *runs, int32_t a, int32_t b) noexcept nogil:
    link(runs, a)[0] = b
    link(runs, b)[0] = a


cdef inline int64_t root_of(int32_t *data, int64_t run) noexcept nogil:
    while data[8 * run + 3] != run:
        data[8 * run + 3] = data[8 * data[8 * run + 3] + 3]
        run = data[8 * run + 3]
    return run


cdef inline void unite(int32_t *data, int64_t a, int64_t b) noexcept nogil:
    """Join two parts under the earlier root."""
    a = root_of(data, a)
    b = root_of(data, b)
    data[8 * max(a, b) + 3] = <int32_t> min(a, b)


cdef int add_saddle(Runs *runs, int32_t upper, int32_t lower) noexcept nogil:
    cdef int64_t capacity
    if runs.saddles == runs.saddle_capacity:
        capacity = max(<int64_t> 1024, 2 * runs.saddle_capacity)
        if resize(<void **> &runs.saddle, 2 * capacity * sizeof(int32_t)):
            return NO_MEMORY
        runs.saddle_capacity = capacity
    runs.saddle[2 * runs.saddles] = upper
    runs.saddle[2 * runs.saddles + 1] = lower
    runs.saddles += 1
    return OK


cdef void pair_rest(Runs *runs, int64_t run, int64_t end, int32_t waiting, int bottom) noexcept nogil:
    """Pair the sides of the runs of one row that have nothing above (below) them any more."""
    while run < end:
        pair(runs, waiting, <int32_t> (4 * run + 2 + bottom))
        run += 1
        waiting = <int32_t> (4 * run + bottom)


cdef int pair_ends(Runs *runs, const Row *above, const Row *below, int64_t u, int64_t w) noexcept nogil:
    """Note the saddles of two runs of different labels that end at one column: what follows never meets them in the loop."""
    cdef int status = OK
    cdef int32_t end = above.cols[2 * u + 1]
    if w + 1 < below.count and below.cols[2 * w + 2] == end and below.labels[w + 1] == above.labels[u]:
        status |= add_saddle(runs, <int32_t> (4 * (above.first + u) + 3), <int32_t> (4 * (below.first + w) + 4))
    if u + 1 < above.count and above.cols[2 * u + 2] == end and above.labels[u + 1] == below.labels[w]:
        status |= add_saddle(runs, <int32_t> (4 * (above.first + u) + 5), <int32_t> (4 * (below.first + w) + 2))
    return status


cdef int pair_rows(Runs *runs, const Row *above, const Row *below) noexcept nogil:
    """Pair the sides of the runs of two rows that meet at the boundary between them.

    Along the boundary the sides of one label pair up in the order in which they come, as it begins and ceases to cover
    exactly one of the two rows. Diagonal touches are paired as if the two pixels were apart, and noted as saddles.
    """
    cdef int64_t u = 0, w = 0
    cdef int32_t upper = <int32_t> (4 * above.first + 1)    # node that the stretch under (over) the current run sets out from
    cdef int32_t lower = <int32_t> (4 * below.first)
    cdef int32_t upper_end, lower_end, a, b, c, d
    cdef int status = OK
    while u < above.count and w < below.count:
        a, b, c, d = above.cols[2 * u], above.cols[2 * u + 1], below.cols[2 * w], below.cols[2 * w + 1]
        upper_end = <int32_t> (4 * (above.first + u) + 3)
        lower_end = <int32_t> (4 * (below.first + w) + 2)
        if above.labels[u] == below.labels[w]:
            if a < d and c < b:
                unite(runs.data, above.first + u, below.first + w)
                pair(runs, upper, lower)
                runs.straight += runs.data[4 * (upper >> 1)] == runs.data[4 * (lower >> 1)]
                if above.cols[2 * u + 2] > d and below.cols[2 * w + 2] > b:
                    # Nothing that follows lies over or under either run: the usual case, whichever of them ends first.
                    pair(runs, upper_end, lower_end)
                    runs.straight += b == d
                    u += 1
                    w += 1
                    upper = upper_end + 2
                    lower = lower_end + 2
                elif b < d:
                    u += 1
                    upper = upper_end + 2
                    lower = upper_end
                elif d < b:
                    w += 1
                    lower = lower_end + 2
                    upper = lower_end
                else:
                    pair(runs, upper_end, lower_end)
                    runs.straight += 1
                    u += 1
                    w += 1
                    upper = upper_end + 2
                    lower = lower_end + 2
                continue
            if b == c:
                status |= add_saddle(runs, upper_end, lower_end - 2)
            elif d == a:
                status |= add_saddle(runs, upper_end - 2, lower_end)
        elif b == d:
            status |= pair_ends(runs, above, below, u, w)
        if b <= d:
            pair(runs, upper, upper_end)
            u += 1
            upper = upper_end + 2
        if d <= b:
            pair(runs, lower, lower_end)
            w += 1
            lower = lower_end + 2
    pair_rest(runs, above.first + u, above.first + above.count, upper, 1)
    pair_rest(runs, below.first + w, below.first + below.count, lower, 0)
    return status


cdef int64_t enter_row(const Row *row, Runs *runs) noexcept nogil:
    """Write the records of a row's runs, each a part of its own; return the least label."""
    cdef int64_t k, run, low = 0
    for k in range(row.count):
        run = row.first + k
        runs.data[8 * run] = row.cols[2 * k]
        runs.data[8 * run + 3] = <int32_t> run
        runs.data[8 * run + 4] = row.cols[2 * k + 1]
        low = min(low, row.labels[k])
    return low


cdef int scan(const label_t *labels, int64_t stride, int64_t height, int64_t width, Runs *runs, Row *rows, Scan *lines) noexcept nogil:
    """Find and pair the runs of all rows; `rows` is two rows that take turns."""
    cdef int64_t y, low = 0
    cdef int status = OK
    cdef Row *above = rows
    cdef Row *below = rows + 1
    for y in range(height):
        # Most rows hold far fewer runs than pixels, but room for the worst row makes the inner loop free of checks.
        status = reserve_runs(runs, runs.count + width)
        if status != OK:
            return status
        runs.first[y] = runs.count
        below.first = runs.count
        below.count = row_runs(labels + y * stride, width, lines, below.cols, below.labels)
        low = min(low, enter_row(below, runs))
        runs.count += below.count
        if pair_rows(runs, above, below) != OK:
            return NO_MEMORY
        above, below = below, above
    runs.first[height] = runs.count
    pair_rest(runs, above.first, runs.count, <int32_t> (4 * above.first + 1), 1)
    return NEGATIVE_LABEL if low < 0 else OK


cdef int find_runs(const label_t *labels, int64_t stride, int64_t height, int64_t width, Runs *runs) noexcept nogil:
    """Fill `runs` in one scan of the image; `stride` is the step from row to row in elements."""
    cdef Row rows[2]
    cdef int status = NO_MEMORY
    cdef int k
    cdef Scan lines
    cdef int ready = new_scan(&lines, width)
    for k in range(2):
        rows[k].count = rows[k].first = 0
        rows[k].cols = <int32_t *> malloc((2 * width + 2) * sizeof(int32_t))
        rows[k].labels = <int64_t *> malloc((width + 1) * sizeof(int64_t))
    runs.first = <int64_t *> calloc(height + 1, sizeof(int64_t))
    if (ready == OK and rows[0].cols != NULL and rows[0].labels != NULL and rows[1].cols != NULL
            and rows[1].labels != NULL and runs.first != NULL):
        status = reserve_runs(runs, min(height * (width // PIXELS_A_RUN) + width, 0x1fffffff))
        if status == OK:
            status = scan(labels, stride, height, width, runs, rows, &lines)
    for k in range(2):
        free(rows[k].cols)
        free(rows[k].labels)
    free_scan(&lines)
    return status


cdef void join_saddles(Runs *runs, bint diagonals) noexcept nogil:
    """Join diagonal touches within one part, so that its background, not itself, is parted there.

    Parts are 4-connected, or 8-connected where `diagonals` connect too.
    """
    cdef int64_t k
    cdef int32_t upper, lower, to_upper, to_lower
    if diagonals:
        for k in range(runs.saddles):
            unite(runs.data, runs.saddle[2 * k] >> 2, runs.saddle[2 * k + 1] >> 2)
    for k in range(runs.saddles):
        upper = runs.saddle[2 * k]
        lower = runs.saddle[2 * k + 1]
        if root_of(runs.data, upper >> 2) == root_of(runs.data, lower >> 2):
            to_upper = link(runs, upper)[0]
            to_lower = link(runs, lower)[0]
            pair(runs, upper, to_lower)
            pair(runs, lower, to_upper)
