# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False, cdivision=True
"""Kernel of nuclix.ext.distance; preconditions are checked there.

The chessboard distance d(p) is the least of seed(q) + |p - q| over all pixels q, where seeds are 0 on background and,
inside instances, 1 on pixels that touch another label. A king's walk from q to p can make its diagonal moves first and
its moves along the row last, so three passes suffice and none has a recurrence along the row:

1. downwards, each row from the three neighbours in the row above (every q above p and at most 45 degrees off);
2. upwards, the same from below;
3. along each row, min-plus with |k|: windows of radius 1, 3, 7, 15, ... until the row's largest value is covered.

Bytes hold distances up to 254; an image with a larger one is done again with 16 bits.
"""

from libc.stdint cimport uint8_t, uint16_t
from libc.stdlib cimport free, malloc
from libc.string cimport memset

cdef extern from "_rows.h" nogil:
    void differ(int size, Py_ssize_t n, const void* a, const void* b, uint8_t* out)
    void occupied(int size, Py_ssize_t n, const void* a, uint8_t* out)
    void mark(Py_ssize_t n, const uint8_t* own, uint8_t* rim)
    void seed_u8(Py_ssize_t n, const uint8_t* inside, const uint8_t* rim, uint8_t* out)
    void seed_u16(Py_ssize_t n, const uint8_t* inside, const uint8_t* rim, uint16_t* out)
    void relax_u8(Py_ssize_t n, const uint8_t* before, const uint8_t* own, uint8_t* out)
    void relax_u16(Py_ssize_t n, const uint16_t* before, const uint16_t* own, uint16_t* out)
    uint8_t highest_u8(Py_ssize_t n, const uint8_t* row)
    uint16_t highest_u16(Py_ssize_t n, const uint16_t* row)
    void spread_u8(Py_ssize_t n, Py_ssize_t step, const uint8_t* row, uint8_t* out)
    void spread_u16(Py_ssize_t n, Py_ssize_t step, const uint16_t* row, uint16_t* out)
    void widen_u8(int size, Py_ssize_t n, uint8_t most, const uint8_t* row, void* out)
    void widen_u16(int size, Py_ssize_t n, uint16_t most, const uint16_t* row, void* out)

ctypedef fused cell:
    uint8_t
    uint16_t

cdef struct Labels:
    const char* data
    Py_ssize_t height
    Py_ssize_t width
    int size            # bytes of a label
    bint instances      # whether different labels bound each other; a mask has none

cdef struct Rims:       # rows of flags; those of the three rows around the current one lie at row % 3
    uint8_t* inside
    uint8_t* rim
    uint8_t* steps      # column c and c + 1 differ
    uint8_t* across[3]  # the pixel differs from its left or right neighbour
    uint8_t* down[3]    # the pixel differs from the one below


cdef inline const char* line(const Labels* labels, Py_ssize_t row) noexcept nogil:
    return labels.data + row * labels.width * labels.size


cdef void compare_along(const Labels* labels, Py_ssize_t row, Rims* rims) noexcept nogil:
    cdef uint8_t* out = rims.across[row % 3]
    memset(out, 0, labels.width)
    differ(labels.size, labels.width - 1, line(labels, row), line(labels, row) + labels.size, rims.steps)
    mark(labels.width - 1, rims.steps, out)
    mark(labels.width - 1, rims.steps, out + 1)


cdef void find_rim(const Labels* labels, Py_ssize_t row, Rims* rims) noexcept nogil:
    """Flag the row's pixels that touch another label: a 3x3 window has one if a row or the middle column of it has."""
    cdef Py_ssize_t width = labels.width, near
    if row == 0:
        compare_along(labels, 0, rims)
    if row + 1 < labels.height:
        compare_along(labels, row + 1, rims)
        differ(labels.size, width, line(labels, row), line(labels, row + 1), rims.down[row % 3])
    memset(rims.rim, 0, width)
    for near in range(max(row - 1, 0), min(row + 2, labels.height)):
        mark(width, rims.across[near % 3], rims.rim)
    for near in range(max(row - 1, 0), min(row + 1, labels.height - 1)):
        mark(width, rims.down[near % 3], rims.rim)


cdef inline void seed(const Labels* labels, Py_ssize_t row, Rims* rims, cell* out) noexcept nogil:
    occupied(labels.size, labels.width, line(labels, row), rims.inside)
    if labels.instances:
        find_rim(labels, row, rims)
    if cell is uint8_t:
        seed_u8(labels.width, rims.inside, rims.rim, out)
    else:
        seed_u16(labels.width, rims.inside, rims.rim, out)


