# Flooding a clump from its markers: a priority queue of pixels whose keys are ranks, so that it is a row of bits.
# Included in _clumps.pxi, after its structures.
#
# A place of the clump's frame is 0 outside the clump, a label where a marker lies or the flood has been, and -1 - rank
# elsewhere. Ranks are the order of flooding; only pixels without a marker and their neighbours have one. A pixel takes
# the label of the neighbour that leaves the queue first.

cdef extern from "_rank_queue.h" nogil:
    enum:
        RANK_LEVELS
    ctypedef struct RankQueue:
        uint64_t* levels[RANK_LEVELS]
        int depth
    void push_rank(const RankQueue* queue, uint32_t rank, uint64_t wanted, int depth)
    void flood_ranks(const RankQueue* queue, const uint64_t* items, int32_t* labels, Py_ssize_t pitch, int neighbours)
    Py_ssize_t list_near_unmarked(Py_ssize_t n, const float* heights, uint32_t flip, const int32_t* marks, Py_ssize_t pitch,
                                  int neighbours, uint32_t place, uint64_t* items, uint32_t* low, uint32_t* high)

cdef enum:
    MAX_RANKS = 0x7FFFFFFF


cdef int empty_queue(Work* work, Py_ssize_t ranks, RankQueue* queue) noexcept nogil:
    """Make an empty queue for so many ranks; return -1 without memory."""
    cdef Py_ssize_t total = 0, count = ranks
    cdef Py_ssize_t[RANK_LEVELS] starts
    cdef uint64_t* words
    cdef int k
    queue.depth = 0
    while queue.depth == 0 or count > 1:
        count = max((count + 63) // 64, 1)
        starts[queue.depth] = total
        queue.depth += 1
        total += count
    if total > work.word_room:
        words = <uint64_t*> realloc(work.words, 2 * total * sizeof(uint64_t))
        if words == NULL:
            return -1
        work.words, work.word_room = words, 2 * total
    memset(work.words, 0, total * sizeof(uint64_t))
    for k in range(queue.depth):
        queue.levels[k] = work.words + starts[k]
    return 0


cdef bint paint_single(const Job* job, const Run* runs, Py_ssize_t count) noexcept nogil:
    """Paint a clump that holds markers of one label only, or of none; return whether it is such a clump."""
    cdef int32_t* out
    cdef int32_t label = 0
    cdef Py_ssize_t k, col
    for k in range(count):
        out = job.out + runs[k].row * job.width
        for col in range(runs[k].start, runs[k].stop):
            if out[col] != label and out[col]:
                if label:
                    return False
                label = out[col]
    if label:
        for k in range(count):
            out = job.out + runs[k].row * job.width
            for col in range(runs[k].start, runs[k].stop):
                out[col] = label
    return True


cdef void lay_markers(const Job* job, const Run* runs, Py_ssize_t count, const Places* places) noexcept nogil:
    """Write the markers' labels to a clump's places, -1 where there is none."""
    cdef const int32_t* marker
    cdef int32_t* place
    cdef Py_ssize_t k, col
    for k in range(count):
        marker = job.out + runs[k].row * job.width + runs[k].start
        place = places.basins + place_of(places, &runs[k])
        for col in range(runs[k].stop - runs[k].start):
            place[col] = marker[col] if marker[col] else -1


cdef uint64_t* ranked_items(Work* work, const Job* job, const Run* runs, Py_ssize_t count, const Places* places,
                            Py_ssize_t* listed) noexcept nogil:
    """Return the pixels that have ranks in the order of flooding."""
    cdef Py_ssize_t k, filled = 0
    cdef const float* heights
    cdef const Run* ahead
    cdef uint32_t place, low = 0xFFFFFFFF, high = 0, flip = 0xFFFFFFFF if job.low_first else 0
    for k in range(count):
        ahead = &runs[min(k + AHEAD, count - 1)]
        fetch(job.rule.image + ahead.row * job.width + ahead.start)
        fetch(job.rule.image + ahead.row * job.width + ahead.stop)
        heights = job.rule.image + runs[k].row * job.width + runs[k].start
        place = <uint32_t> place_of(places, &runs[k])
        filled += list_near_unmarked(runs[k].stop - runs[k].start, heights, flip, places.basins + place, places.stride,
                                     job.rule.neighbours, place, work.items + filled, &low, &high)
    listed[0] = filled
    return sort_items(work.items, work.items + work.room, filled, low, high)


cdef int flood_marked(Work* work, const Job* job, const Run* runs, Py_ssize_t count) noexcept nogil:
    """Turn a clump's markers into regions; return -1 without memory."""
    cdef Places places
    cdef RankQueue queue
    cdef Py_ssize_t pixels, k, col
    cdef uint64_t* items
    cdef int32_t* place
    cdef int32_t* out
    if allocate_frame(work, job, runs, count, &places, &pixels):
        return -1
    lay_markers(job, runs, count, &places)
    items = ranked_items(work, job, runs, count, &places, &pixels)
    if pixels > MAX_RANKS or empty_queue(work, pixels, &queue):
        return -1
    for k in range(pixels):
        place = places.basins + <uint32_t> items[k]
        if place[0] < 0:
            place[0] = <int32_t> (-1 - k)
        else:
            push_rank(&queue, <uint32_t> k, 1, queue.depth)
    flood_ranks(&queue, items, places.basins, places.stride, job.rule.neighbours)
    for k in range(count):
        out = job.out + runs[k].row * job.width + runs[k].start
        place = places.basins + place_of(&places, &runs[k])
        for col in range(runs[k].stop - runs[k].start):
            out[col] = max(place[col], 0)
    return 0
