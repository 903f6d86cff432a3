# Runs of equal labels: what outlines and per-label sums both stand on. Included, not imported.

from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc, realloc
from libc.string cimport memcpy, memset

cdef extern from "_rows.h":
    # out[c] = 1 where items a[c] and b[c] of `size` bytes differ, else 0
    void differ(int size, ptrdiff_t n, const void *a, const void *b, uint8_t *out) noexcept nogil

cdef extern from *:
    """
    #include <stdint.h>
    #if defined(_MSC_VER)
    #include <intrin.h>
    static inline int nuclix_low_bit(uint64_t word) {
        unsigned long at;
        _BitScanForward64(&at, word);
        return (int)at;
    }
    #else
    static inline int nuclix_low_bit(uint64_t word) { return __builtin_ctzll(word); }
    #endif
    static inline void nuclix_prefetch(const void *at) {
    #if defined(__GNUC__)
        __builtin_prefetch(at);
    #endif
    }
    /* Byte k of a word read from memory is bits 8k..8k+7 on every machine after this. */
    static inline uint64_t nuclix_little(uint64_t word) {
    #if defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
        return __builtin_bswap64(word);
    #else
        return word;
    #endif
    }
    """
    int nuclix_low_bit(uint64_t word) noexcept nogil
    uint64_t nuclix_little(uint64_t word) noexcept nogil
    void nuclix_prefetch(const void *at) noexcept nogil

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

cdef enum:
    WORD = 8                # pixels whose change flags are tested at once


cdef int resize(void **block, int64_t bytes) noexcept nogil:
    cdef void *moved = realloc(block[0], bytes)
    if moved == NULL:
        return NO_MEMORY
    block[0] = moved
    return OK


cdef int64_t row_runs(const label_t *row, int64_t width, uint8_t *change, int32_t *cols, int64_t *values) noexcept nogil:
    """List the runs of equal non-zero labels of a row.

    `change` has room for `width` bytes rounded up to WORD, `cols` for 2 * width + 2 columns and `values` for width + 1
    labels. Run k is cols[2k] <= column < cols[2k + 1]. Returns the number of runs.
    """
    cdef int64_t c, base, n = 0
    cdef uint64_t word
    cdef label_t last = 0
    change[0] = row[0] != 0
    differ(sizeof(label_t), width - 1, row + 1, row, change + 1)
    for c in range(width, (width + WORD - 1) // WORD * WORD):
        change[c] = 0
    base = 0
    while base < width:
        memcpy(&word, change + base, WORD)
        word = nuclix_little(word)
        while word:
            c = base + (nuclix_low_bit(word) >> 3)
            word &= word - 1
            # Written whether or not a run ends or starts here: what is not counted is overwritten.
            cols[2 * n + 1] = <int32_t> c
            n += last != 0
            last = row[c]
            cols[2 * n] = <int32_t> c
            values[n] = <int64_t> last
        base += WORD
    if last != 0:
        cols[2 * n + 1] = <int32_t> width
        n += 1
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
