# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""Pixel-edge polygons of a label image, from its runs. Called through nuclix.ext.outlines, which validates.

A run has a left and a right side, each a vertical edge one pixel high. At every row boundary the sides that end there are
paired by the horizontal stretches between them; a ring is a cycle through these pairs, down right sides and up left sides.
Node 4 * run + 2 * right + bottom is one end of a side; `links` pairs the nodes.
"""

import numpy as np

include "_runs.pxi"

ctypedef fused value_t:
    float
    double

cdef struct Runs:
    int64_t count
    int64_t capacity
    int64_t straight        # pairs without a horizontal stretch: these make no corners
    int64_t *first          # (height + 1,) first run of each row
    int32_t *cols           # (2 * capacity + 2,) begin and end of each run: the columns of its sides
    int64_t *labels         # (capacity + 1,)
    int32_t *links          # (4 * capacity,) node paired with each node
    int64_t saddles
    int64_t saddle_capacity
    int32_t *saddle         # (2 * saddle_capacity,) two nodes each: one label on both sides of a corner, diagonally

cdef struct Rings:
    int64_t count
    int64_t capacity
    int64_t parts           # shells, that is 4-connected parts, in order of their first pixel
    int32_t *of_side        # (2 * runs,) ring of each side, -1 before it is traced
    int64_t *end            # (capacity,) corner after the ring's last
    int64_t *part           # (capacity,)
    int64_t *area           # (capacity,) signed area: holes are negative
    uint8_t *shell          # (capacity,)
    int64_t *shell_side     # (capacity,) for each part, its shell's first side
    int64_t *shell_row      # (capacity,) for each part, its first row


cdef int resize(void **block, int64_t bytes) noexcept nogil:
    cdef void *moved = realloc(block[0], bytes)
    if moved == NULL:
        return NO_MEMORY
    block[0] = moved
    return OK


cdef int reserve_runs(Runs *runs, int64_t needed) noexcept nogil:
    cdef int64_t capacity = runs.capacity
    if needed <= capacity:
        return OK
    if needed > 0x1fffffff:         # four nodes a run, counted in 32 bits
        return TOO_MANY_RUNS
    capacity = max(needed, min(2 * capacity, 0x1fffffff))
    if resize(<void **> &runs.cols, (2 * capacity + 2) * sizeof(int32_t)):
        return NO_MEMORY
    if resize(<void **> &runs.labels, (capacity + 1) * sizeof(int64_t)):
        return NO_MEMORY
    if resize(<void **> &runs.links, 4 * capacity * sizeof(int32_t)):
        return NO_MEMORY
    runs.capacity = capacity
    return OK


cdef inline void pair(Runs *runs, int32_t a, int32_t b) noexcept nogil:
    runs.links[a] = b
    runs.links[b] = a


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


cdef int pair_rows(Runs *runs, int64_t u, int64_t u_end, int64_t w, int64_t w_end) noexcept nogil:
    """Pair the sides of upper runs u..u_end and lower runs w..w_end that meet at the boundary between their rows.

    Along the boundary the sides of one label pair up in the order in which they come, as it begins and ceases to cover
    exactly one of the two rows. Diagonal touches are paired as if the two pixels were apart, and noted as saddles.
    """
    cdef int32_t *cols = runs.cols
    cdef int64_t *labels = runs.labels
    cdef int32_t upper, lower       # node from which the stretch under (over) the current run sets out
    cdef int32_t a, b, c, d
    cdef int status = OK
    upper = <int32_t> (4 * u + 1)
    lower = <int32_t> (4 * w)
    while u < u_end and w < w_end:
        a, b, c, d = cols[2 * u], cols[2 * u + 1], cols[2 * w], cols[2 * w + 1]
        if labels[u] == labels[w]:
            if a < d and c < b:
                pair(runs, upper, lower)
                runs.straight += (cols[upper >> 1] == cols[lower >> 1])
                if b < d:
                    lower = <int32_t> (4 * u + 3)
                    u += 1
                    upper = <int32_t> (4 * u + 1)
                elif d < b:
                    upper = <int32_t> (4 * w + 2)
                    w += 1
                    lower = <int32_t> (4 * w)
                else:
                    pair(runs, <int32_t> (4 * u + 3), <int32_t> (4 * w + 2))
                    runs.straight += 1
                    u += 1
                    w += 1
                    upper = <int32_t> (4 * u + 1)
                    lower = <int32_t> (4 * w)
                continue
            if b == c:
                status |= add_saddle(runs, <int32_t> (4 * u + 3), <int32_t> (4 * w))
            elif d == a:
                status |= add_saddle(runs, <int32_t> (4 * u + 1), <int32_t> (4 * w + 2))
        elif b == d:
            # Both end here, so the run that follows below (above) never meets this one in the loop.
            if w + 1 < w_end and cols[2 * w + 2] == b and labels[w + 1] == labels[u]:
                status |= add_saddle(runs, <int32_t> (4 * u + 3), <int32_t> (4 * w + 4))
            if u + 1 < u_end and cols[2 * u + 2] == b and labels[u + 1] == labels[w]:
                status |= add_saddle(runs, <int32_t> (4 * u + 5), <int32_t> (4 * w + 2))
        if b <= d:
            pair(runs, upper, <int32_t> (4 * u + 3))
            u += 1
            upper = <int32_t> (4 * u + 1)
        if d <= b:
            pair(runs, lower, <int32_t> (4 * w + 2))
            w += 1
            lower = <int32_t> (4 * w)
    while u < u_end:
        pair(runs, upper, <int32_t> (4 * u + 3))
        u += 1
        upper = <int32_t> (4 * u + 1)
    while w < w_end:
        pair(runs, lower, <int32_t> (4 * w + 2))
        w += 1
        lower = <int32_t> (4 * w)
    return status


cdef int find_runs(const label_t *labels, int64_t stride, int64_t height, int64_t width, Runs *runs) noexcept nogil:
    """Fill `runs` in one scan of the image; `stride` is the step from row to row in elements."""
    cdef int64_t row, k, n, above, low = 0
    cdef int status = OK
    cdef uint8_t *change = <uint8_t *> malloc(width + WORD)
    if change == NULL:
        return NO_MEMORY
    above = 0
    for row in range(height):
        runs.first[row] = runs.count
        # Most rows hold far fewer runs than pixels, but room for the worst row makes the inner loop free of checks.
        status = reserve_runs(runs, runs.count + width)
        if status != OK:
            break
        n = row_runs(labels + row * stride, width, change, runs.cols + 2 * runs.count, runs.labels + runs.count)
        for k in range(runs.count, runs.count + n):
            low = min(low, runs.labels[k])
        status = pair_rows(runs, above, runs.count, runs.count, runs.count + n)
        if status != OK:
            break
        above = runs.count
        runs.count += n
    runs.first[height] = runs.count
    free(change)
    if status == OK:
        status = pair_rows(runs, above, runs.count, runs.count, runs.count)
    return NEGATIVE_LABEL if status == OK and low < 0 else status


cdef int reserve_ring(Rings *rings) noexcept nogil:
    cdef int64_t capacity
    if rings.count < rings.capacity:
        return OK
    capacity = max(<int64_t> 1024, 2 * rings.capacity)
    if (resize(<void **> &rings.end, capacity * sizeof(int64_t))
            or resize(<void **> &rings.part, capacity * sizeof(int64_t))
            or resize(<void **> &rings.area, capacity * sizeof(int64_t))
            or resize(<void **> &rings.shell, capacity)
            or resize(<void **> &rings.shell_side, capacity * sizeof(int64_t))
            or resize(<void **> &rings.shell_row, capacity * sizeof(int64_t))):
        return NO_MEMORY
    rings.capacity = capacity
    return OK


cdef int64_t trace_ring(const Runs *runs, Rings *rings, int64_t side, int64_t row, int32_t *corners) noexcept nogil:
    """Follow one ring from `side`, whose upper end lies on boundary `row`; return the number of its corners.

    The walk goes down right sides and up left ones and sets out along the ring's top edge, so a shell's first corner is
    that of its first pixel. A hole, found by the right side at its top left, sets out from the side before that one.
    """
    cdef int32_t ring = <int32_t> rings.count
    cdef int64_t begin, next_side, y = row, n = 0, area = 0
    cdef int32_t x, next_x
    if side & 1:
        side = runs.links[2 * side] >> 1
    begin = side
    while True:
        x = runs.cols[side]
        rings.of_side[side] = ring
        area += x if side & 1 else -x
        next_side = runs.links[2 * side + (side & 1)] >> 1
        next_x = runs.cols[next_side]
        if next_x != x:
            corners[2 * n] = <int32_t> y
            corners[2 * n + 1] = x
            corners[2 * n + 2] = <int32_t> y
            corners[2 * n + 3] = next_x
            n += 2
        y += 1 if next_side & 1 else -1
        side = next_side
        if side == begin:
            break
    rings.area[ring] = area
    return n


cdef int trace(const Runs *runs, int64_t height, Rings *rings, int32_t *corners) noexcept nogil:
    """Trace all rings in raster order of their first side: a part's shell comes before its holes.

    A ring that is met by a left side is a shell. One that is met by the right side of a run is a hole of the part that
    the run's left side, to the west of it and so traced already, belongs to.
    """
    cdef int64_t row, side, n = 0
    rings.count = 0
    rings.parts = 0
    memset(rings.of_side, 0xff, 2 * runs.count * sizeof(int32_t))
    for row in range(height):
        for side in range(2 * runs.first[row], 2 * runs.first[row + 1]):
            if rings.of_side[side] >= 0:
                continue
            if reserve_ring(rings) != OK:
                return NO_MEMORY
            n += trace_ring(runs, rings, side, row, corners + 2 * n)
            rings.end[rings.count] = n
            rings.shell[rings.count] = not side & 1
            if side & 1:
                rings.part[rings.count] = rings.part[rings.of_side[side - 1]]
            else:
                rings.part[rings.count] = rings.parts
                rings.shell_side[rings.parts] = side
                rings.shell_row[rings.parts] = row
                rings.parts += 1
            rings.count += 1
    return OK


cdef bint join_saddles(Runs *runs, const Rings *rings) noexcept nogil:
    """Join diagonal touches within one 4-connected part, so that its background, not itself, is parted there.

    Returns whether any was joined and the rings must be traced again.
    """
    cdef int64_t k
    cdef int32_t upper, lower, to_upper, to_lower
    cdef bint joined = False
    for k in range(runs.saddles):
        upper = runs.saddle[2 * k]
        lower = runs.saddle[2 * k + 1]
        if rings.part[rings.of_side[upper >> 1]] == rings.part[rings.of_side[lower >> 1]]:
            to_upper = runs.links[upper]
            to_lower = runs.links[lower]
            pair(runs, upper, to_lower)
            pair(runs, lower, to_upper)
            joined = True
    return joined


cdef int64_t number_parts(const Runs *runs, const Rings *rings, int64_t *numbers) noexcept nogil:
    """Number each part's label in order of appearance; return how many labels there are, or -1 when memory is out."""
    cdef Index index
    cdef int64_t part, count
    memset(&index, 0, sizeof(Index))
    for part in range(rings.parts):
        numbers[part] = number_of(&index, runs.labels[rings.shell_side[part] >> 1])
        if numbers[part] < 0:
            index.count = -1
            break
    count = index.count
    free(index.keys)
    free(index.numbers)
    return count


