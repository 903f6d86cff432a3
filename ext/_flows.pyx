# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False, cdivision=True
"""Kernel of nuclix.ext.flows; preconditions are checked there.

A clump is worked on in a frame around it, with coordinates relative to the frame, so that rounding does not depend on
where it lies in the array. Flows outside the clump are 0.
"""

from libc.math cimport log, sqrt
from libc.stdint cimport int32_t, uint64_t
from libc.stdlib cimport free, malloc, qsort
from libc.string cimport memset

cdef enum:
    PAD = 4             # px of a frame around its clump: pixels may leave the clump by a step, windows by two more
    WINDOW = 2          # px around a sink in which it is the largest
    GROWTH = 5          # px that a sink grows to
    CIRCLE = 12         # steps: a multiple of the lengths of usual circles, 1, 2, 3, 4 and 6
    LANES = 8           # pixels that move together, so that none waits for another's memory

cdef uint64_t LOW = 0xFFFFFFFF      # of a seed: its place

cdef struct Rule:
    int steps           # of each pixel
    float scale         # of the flows to px a step
    int32_t seeds       # a sink holds more pixels
    int32_t basin       # a place that a sink grows over holds more pixels

cdef struct Frame:
    Py_ssize_t height
    Py_ssize_t width
    Py_ssize_t top      # of place 0 in the array
    Py_ssize_t left
    Py_ssize_t pixels
    Py_ssize_t room     # places that memory is reserved for
    float* flows        # down and right of each place
    int32_t* counts     # pixels that end in each place
    int32_t* sinks      # number of the sink of each place
    int32_t* ends       # place in which each pixel ends
    int32_t* starts     # place of each pixel
    int32_t* rims       # places to grow from, and those reached next
    float* at           # coordinates of each pixel
    uint64_t* seeds     # sinks as ~count << 32 | place


cdef void release(Frame* frame) noexcept nogil:
    free(frame.flows)
    free(frame.counts)
    free(frame.sinks)
    free(frame.ends)
    free(frame.starts)
    free(frame.rims)
    free(frame.at)
    free(frame.seeds)
    memset(frame, 0, sizeof(Frame))


cdef int reserve(Frame* frame, Py_ssize_t places) noexcept nogil:
    """Make room for a frame of so many places; return -1 without memory."""
    if places <= frame.room:
        return 0
    release(frame)
    frame.room = 2 * places
    frame.flows = <float*> malloc(2 * frame.room * sizeof(float))
    frame.counts = <int32_t*> malloc(frame.room * sizeof(int32_t))
    frame.sinks = <int32_t*> malloc(frame.room * sizeof(int32_t))
    frame.ends = <int32_t*> malloc(frame.room * sizeof(int32_t))
    frame.starts = <int32_t*> malloc(frame.room * sizeof(int32_t))
    frame.rims = <int32_t*> malloc(2 * frame.room * sizeof(int32_t))
    frame.at = <float*> malloc(2 * (frame.room + LANES) * sizeof(float))
    frame.seeds = <uint64_t*> malloc(frame.room * sizeof(uint64_t))
    if (frame.flows == NULL or frame.counts == NULL or frame.sinks == NULL or frame.ends == NULL
            or frame.starts == NULL or frame.rims == NULL or frame.at == NULL or frame.seeds == NULL):
        return -1
    return 0


cdef int lay_out(Frame* frame, const float[:, ::1] down, const float[:, ::1] right, const int32_t[:, ::1] clumps,
                 const int32_t[:, ::1] boxes, int32_t clump, float scale) noexcept nogil:
    """Copy a clump's flows into its frame; return -1 without memory."""
    cdef Py_ssize_t row, col, place
    cdef Py_ssize_t height = boxes[clump, 2] - boxes[clump, 0] + 2 * PAD
    cdef Py_ssize_t width = boxes[clump, 3] - boxes[clump, 1] + 2 * PAD
    if reserve(frame, height * width):
        return -1
    frame.height, frame.width, frame.pixels = height, width, 0
    frame.top, frame.left = boxes[clump, 0] - PAD, boxes[clump, 1] - PAD
    memset(frame.flows, 0, 2 * height * width * sizeof(float))
    memset(frame.counts, 0, height * width * sizeof(int32_t))
    memset(frame.sinks, 0, height * width * sizeof(int32_t))
    for row in range(boxes[clump, 0], boxes[clump, 2]):
        for col in range(boxes[clump, 1], boxes[clump, 3]):
            if clumps[row, col] != clump:
                continue
            place = (row - frame.top) * width + col - frame.left
            frame.flows[2 * place] = scale * down[row, col]
            frame.flows[2 * place + 1] = scale * right[row, col]
            frame.starts[frame.pixels] = <int32_t> place
            frame.at[2 * frame.pixels] = <float> (row - frame.top)
            frame.at[2 * frame.pixels + 1] = <float> (col - frame.left)
            frame.pixels += 1
    return 0


