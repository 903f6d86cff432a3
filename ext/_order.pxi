# Pixels in the order in which they are flooded: highest first, equal ones in raster order.

from libc.stdint cimport uint32_t, uint64_t
from libc.string cimport memset

cdef extern from "_rows.h" nogil:
    uint32_t key_of(float height)
    float height_of(uint32_t key)

cdef enum:
    FEW = 24            # up to so many elements insertion beats the radix passes
    MOST_DIGITS = 11    # bits of the largest digit: its counters stay in the first-level cache


cdef inline void insert_all(uint64_t* items, Py_ssize_t count) noexcept nogil:
    cdef Py_ssize_t k, j
    cdef uint64_t item
    for k in range(1, count):
        item = items[k]
        j = k
        while j > 0 and items[j - 1] > item:
            items[j] = items[j - 1]
            j -= 1
        items[j] = item


cdef inline int digits_for(Py_ssize_t count, int bits, int* passes) noexcept nogil:
    """Return the bits of a digit, and how many passes cover `bits`, that cost least: moves and counters."""
    cdef int tried, digits, best = 0
    cdef Py_ssize_t cost, least = 0
    for tried in range(1, 5):
        digits = (bits + tried - 1) // tried
        if digits > MOST_DIGITS:
            continue
        cost = tried * (2 * count + (<Py_ssize_t> 1 << digits))
        if best == 0 or cost < least:
            best, least, passes[0] = digits, cost, tried
    return best


cdef inline void count_digits(const uint64_t* items, Py_ssize_t count, uint32_t low, int digits, int passes,
                              uint32_t* counters) noexcept nogil:
    """Turn counters, `passes` tables of 2^digits, into every digit's first place."""
    cdef uint32_t mask = (<uint32_t> 1 << digits) - 1, step, total
    cdef Py_ssize_t k
    cdef int turn
    memset(counters, 0, (<size_t> passes << digits) * sizeof(uint32_t))
    for k in range(count):
        step = <uint32_t> (items[k] >> 32) - low
        for turn in range(passes):
            counters[(turn << digits) + (step & mask)] += 1
            step >>= digits
    for turn in range(passes):
        total = 0
        for k in range(<Py_ssize_t> mask + 1):
            step = counters[k]
            counters[k] = total
            total += step
        counters += mask + 1


cdef uint64_t* sort(uint64_t* items, uint64_t* spare, Py_ssize_t count, uint32_t low, uint32_t high) noexcept nogil:
    """Sort items by their upper 32 bits, which lie in low..high, stably; return where they are, `items` or `spare`."""
    cdef uint32_t[4 << MOST_DIGITS] tables
    cdef uint32_t* counters = tables
    cdef uint32_t mask, step
    cdef Py_ssize_t k
    cdef int bits = 0, digits, passes = 0, turn, shift
    if count <= FEW:
        insert_all(items, count)
        return items
    while bits < 32 and (high - low) >> bits:
        bits += 1
    if bits == 0:
        return items
    digits = digits_for(count, bits, &passes)
    if passes == 3:                             # the common case, unrolled by the compiler
        count_digits(items, count, low, digits, 3, counters)
    else:
        count_digits(items, count, low, digits, passes, counters)
    mask = (<uint32_t> 1 << digits) - 1
    for turn in range(passes):
        shift = turn * digits
        for k in range(count):
            step = ((<uint32_t> (items[k] >> 32) - low) >> shift) & mask
            spare[counters[step]] = items[k]
            counters[step] += 1
        counters += mask + 1
        items, spare = spare, items
    return items