cdef void counting_sort(const int64_t *keys, const int64_t *items, int64_t n, int64_t kinds,
                        int64_t *begins, int64_t *sorted_items) noexcept nogil:
    """Sort `items` by keys[item] in 0..kinds-1, stably; begins[k]:begins[k + 1] are those with key k."""
    cdef int64_t i, key
    memset(begins, 0, (kinds + 1) * sizeof(int64_t))
    for i in range(n):
        begins[keys[items[i]] + 1] += 1
    for key in range(kinds):
        begins[key + 1] += begins[key]
    for i in range(n):
        key = keys[items[i]]
        sorted_items[begins[key]] = items[i]
        begins[key] += 1
    for key in range(kinds, 0, -1):
        begins[key] = begins[key - 1]
    begins[0] = 0


cdef int sort_rings(const Rings *rings, const int64_t *numbers, int64_t objects, int64_t *begins, int64_t *order) noexcept nogil:
    """Order rings by (object, part, discovery); `begins` (objects + 1,) receives each object's first ring."""
    cdef int64_t i, n = rings.count
    cdef int64_t *items = <int64_t *> malloc((n + 1) * sizeof(int64_t))
    cdef int64_t *part_begins = <int64_t *> malloc((n + 1) * sizeof(int64_t))
    cdef int64_t *owner = <int64_t *> malloc((n + 1) * sizeof(int64_t))
    if items == NULL or part_begins == NULL or owner == NULL:
        free(items)
        free(part_begins)
        free(owner)
        return NO_MEMORY
    for i in range(n):
        items[i] = i
        owner[i] = numbers[rings.part[i]]
    counting_sort(rings.part, items, n, rings.parts, part_begins, order)
    memcpy(items, order, n * sizeof(int64_t))
    counting_sort(owner, items, n, objects, begins, order)
    free(items)
    free(part_begins)
    free(owner)
    return OK