cdef inline void step_all(const Frame* frame, float* at, int steps) noexcept nogil:
    """Move LANES pixels along the bilinearly interpolated flows."""
    cdef float top = <float> (frame.height - 2), end = <float> (frame.width - 2), y, x, dy, dx
    cdef float upper_left, upper_right, lower_left, lower_right
    cdef const float* upper
    cdef const float* lower
    cdef int turn, lane
    cdef int32_t row, col
    for turn in range(steps):
        for lane in range(LANES):
            y, x = at[2 * lane], at[2 * lane + 1]
            row, col = <int32_t> y, <int32_t> x
            dy, dx = y - row, x - col
            upper = frame.flows + 2 * (row * frame.width + col)
            lower = upper + 2 * frame.width
            upper_left, upper_right = (1 - dy) * (1 - dx), (1 - dy) * dx
            lower_left, lower_right = dy * (1 - dx), dy * dx
            y += upper[0] * upper_left + upper[2] * upper_right + lower[0] * lower_left + lower[2] * lower_right
            x += upper[1] * upper_left + upper[3] * upper_right + lower[1] * lower_left + lower[3] * lower_right
            at[2 * lane] = min(max(y, 0), top)
            at[2 * lane + 1] = min(max(x, 0), end)


cdef void move(const Frame* frame, float* at, int steps) noexcept nogil:
    """Move LANES pixels by so many steps.

    Most come to rest, or go round in a short circle, long before the last step: where they stand as they did CIRCLE
    steps ago, only what is left beyond whole circles has to be walked.
    """
    cdef float[2 * LANES] before
    cdef int k, left = steps
    cdef bint again
    while left >= CIRCLE:
        for k in range(2 * LANES):
            before[k] = at[k]
        step_all(frame, at, CIRCLE)
        left -= CIRCLE
        again = True
        for k in range(2 * LANES):
            again = again and before[k] == at[k]
        if again:
            left %= CIRCLE
    step_all(frame, at, left)


cdef void follow(Frame* frame, int steps) noexcept nogil:
    """Move every pixel of the clump and count where they end."""
    cdef Py_ssize_t k, place
    for k in range(2 * frame.pixels, 2 * (frame.pixels + LANES)):
        frame.at[k] = 0
    k = 0
    while k < frame.pixels:
        move(frame, frame.at + 2 * k, steps)
        k += LANES
    for k in range(frame.pixels):
        place = <Py_ssize_t> frame.at[2 * k] * frame.width + <Py_ssize_t> frame.at[2 * k + 1]
        frame.ends[k] = <int32_t> place
        frame.counts[place] += 1


cdef bint is_sink(const Frame* frame, Py_ssize_t place) noexcept nogil:
    """Return whether no place within WINDOW holds more pixels."""
    cdef Py_ssize_t row = place // frame.width, col = place % frame.width, i, j
    for i in range(max(row - WINDOW, 0), min(row + WINDOW + 1, frame.height)):
        for j in range(max(col - WINDOW, 0), min(col + WINDOW + 1, frame.width)):
            if frame.counts[i * frame.width + j] > frame.counts[place]:
                return False
    return True


cdef int by_item(const void* a, const void* b) noexcept nogil:
    cdef uint64_t p = (<const uint64_t*> a)[0], q = (<const uint64_t*> b)[0]
    return (p > q) - (p < q)


