# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""Pixel-edge polygons of a label image, from its runs (_pairing.pxi). Called through nuclix.ext.outlines, which validates."""

import numpy as np

include "_label_runs.pxi"
include "_pairing.pxi"

cdef extern from "_rows.h":
    void fetch(const void *address) noexcept nogil

cdef enum:
    AHEAD = 64              # rows that are brought near before they are traced: more than a nucleus is high

cdef struct Rings:
    int64_t count
    int64_t capacity
    int64_t parts           # shells, that is 4-connected parts, in order of their first pixel
    int64_t *end            # (capacity,) corner after the ring's last
    int64_t *part           # (capacity,)
    int64_t *area           # (capacity,) signed area: holes are negative
    uint8_t *shell          # (capacity,)
    int64_t *part_row       # (capacity,) first pixel of each part
    int64_t *part_col
    int64_t *part_label


cdef int reserve_ring(Rings *rings) noexcept nogil:
    cdef int64_t capacity
    if rings.count < rings.capacity:
        return OK
    capacity = max(<int64_t> 1024, 2 * rings.capacity)
    if (resize(<void **> &rings.end, capacity * sizeof(int64_t))
            or resize(<void **> &rings.part, capacity * sizeof(int64_t))
            or resize(<void **> &rings.area, capacity * sizeof(int64_t))
            or resize(<void **> &rings.shell, capacity)
            or resize(<void **> &rings.part_row, capacity * sizeof(int64_t))
            or resize(<void **> &rings.part_col, capacity * sizeof(int64_t))
            or resize(<void **> &rings.part_label, capacity * sizeof(int64_t))):
        return NO_MEMORY
    rings.capacity = capacity
    return OK


cdef int64_t trace_ring(const Runs *runs, int64_t side, int64_t row, int64_t *area, int32_t *corners) noexcept nogil:
    """Follow one ring from `side`, whose upper end lies on boundary `row`; return the number of its corners.

    The walk goes down right sides and up left ones and sets out along the ring's top edge, so a shell's first corner is
    that of its first pixel. A hole, found by the right side at its top left, sets out from the side before that one.
    It cuts the pairs that it has followed, which is how a side is known to be traced.
    """
    cdef int64_t y = row, n = 0
    cdef int32_t *leave
    cdef int32_t x, next_x
    if side & 1:
        side = link(runs, 2 * side)[0] >> 1
    area[0] = 0
    leave = link(runs, 2 * side + (side & 1))
    x = runs.data[4 * side]
    while leave[0] >= 0:
        area[0] += x if side & 1 else -x
        side = leave[0] >> 1
        leave[0] = -1
        next_x = runs.data[4 * side]
        # Written whether or not the ring turns here (no processor could foresee it): what is not counted is overwritten.
        corners[2 * n] = <int32_t> y
        corners[2 * n + 1] = x
        corners[2 * n + 2] = <int32_t> y
        corners[2 * n + 3] = next_x
        n += 2 * (next_x != x)
        y += 1 if side & 1 else -1
        x = next_x
        leave = link(runs, 2 * side + (side & 1))
    return n


cdef void prefetch_row(const Runs *runs, int64_t row, int64_t height) noexcept nogil:
    """Bring a row's runs near before rings reach down to it: a ring's own path is no pattern that a processor foresees."""
    cdef int64_t run
    if row < height:
        for run in range(runs.first[row], runs.first[row + 1], 2):      # two to a cache line
            fetch(runs.data + 8 * run)


cdef int trace(const Runs *runs, int64_t height, Rings *rings, int32_t *corners) noexcept nogil:
    """Trace all rings in raster order of their first side: a part's shell comes before its holes.

    A ring that is met by a left side is a shell: its run is the first of its part. One that is met by a right side is a hole.
    """
    cdef int64_t row, side, n = 0
    for row in range(height):
        prefetch_row(runs, row + AHEAD, height)
        for side in range(2 * runs.first[row], 2 * runs.first[row + 1]):
            if link(runs, 2 * side + (side & 1))[0] < 0:
                continue
            if reserve_ring(rings) != OK:
                return NO_MEMORY
            if not side & 1:
                runs.data[4 * side + 7] = <int32_t> rings.parts
                rings.part_row[rings.parts] = row
                rings.part_col[rings.parts] = runs.data[4 * side]
                rings.parts += 1
            n += trace_ring(runs, side, row, rings.area + rings.count, corners + 2 * n)
            rings.end[rings.count] = n
            rings.shell[rings.count] = not side & 1
            rings.part[rings.count] = runs.data[8 * root_of(runs.data, side >> 1) + 7]
            rings.count += 1
    return OK