cdef void fill_rings(const Rings *rings, const int64_t *order, const int32_t *traced, uint8_t[::1] shells,
                     int64_t[::1] offsets, int32_t *corners) noexcept nogil:
    """Copy the rings in their final order."""
    cdef int64_t i, ring, begin, length, at = 0
    for i in range(rings.count):
        ring = order[i]
        begin = rings.end[ring - 1] if ring else 0
        length = rings.end[ring] - begin
        memcpy(corners + 2 * at, traced + 2 * begin, 2 * length * sizeof(int32_t))
        shells[i] = rings.shell[ring]
        offsets[i] = at
        at += length
    offsets[rings.count] = at


cdef void fill_objects(const Runs *runs, const Rings *rings, const int64_t *numbers, int64_t[::1] labels,
                       int64_t[:, ::1] first, int64_t[::1] pixels) noexcept nogil:
    """Fill the objects' labels, first pixels and pixel counts; `pixels` comes zeroed."""
    cdef int64_t part, ring, number
    for part in range(rings.parts - 1, -1, -1):     # backwards, so that an object's first part has the last word
        number = numbers[part]
        labels[number] = runs.labels[rings.shell_side[part] >> 1]
        first[number, 0] = rings.shell_row[part]
        first[number, 1] = runs.cols[rings.shell_side[part]]
    for ring in range(rings.count):
        pixels[numbers[rings.part[ring]]] += rings.area[ring]