cdef void grow(Frame* frame, Py_ssize_t seed, int32_t number, int32_t basin) noexcept nogil:
    """Give the places around a sink its number, up to GROWTH px over places that hold enough pixels.

    It grows across places of other sinks, too, but takes only those that have no number.
    """
    cdef int32_t* rim = frame.rims
    cdef int32_t* reached = frame.rims + frame.room
    cdef Py_ssize_t count = 1, found, k, row, col, i, j, near
    cdef int turn
    rim[0] = <int32_t> seed
    if frame.sinks[seed] == 0:
        frame.sinks[seed] = number
    frame.counts[seed] = -frame.counts[seed]            # negative: visited
    cdef Py_ssize_t visited = 1
    for turn in range(GROWTH):
        found = 0
        for k in range(count):
            row, col = rim[k] // frame.width, rim[k] % frame.width
            for i in range(max(row - 1, 0), min(row + 2, frame.height)):
                for j in range(max(col - 1, 0), min(col + 2, frame.width)):
                    near = i * frame.width + j
                    if frame.counts[near] > basin:
                        frame.counts[near] = -frame.counts[near]
                        if frame.sinks[near] == 0:
                            frame.sinks[near] = number
                        reached[found] = <int32_t> near
                        found += 1
        rim, reached, count = reached, rim, found
    row, col = seed // frame.width, seed % frame.width
    for i in range(max(row - GROWTH, 0), min(row + GROWTH + 1, frame.height)):
        for j in range(max(col - GROWTH, 0), min(col + GROWTH + 1, frame.width)):
            near = i * frame.width + j
            if frame.counts[near] < 0:
                frame.counts[near] = -frame.counts[near]


cdef int32_t find_sinks(Frame* frame, const Rule* rule, int32_t count) noexcept nogil:
    """Number the sinks of a clump from `count` + 1, the largest first; return the last number."""
    cdef Py_ssize_t k, place, seeds = 0
    for k in range(frame.pixels):
        place = frame.ends[k]
        if frame.counts[place] > rule.seeds and frame.sinks[place] == 0 and is_sink(frame, place):
            frame.seeds[seeds] = (LOW - <uint64_t> frame.counts[place]) << 32 | <uint64_t> place
            frame.sinks[place] = -1                     # listed
            seeds += 1
    qsort(frame.seeds, seeds, sizeof(uint64_t), by_item)
    for k in range(seeds):
        frame.sinks[<int32_t> (frame.seeds[k] & LOW)] = 0
    for k in range(seeds):
        count += 1
        grow(frame, <Py_ssize_t> (frame.seeds[k] & LOW), count, rule.basin)
    return count