cdef int32_t *trace_all(Runs *runs, int64_t height, bint diagonals, Rings *rings) noexcept nogil:
    """Trace all rings, diagonal touches joined where they must be; return their corners, NULL when memory is out."""
    cdef int64_t corners = 2 * (2 * runs.count - runs.straight)
    cdef int32_t *traced = <int32_t *> malloc((2 * corners + 4) * sizeof(int32_t))
    join_saddles(runs, diagonals)
    if traced == NULL or trace(runs, height, rings, traced) != OK:
        free(traced)
        return NULL
    return traced


cdef void label_parts(const label_t *labels, int64_t stride, Rings *rings) noexcept nogil:
    cdef int64_t part
    for part in range(rings.parts):
        rings.part_label[part] = <int64_t> labels[rings.part_row[part] * stride + rings.part_col[part]]


cdef int64_t number_parts(const Rings *rings, int64_t *numbers) noexcept nogil:
    """Number each part's label in order of appearance; return how many labels there are, or -1 when memory is out."""
    cdef Index index
    cdef int64_t part
    memset(&index, 0, sizeof(Index))
    for part in range(rings.parts):
        numbers[part] = number_of(&index, rings.part_label[part])
        if numbers[part] < 0:
            index.count = -1
            break
    free(index.keys)
    free(index.numbers)
    return index.count


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


cdef void fill_objects(const Rings *rings, const int64_t *numbers, int64_t[::1] labels, int64_t[:, ::1] first,
                       int64_t[::1] pixels) noexcept nogil:
    """Fill the objects' labels, first pixels and pixel counts; `pixels` comes zeroed."""
    cdef int64_t part, ring, number
    for part in range(rings.parts - 1, -1, -1):     # backwards, so that an object's first part has the last word
        number = numbers[part]
        labels[number] = rings.part_label[part]
        first[number, 0] = rings.part_row[part]
        first[number, 1] = rings.part_col[part]
    for ring in range(rings.count):
        pixels[numbers[rings.part[ring]]] += rings.area[ring]


cdef void free_runs(Runs *runs) noexcept nogil:
    free(runs.first)
    free(runs.data)
    free(runs.saddle)
    runs.first = NULL
    runs.data = NULL
    runs.saddle = NULL


cdef void free_rings(Rings *rings) noexcept nogil:
    free(rings.end)
    free(rings.part)
    free(rings.area)
    free(rings.shell)
    free(rings.part_row)
    free(rings.part_col)
    free(rings.part_label)


cdef check(int status):
    if status == NO_MEMORY:
        raise MemoryError("no memory for the outlines")
    if status == NEGATIVE_LABEL:
        raise ValueError("labels must not be negative")
    if status == TOO_MANY_RUNS:
        raise OverflowError("the image has more than 2^29 runs of labels: outline it in blocks")


cdef arrange(const Rings *rings, const int32_t *traced):
    """Return the columns (labels, first, pixels, rings, shells, offsets, corners)."""
    cdef int64_t count = rings.count
    cdef int64_t objects
    cdef int status
    cdef int64_t[::1] numbers = np.empty(max(1, rings.parts), np.int64)
    cdef int64_t[::1] order = np.empty(max(1, count), np.int64)
    with nogil:
        objects = number_parts(rings, &numbers[0])
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
            fill_objects(rings, &numbers[0], labels, first, pixels)
    check(status)
    return columns


def outlines(const label_t[:, :] labels, bint diagonals=False):
    """Return the columns of nuclix.ext.outlines.Outlines. Rows of `labels` are contiguous; neither side is 2^31 or more.

    Parts are 4-connected, or 8-connected with `diagonals`; a ring of these may pass one corner twice.
    """
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
            status = find_runs(image, stride, height, width, &runs)
            if status == OK:
                traced = trace_all(&runs, height, diagonals, &rings)
                status = NO_MEMORY if traced == NULL else OK
                label_parts(image, stride, &rings)
            free_runs(&runs)        # before the columns are made, which then lie where the runs lay: in mapped memory
        check(status)
        return arrange(&rings, traced)
    finally:
        free(traced)
        free_runs(&runs)
        free_rings(&rings)
