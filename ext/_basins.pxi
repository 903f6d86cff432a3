# Flooding one clump: its pixels are sorted from high to low; each starts a basin, joins one, or makes basins meet.
# Included in _flooding.pyx, after _mask_runs.pxi.
#
# Input: a clump's pixels as items (key of the height << 32 | place in memory) and the memory of its places, zero, with a margin
# of one place on every side. Output: `Places.basins` with the number of a basin at every place, and the basins with their peaks.
# Invariants: a basin's `parent` chain ends at the basin that keeps its pixels; its number is at least 1.
#
# A pixel goes to the basin of the neighbour that a flood from the maxima reaches first. A neighbour in a
# basin that keeps its pixels is reached in its own turn; one in a basin that joined another is reached in the turn of
# the pixel that joined them (`Basin.joined`), but not before its own.

from libc.stdint cimport int32_t, uint32_t, uint64_t
from libc.stdlib cimport realloc
from libc.string cimport memset

cdef extern from "_rows.h" nogil:
    uint32_t key_of(float height)
    float height_of(uint32_t key)

cdef enum:
    FEW = 24            # up to so many elements insertion beats the radix passes
    MAX_DIGITS = 11     # bits of the largest digit: its counters stay in the first-level cache
    CLEAR_BITS = 9     # radix passes sort by so many bits more than pixels can be told apart with; insertion does the rest
    MOVES = 2           # of insertion for each element, at most: beyond them radix passes sort by all bits


cdef inline bint insertion_sort(uint64_t* items, Py_ssize_t count, Py_ssize_t moves) noexcept nogil:
    """Sort items unless it takes more than so many moves; return whether they are sorted."""
    cdef Py_ssize_t k, j
    cdef uint64_t item
    for k in range(1, count):
        item = items[k]
        j = k
        while j > 0 and items[j - 1] > item:
            items[j] = items[j - 1]
            j -= 1
        items[j] = item
        moves -= k - j
        if moves < 0:
            return False
    return True


cdef inline int digits_for(Py_ssize_t count, int bits, int* passes) noexcept nogil:
    """Return the bits of a digit, and how many passes cover `bits`, that cost least: moves and counters."""
    cdef int tried, digits, best = 0
    cdef Py_ssize_t cost, least = 0
    for tried in range(1, 5):
        digits = (bits + tried - 1) // tried
        if digits > MAX_DIGITS:
            continue
        cost = tried * (2 * count + (<Py_ssize_t> 1 << digits))
        if best == 0 or cost < least:
            best, least, passes[0] = digits, cost, tried
    return best


cdef inline void count_digits(const uint64_t* items, Py_ssize_t count, uint32_t low, int skip, int digits, int passes,
                              uint32_t* counters) noexcept nogil:
    """Turn counters, `passes` tables of 2^digits, into every digit's first place; `skip` bits are below all digits."""
    cdef uint32_t mask = (<uint32_t> 1 << digits) - 1, step, total
    cdef Py_ssize_t k
    cdef int turn
    memset(counters, 0, (<size_t> passes << digits) * sizeof(uint32_t))
    for k in range(count):
        step = (<uint32_t> (items[k] >> 32) - low) >> skip
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


cdef uint64_t* radix_sort(uint64_t* items, uint64_t* spare, Py_ssize_t count, uint32_t low, int bits, int skip) noexcept nogil:
    """Sort items by the upper bits of their keys less `low`, `skip` of `bits` left out, stably; return where they are."""
    cdef uint32_t[4 << MAX_DIGITS] tables
    cdef uint32_t* counters = tables
    cdef uint32_t mask, step
    cdef Py_ssize_t k
    cdef int passes = 0, turn, digits = digits_for(count, bits - skip, &passes)
    if passes == 2:                             # the common case, unrolled by the compiler
        count_digits(items, count, low, skip, digits, 2, counters)
    else:
        count_digits(items, count, low, skip, digits, passes, counters)
    mask = (<uint32_t> 1 << digits) - 1
    for turn in range(passes):
        for k in range(count):
            step = ((<uint32_t> (items[k] >> 32) - low) >> skip) & mask
            spare[counters[step]] = items[k]
            counters[step] += 1
        counters += mask + 1
        skip += digits
        items, spare = spare, items
    return items