cdef int32_t *trace_all(Runs *runs, int64_t height, Rings *rings) noexcept nogil:
    """Trace all rings, diagonal touches joined where they must be; return their corners, NULL when memory is out."""
    cdef int64_t corners = 2 * (2 * runs.count - runs.straight)
    cdef int32_t *traced = <int32_t *> malloc((2 * corners + 2) * sizeof(int32_t))
    rings.of_side = <int32_t *> malloc((2 * runs.count + 1) * sizeof(int32_t))
    if traced == NULL or rings.of_side == NULL or trace(runs, height, rings, traced) != OK or (
            runs.saddles and join_saddles(runs, rings) and trace(runs, height, rings, traced) != OK):
        free(traced)
        return NULL
    return traced


cdef void free_runs(Runs *runs) noexcept nogil:
    free(runs.first)
    free(runs.cols)
    free(runs.labels)
    free(runs.links)
    free(runs.saddle)


cdef void free_rings(Rings *rings) noexcept nogil:
    free(rings.of_side)
    free(rings.end)
    free(rings.part)
    free(rings.area)
    free(rings.shell)
    free(rings.shell_side)
    free(rings.shell_row)


cdef check(int status):
    if status == NO_MEMORY:
        raise MemoryError("no memory for the outlines")
    if status == NEGATIVE_LABEL:
        raise ValueError("labels must not be negative")
    if status == TOO_MANY_RUNS:
        raise OverflowError("the image has more than 2^29 runs of labels: outline it in blocks")


cdef arrange(const Runs *runs, const Rings *rings, const int32_t *traced):
    """Return the columns (labels, first, pixels, rings, shells, offsets, corners)."""
    cdef int64_t count = rings.count
    cdef int64_t objects
    cdef int status
    cdef int64_t[::1] numbers = np.empty(max(1, rings.parts), np.int64)
    cdef int64_t[::1] order = np.empty(max(1, count), np.int64)
    with nogil:
        objects = number_parts(runs, rings, &numbers[0])
    check(NO_MEMORY if objects < 0 else OK)
    columns = (np.empty(objects, np.int64), np.empty((objects, 2), np.int64), np.zeros(objects, np.int64),
               np.empty(objects + 1, np.int64), np.empty(count, np.uint8), np.empty(count + 1, np.int64),
               np.empty((rings.end[count - 1] if count else 0, 2), np.int32))
    cdef int64_t[::1] labels = columns[0]
    cdef int64_t[:, ::1] first = columns[1]
    cdef int64_t[::1] pixels = columns[2]
    cdef int64_t[::1] begins = columns[3]
    cdef uint8_t[::1] shells = columns[4]
    cdef int64_t[::1] offsets = columns[5]
    cdef int32_t[:, ::1] corners = columns[6]
    with nogil:
        status = sort_rings(rings, &numbers[0], objects, &begins[0], &order[0])
        if status == OK:
            fill_rings(rings, &order[0], traced, shells, offsets, &corners[0, 0] if count else NULL)
            fill_objects(runs, rings, &numbers[0], labels, first, pixels)
    check(status)
    return columns


