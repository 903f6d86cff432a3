# Runs of equal labels: what outlines and per-label sums both stand on. Included, not imported.

from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc, realloc
from libc.string cimport memcpy, memset

cdef extern from "_rows.h":
    # out[c] = 1 where items a[c] and b[c] of `size` bytes differ, else 0
    void differ(int size, ptrdiff_t n, const void *a, const void *b, uint8_t *out) noexcept nogil

    enum:
        CHANGES_BLOCK
        CHANGES_FIRST
    # columns at which `marks` is 1
    int64_t marked_columns(const uint8_t *marks, int64_t size, int32_t *cols) noexcept nogil

ctypedef fused label_t:
    uint8_t
    uint16_t
    uint32_t
    int32_t
    int64_t

cdef enum:
    OK = 0
    NO_MEMORY = 1
    NEGATIVE_LABEL = 2
    TOO_MANY_RUNS = 3

cdef struct Scan:
    # What reading a row needs besides the row.
    int64_t size            # the width rounded up to CHANGES_BLOCK
    uint8_t *change         # (size,) 1 where a column's label differs from the one before
    int32_t *at             # (width + CHANGES_FIRST,) those columns


cdef int resize(void **block, int64_t bytes) noexcept nogil:
    cdef void *moved = realloc(block[0], bytes)
    if moved == NULL:
        return NO_MEMORY
    block[0] = moved
    return OK


cdef int new_scan(Scan *scan, int64_t width) noexcept nogil:
    scan.size = (width + CHANGES_BLOCK - 1) // CHANGES_BLOCK * CHANGES_BLOCK
    scan.change = <uint8_t *> calloc(scan.size + 1, 1)
    scan.at = <int32_t *> malloc((width + CHANGES_FIRST) * sizeof(int32_t))
    return NO_MEMORY if scan.change == NULL or scan.at == NULL else OK


cdef void free_scan(Scan *scan) noexcept nogil:
    free(scan.change)
    free(scan.at)


cdef int64_t row_runs(const label_t *row, int64_t width, Scan *scan, int32_t *cols, int64_t *values) noexcept nogil:
    """List the runs of equal non-zero labels of a row.

    `cols` has room for 2 * width + 2 columns and `values` for width + 1 labels. Run k is cols[2k] <= column < cols[2k + 1];
    after the last comes a column beyond all. Returns the number of runs.
    """
    cdef int64_t i, changes, n = 0
    cdef int32_t c
    cdef label_t last = 0
    scan.change[0] = row[0] != 0
    differ(sizeof(label_t), width - 1, row + 1, row, scan.change + 1)
    changes = marked_columns(scan.change, scan.size, scan.at)
    for i in range(changes):
        # Written whether or not a run ends or begins here: what is not counted is overwritten.
        c = scan.at[i]
        cols[2 * n + 1] = c
        n += last != 0
        last = row[c]
        cols[2 * n] = c
        values[n] = <int64_t> last
    if last != 0:
        cols[2 * n + 1] = <int32_t> width
        n += 1
    cols[2 * n] = 0x7fffffff
    return n


cdef struct Index:
    # Labels numbered in order of appearance: open addressing, at most half full.
    int64_t count
    int64_t mask
    int64_t *keys           # 0 marks a free slot: background is never looked up
    int64_t *numbers


cdef inline int64_t slot_of(const Index *index, int64_t label) noexcept nogil:
    # Fibonacci hashing: the multiplier is 2^64 / golden ratio.
    cdef int64_t slot = <int64_t> ((<uint64_t> label * 11400714819323198485ULL) >> 32) & index.mask
    while index.keys[slot] != 0 and index.keys[slot] != label:
        slot = (slot + 1) & index.mask
    return slot


cdef bint index_grow(Index *index) noexcept nogil:
    cdef Index wider
    cdef int64_t capacity = 1024 if index.keys == NULL else 2 * (index.mask + 1)
    cdef int64_t i, slot
    wider.count = index.count
    wider.mask = capacity - 1
    wider.keys = <int64_t *> calloc(capacity, sizeof(int64_t))
    wider.numbers = <int64_t *> malloc(capacity * sizeof(int64_t))
    if wider.keys == NULL or wider.numbers == NULL:
        free(wider.keys)
        free(wider.numbers)
        return False
    if index.keys != NULL:
        for i in range(index.mask + 1):
            if index.keys[i] != 0:
                slot = slot_of(&wider, index.keys[i])
                wider.keys[slot] = index.keys[i]
                wider.numbers[slot] = index.numbers[i]
    free(index.keys)
    free(index.numbers)
    index[0] = wider
    return True


cdef inline int64_t number_of(Index *index, int64_t label) noexcept nogil:
    """Return the number of `label`, a new one where it is met for the first time; -1 when memory is out."""
    cdef int64_t slot
    if index.keys == NULL or 2 * index.count > index.mask:
        if not index_grow(index):
            return -1
    slot = slot_of(index, label)
    if index.keys[slot] == 0:
        index.keys[slot] = label
        index.numbers[slot] = index.count
        index.count += 1
    return index.numbers[slot]