cdef uint64_t* sort_items(uint64_t* items, uint64_t* spare, Py_ssize_t count, uint32_t low, uint32_t high) noexcept nogil:
    """Sort items whose keys lie in low..high and whose places rise; return where they are, `items` or `spare`."""
    cdef int bits = 0, clear = CLEAR_BITS
    cdef uint64_t* sorted
    if count <= FEW:
        insertion_sort(items, count, count * count)
        return items
    while bits < 32 and (high - low) >> bits:
        bits += 1
    if bits == 0:
        return items
    while count >> (clear - CLEAR_BITS):
        clear += 1
    if clear >= bits:
        return radix_sort(items, spare, count, low, bits, 0)
    sorted = radix_sort(items, spare, count, low, bits, bits - clear)
    if insertion_sort(sorted, count, MOVES * count):
        return sorted
    return radix_sort(sorted, spare if sorted == items else items, count, low, bits, 0)

cdef struct Basin:
    uint64_t peak           # key and place of its highest pixel
    uint64_t joined         # key and place of the pixel that brought it to the basin it belongs to; 0: one plateau
    double height           # of the peak
    int32_t parent          # the basin it joined, or itself
    int32_t label           # the region's

cdef struct Pool:           # basins of a clump; number 0 is none
    Basin* items
    int32_t count
    int32_t capacity

cdef struct Places:         # where a clump's pixels lie in memory, with a margin of one place on every side
    int32_t* basins         # of each place; until it is visited 0
    uint32_t stride
    Py_ssize_t row          # place 0 is this pixel of the image
    Py_ssize_t col

cdef struct Rule:
    const float* image
    Py_ssize_t width
    double h
    int neighbours


cdef inline int32_t new_basin(Pool* pool, uint64_t item, double height) noexcept nogil:
    """Start a basin at a pixel; return its number, or 0 without memory."""
    cdef int32_t capacity
    cdef Basin* items
    cdef Basin* basin
    if pool.count + 1 >= pool.capacity:
        capacity = 2 * pool.capacity + 64
        items = <Basin*> realloc(pool.items, capacity * sizeof(Basin))
        if items == NULL:
            return 0
        pool.items, pool.capacity = items, capacity
    pool.count += 1
    basin = &pool.items[pool.count]
    basin.peak, basin.joined, basin.height, basin.parent, basin.label = item, 0, height, pool.count, 0
    return pool.count


cdef inline int32_t find_basin(Basin* basins, int32_t node) noexcept nogil:
    """Return the basin that `node` belongs to; its `joined` becomes the last join on the way."""
    cdef int32_t up = basins[node].parent
    while basins[up].parent != up:
        basins[node].joined = basins[up].joined
        up = basins[up].parent
        basins[node].parent = up
    return up


cdef inline bint keeps(const Basin* basin, double height, double h) noexcept nogil:
    """Return whether a basin stays apart from a higher one that it meets at `height`."""
    return basin.height - height > h