def follow_flows(const float[:, ::1] down, const float[:, ::1] right, const int32_t[:, ::1] clumps,
                 const int32_t[:, ::1] boxes, int steps, float scale, int32_t seeds, int32_t basin,
                 int32_t[:, ::1] out):
    """Give the pixels of clumps the number of the sink that they flow to (0: none); return how many sinks there are."""
    cdef Frame frame
    cdef Rule rule
    cdef Py_ssize_t k, pixel
    cdef int32_t clump, count = 0, place
    cdef int status = 0
    rule.steps, rule.scale, rule.seeds, rule.basin = steps, scale, seeds, basin
    with nogil:
        memset(&frame, 0, sizeof(Frame))
        for clump in range(1, <int32_t> boxes.shape[0]):
            if boxes[clump, 2] <= boxes[clump, 0]:
                continue
            status = lay_out(&frame, down, right, clumps, boxes, clump, scale)
            if status:
                break
            follow(&frame, steps)
            count = find_sinks(&frame, &rule, count)
            for k in range(frame.pixels):
                place = frame.starts[k]
                out[frame.top + place // frame.width, frame.left + place % frame.width] = frame.sinks[frame.ends[k]]
        release(&frame)
    if status:
        raise MemoryError("no memory for the flows of a clump")
    return count


cdef int by_number(const void* a, const void* b) noexcept nogil:
    cdef int32_t p = (<const int32_t*> a)[0], q = (<const int32_t*> b)[0]
    return (p > q) - (p < q)


cdef inline double median(int32_t* numbers, Py_ssize_t count) noexcept nogil:
    """Return the median of sorted numbers."""
    return 0.5 * (numbers[(count - 1) // 2] + numbers[count // 2])


cdef struct Heat:           # of one mask, in a frame with a margin of a pixel
    Py_ssize_t width
    Py_ssize_t count
    Py_ssize_t room
    double* now
    double* sums            # of three neighbours in a row
    int32_t* places         # of the mask's pixels
    int32_t* numbers        # their rows, then columns


cdef int collect(Heat* heat, const int32_t[:, ::1] labels, const int32_t[:, ::1] boxes, int32_t label) noexcept nogil:
    """List a mask's pixels in its frame; return -1 without memory."""
    cdef Py_ssize_t top = boxes[label, 0], left = boxes[label, 1], row, col
    cdef Py_ssize_t places = (boxes[label, 2] - top + 2) * (boxes[label, 3] - left + 2)
    if places > heat.room:
        free(heat.now)
        free(heat.sums)
        free(heat.places)
        free(heat.numbers)
        heat.room = 2 * places
        heat.now = <double*> malloc(heat.room * sizeof(double))
        heat.sums = <double*> malloc(heat.room * sizeof(double))
        heat.places = <int32_t*> malloc(heat.room * sizeof(int32_t))
        heat.numbers = <int32_t*> malloc(heat.room * sizeof(int32_t))
        if heat.now == NULL or heat.sums == NULL or heat.places == NULL or heat.numbers == NULL:
            return -1
    heat.width, heat.count = boxes[label, 3] - left + 2, 0
    memset(heat.now, 0, places * sizeof(double))
    memset(heat.sums, 0, places * sizeof(double))
    for row in range(top, boxes[label, 2]):
        for col in range(left, boxes[label, 3]):
            if labels[row, col] == label:
                heat.places[heat.count] = <int32_t> ((row - top + 1) * heat.width + col - left + 1)
                heat.count += 1
    return 0


cdef Py_ssize_t middle(Heat* heat) noexcept nogil:
    """Return the mask's place nearest to its median row and column, the first of equals."""
    cdef double row, col, dy, dx, least = -1
    cdef Py_ssize_t k, best = 0
    for k in range(heat.count):
        heat.numbers[k] = heat.places[k] // <int32_t> heat.width
    row = median(heat.numbers, heat.count)              # places come row by row: sorted
    for k in range(heat.count):
        heat.numbers[k] = heat.places[k] % <int32_t> heat.width
    qsort(heat.numbers, heat.count, sizeof(int32_t), by_number)
    col = median(heat.numbers, heat.count)
    for k in range(heat.count):
        dy, dx = heat.places[k] // heat.width - row, heat.places[k] % heat.width - col
        if least < 0 or dy * dy + dx * dx < least:
            least, best = dy * dy + dx * dx, heat.places[k]
    return best


cdef void diffuse(Heat* heat, Py_ssize_t source, Py_ssize_t steps) noexcept nogil:
    """Add heat at `source` and average over 3 x 3 pixels of the mask, again and again; then take logarithms."""
    cdef Py_ssize_t k, turn, place, width = heat.width, end
    end = heat.places[heat.count - 1] + width
    for turn in range(steps):
        heat.now[source] += 1
        for place in range(1, end + 1):                 # margins are zero: rows do not run into each other
            heat.sums[place] = heat.now[place - 1] + heat.now[place] + heat.now[place + 1]
        for k in range(heat.count):
            place = heat.places[k]
            heat.now[place] = (heat.sums[place - width] + heat.sums[place] + heat.sums[place + width]) / 9
    for k in range(heat.count):
        heat.now[heat.places[k]] = log(1 + heat.now[heat.places[k]])


def flow_errors(const int32_t[:, ::1] labels, const int32_t[:, ::1] boxes, const float[:, ::1] down,
                const float[:, ::1] right, float scale, double[::1] errors):
    """Fill in the mean squared difference between flows and those of heat from a mask's middle, by label."""
    cdef Heat heat
    cdef Py_ssize_t k, place, row, col
    cdef int32_t label
    cdef double dy, dx, length, total
    cdef int status = 0
    with nogil:
        memset(&heat, 0, sizeof(Heat))
        for label in range(1, <int32_t> boxes.shape[0]):
            if boxes[label, 2] <= boxes[label, 0]:
                continue
            status = collect(&heat, labels, boxes, label)
            if status:
                break
            diffuse(&heat, middle(&heat), 2 * (boxes[label, 2] - boxes[label, 0] + boxes[label, 3] - boxes[label, 1]
                                               - 2))
            total = 0
            for k in range(heat.count):
                place = heat.places[k]
                row = boxes[label, 0] + place // heat.width - 1
                col = boxes[label, 1] + place % heat.width - 1
                dy = heat.now[place + heat.width] - heat.now[place - heat.width]
                dx = heat.now[place + 1] - heat.now[place - 1]
                length = 1e-20 + sqrt(dy * dy + dx * dx)
                total += (dy / length - scale * down[row, col]) ** 2 + (dx / length - scale * right[row, col]) ** 2
            errors[label] = total / heat.count
        free(heat.now)
        free(heat.sums)
        free(heat.places)
        free(heat.numbers)
    if status:
        raise MemoryError("no memory for the heat of a mask")