cdef inline void relax(Py_ssize_t n, const cell* before, const cell* own, cell* out) noexcept nogil:
    if cell is uint8_t:
        relax_u8(n, before, own, out)
    else:
        relax_u16(n, before, own, out)


cdef inline cell highest(Py_ssize_t n, const cell* row) noexcept nogil:
    if cell is uint8_t:
        return highest_u8(n, row)
    else:
        return highest_u16(n, row)


cdef inline cell spread(Py_ssize_t n, cell** row, cell** spare) noexcept nogil:
    """Finish a row, which trades places with `spare` at every step; return its largest value."""
    cdef Py_ssize_t radius = 0, step, reach = <Py_ssize_t> highest(n, row[0]) - 1
    while radius < reach and radius + 1 < n:
        step = radius + 1
        if cell is uint8_t:
            spread_u8(n, step, row[0], spare[0])
        else:
            spread_u16(n, step, row[0], spare[0])
        row[0], spare[0] = spare[0], row[0]
        radius += step
    return highest(n, row[0])


cdef cell upwards(const Labels* labels, cell* rows, int size, cell most, char* out) noexcept nogil:
    """Finish what waits in `out`'s rows from below; `rows` is room for three; return the largest distance."""
    cdef Py_ssize_t width = labels.width, row, pitch = width * size
    cdef cell* before = rows
    cdef cell* own = rows + width
    cdef cell* spare = rows + 2 * width
    cdef cell top = 0
    memset(before, 0xFF, width * sizeof(cell))
    for row in range(labels.height - 1, -1, -1):
        relax(width, before, <const cell*> (out + row * pitch), own)
        top = max(top, spread(width, &own, &spare))
        if cell is uint8_t:
            widen_u8(size, width, most, own, out + row * pitch)
        else:
            widen_u16(size, width, most, own, out + row * pitch)
        before, own = own, before
    return top


cdef int transform(const Labels* labels, int size, cell most, cell* top, char* out) noexcept nogil:
    """Fill `out`, whose pixels have `size` bytes, with distances of at most `most`; return -1 without memory.

    After the downward pass a row's distances wait at the beginning of its own row of `out`.
    """
    cdef Py_ssize_t width = labels.width, row, pitch = width * size
    cdef Rims rims
    cdef uint8_t* flags = <uint8_t*> malloc(9 * width)
    cdef cell* rows = <cell*> malloc(3 * width * sizeof(cell))
    cdef const cell* before = rows
    if flags == NULL or rows == NULL:
        free(flags)
        free(rows)
        return -1
    memset(flags, 0, 9 * width)
    rims.inside, rims.rim, rims.steps = flags, flags + width, flags + 2 * width
    for row in range(3):
        rims.across[row], rims.down[row] = flags + (3 + row) * width, flags + (6 + row) * width
    memset(rows, 0xFF, width * sizeof(cell))
    for row in range(labels.height):
        seed(labels, row, &rims, rows + width)
        relax(width, before, <const cell*> (rows + width), <cell*> (out + row * pitch))
        before = <const cell*> (out + row * pitch)
    top[0] = upwards(labels, rows, size, most, out)
    free(flags)
    free(rows)
    return 0


def distance(const uint8_t[:, ::1] labels, uint8_t[:, ::1] out, int size, bint instances, Py_ssize_t most):
    """Fill `out` with the distances inside `labels`, both as bytes: a label has `size`, `out` ceil of its own.

    Parameters
    ----------
    labels : (H, W * size) uint8
        Labels of `size` bytes.
    out : (H, W * bytes) uint8
        Distances of 1, 2, 4 or 8 bytes.
    most : int
        Where distances saturate; what `out`'s pixels can hold.
    """
    cdef Labels source
    cdef int status, bytes_out
    cdef uint8_t low = 0
    cdef uint16_t high = 0
    source.height, source.width = labels.shape[0], labels.shape[1] // size
    if source.height == 0 or source.width == 0:
        return
    source.data, source.size, source.instances = <const char*> &labels[0, 0], size, instances
    bytes_out = <int> (out.shape[1] // source.width)
    with nogil:
        status = transform[uint8_t](&source, bytes_out, <uint8_t> min(most, 0xFF), &low, <char*> &out[0, 0])
        if status == 0 and low == 0xFF and most > 0xFF:
            status = transform[uint16_t](&source, bytes_out, <uint16_t> min(most, 0xFFFF), &high, <char*> &out[0, 0])
    if status:
        raise MemoryError("no memory for the rows of a distance transform")