cdef inline Py_ssize_t pixel_of(const Places* places, const Rule* rule, uint32_t place) noexcept nogil:
    return (places.row + place // places.stride) * rule.width + places.col + place % places.stride


cdef inline void neighbour_steps(const Places* places, const Rule* rule, Py_ssize_t* steps) noexcept nogil:
    """Fill in the steps to the 8 neighbours, the 4 nearest first: 8 in places, then 8 in pixels of the image."""
    cdef Py_ssize_t pitch
    cdef int k
    for k in range(2):
        pitch = rule.width if k else <Py_ssize_t> places.stride
        steps[0], steps[1], steps[2], steps[3] = -1, 1, -pitch, pitch
        steps[4], steps[5], steps[6], steps[7] = -1 - pitch, 1 - pitch, pitch - 1, pitch + 1
        steps += 8


cdef int32_t first_reached(const Pool* pool, const Places* places, const Rule* rule, uint64_t item,
                           const int32_t* roots, const Py_ssize_t* steps) noexcept nogil:
    """Return the basin that the pixel `item` goes to among those of its neighbours (0: none, else a root)."""
    cdef uint32_t place = <uint32_t> item, near
    cdef Py_ssize_t pixel = pixel_of(places, rule, place), row_step, across
    cdef double height = height_of(<uint32_t> (item >> 32))
    cdef uint64_t turn, least = 0
    cdef int32_t best = 0, highest = 0, own
    cdef int k
    for k in range(rule.neighbours):
        if not roots[k]:
            continue
        if highest == 0 or pool.items[roots[k]].peak < pool.items[highest].peak:
            highest = roots[k]
        if not keeps(&pool.items[roots[k]], height, rule.h):
            continue
        near = <uint32_t> (place + steps[k])
        own = places.basins[near]
        turn = <uint64_t> key_of(rule.image[pixel + steps[8 + k]]) << 32 | near
        if own != roots[k] and pool.items[own].joined > turn:
            turn = pool.items[own].joined
        if best == 0 or turn < least:
            best, least = roots[k], turn
    return best if best else highest


cdef int meet(Pool* pool, const Places* places, const Rule* rule, uint64_t item, const Py_ssize_t* steps) noexcept nogil:
    """Visit a pixel between basins, or apart from all; return -1 without memory."""
    cdef uint32_t place = <uint32_t> item
    cdef double height = height_of(<uint32_t> (item >> 32))
    cdef int32_t roots[8]
    cdef int32_t top = 0, only = 0
    cdef int k
    cdef Basin* basin
    for k in range(rule.neighbours):
        roots[k] = places.basins[place + steps[k]]
        if roots[k]:
            roots[k] = find_basin(pool.items, roots[k])
            only = roots[k] if only == 0 or only == roots[k] else -1
    top = only if only >= 0 else first_reached(pool, places, rule, item, roots, steps)
    if not top:
        top = new_basin(pool, item, height)
        if not top:
            return -1
    for k in range(rule.neighbours):
        basin = &pool.items[roots[k]]
        if roots[k] and roots[k] != top and not keeps(basin, height, rule.h):
            basin.parent = top
            basin.joined = 0 if pool.items[top].height == height else item
    places.basins[place] = top
    return 0


cdef inline int sweep(Pool* pool, const Places* places, const Rule* rule, const uint64_t* items, Py_ssize_t count,
                      bint corners) noexcept nogil:
    """Visit a clump's pixels in order; return -1 without memory."""
    cdef Py_ssize_t stride = places.stride, k
    cdef Py_ssize_t[16] steps
    cdef int32_t* place
    cdef const int32_t* north
    cdef const int32_t* south
    cdef const int32_t* west
    cdef int32_t high
    cdef uint32_t low
    neighbour_steps(places, rule, steps)
    for k in range(count):
        place = places.basins + <uint32_t> items[k]
        north, south, west = place - stride - 1, place + stride - 1, place - 1
        # The largest and the least basin around; 0 (none) becomes the largest unsigned number when 1 is taken off.
        high = max(max(west[0], west[2]), max(north[1], south[1]))
        low = min(min(<uint32_t> west[0] - 1, <uint32_t> west[2] - 1),
                  min(<uint32_t> north[1] - 1, <uint32_t> south[1] - 1))
        if corners:
            high = max(high, max(max(north[0], north[2]), max(south[0], south[2])))
            low = min(low, min(min(<uint32_t> north[0] - 1, <uint32_t> north[2] - 1),
                               min(<uint32_t> south[0] - 1, <uint32_t> south[2] - 1)))
        if low == <uint32_t> high - 1 and high:
            place[0] = high
        elif meet(pool, places, rule, items[k], steps):
            return -1
    return 0


cdef int flood(Pool* pool, const Places* places, const Rule* rule, const uint64_t* items,
               Py_ssize_t count) noexcept nogil:
    """Flood a clump given in order, the usual cases in loops of their own; return -1 without memory."""
    pool.count = 0
    if rule.neighbours == 8:
        return sweep(pool, places, rule, items, count, True)
    return sweep(pool, places, rule, items, count, False)