def outlines(const label_t[:, :] labels):
    """Return the columns of nuclix.ext.outlines.Outlines. Rows of `labels` are contiguous; neither side is 2^31 or more."""
    cdef int64_t height = labels.shape[0], width = labels.shape[1]
    cdef int64_t stride = labels.strides[0] // <int64_t> sizeof(label_t)
    cdef const label_t *image = &labels[0, 0] if height and width else NULL
    cdef int32_t *traced = NULL
    cdef int status = OK
    cdef Runs runs
    cdef Rings rings
    memset(&runs, 0, sizeof(Runs))
    memset(&rings, 0, sizeof(Rings))
    if not width:
        height = 0
    try:
        with nogil:
            runs.first = <int64_t *> calloc(height + 1, sizeof(int64_t))
            status = NO_MEMORY if runs.first == NULL else find_runs(image, stride, height, width, &runs)
            if status == OK:
                traced = trace_all(&runs, height, &rings)
                status = NO_MEMORY if traced == NULL else OK
        check(status)
        return arrange(&runs, &rings, traced)
    finally:
        free(traced)
        free_runs(&runs)
        free_rings(&rings)


cdef int64_t add_up(const label_t *labels, int64_t stride, const value_t *values, int64_t value_stride,
                    int64_t height, int64_t width, double **sums) noexcept nogil:
    """Sum `values` over each label; return the number of labels, or minus a status."""
    cdef Index index
    cdef int64_t row, k, c, n, number, room = 0, status = OK
    cdef double total
    cdef uint8_t *change = <uint8_t *> malloc(width + WORD)
    cdef int32_t *cols = <int32_t *> malloc((2 * width + 2) * sizeof(int32_t))
    cdef int64_t *run_labels = <int64_t *> malloc((width + 1) * sizeof(int64_t))
    memset(&index, 0, sizeof(Index))
    if change == NULL or cols == NULL or run_labels == NULL:
        status = NO_MEMORY
        height = 0
    for row in range(height):
        n = row_runs(labels + row * stride, width, change, cols, run_labels)
        for k in range(n):
            number = number_of(&index, run_labels[k])
            if number < 0 or (number >= room and resize(<void **> sums, 2 * (number + 512) * sizeof(double))):
                status = NO_MEMORY
                break
            if number >= room:
                memset(sums[0] + room, 0, (2 * (number + 512) - room) * sizeof(double))
                room = 2 * (number + 512)
            total = 0
            for c in range(cols[2 * k], cols[2 * k + 1]):
                total += values[row * value_stride + c]
            sums[0][number] += total
        if status != OK:
            break
    free(change)
    free(cols)
    free(run_labels)
    free(index.keys)
    free(index.numbers)
    return index.count if status == OK else -status


def sums(const label_t[:, :] labels, const value_t[:, :] values):
    """Return the float64 sum of `values` over each label, in order of first pixel. Rows of both are contiguous."""
    cdef int64_t height = labels.shape[0], width = labels.shape[1], count
    cdef int64_t stride = labels.strides[0] // <int64_t> sizeof(label_t)
    cdef int64_t value_stride = values.strides[0] // <int64_t> sizeof(value_t)
    cdef double *totals = NULL
    if not height or not width:
        return np.zeros(0)
    try:
        with nogil:
            count = add_up(&labels[0, 0], stride, &values[0, 0], value_stride, height, width, &totals)
        check(<int> -count if count < 0 else OK)
        result = np.empty(count)
        if count:
            memcpy(<void *> <size_t> result.ctypes.data, totals, count * sizeof(double))
        return result
    finally:
        free(totals)
