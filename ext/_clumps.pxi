# Clumps of a streamed image, flooded one by one as soon as no later row can reach them, so that pixels stay in the cache.
# Included in _flooding.pyx, after _basins.pxi.
#
# Input: a Job. Output: labels in Job.out, which comes zeroed, or with markers; those of maxima are numbered by the raster order
# of their first pixels. Invariants: `Work.runs` holds the runs of open clumps only; a provisional label is final, and rows are renamed, once no
# marker that is still to come can lie before it.

from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc, qsort, realloc
from libc.string cimport memset

cdef extern from "_rank_queue.h" nogil:
    void clear_outside(Py_ssize_t n, const uint8_t* inside, int32_t* labels)

cdef extern from "_rows.h" nogil:
    void rename_labels(Py_ssize_t n, const int32_t* names, int32_t* row)
    void is_above(Py_ssize_t n, float floor, const float* row, uint8_t* out)
    void is_number(Py_ssize_t n, const float* row, uint8_t* out)
    void fetch(const void* address)
    void list_pixels(Py_ssize_t n, const float* heights, uint32_t place, uint64_t* items, uint32_t* low,
                     uint32_t* high)
    void restrict_to(Py_ssize_t n, const uint8_t* mask, uint8_t* out)

cdef struct Marker:
    int64_t first           # pixel in raster order
    int32_t top             # first row of its clump
    int32_t label           # provisional

cdef struct LabelTable:
    Marker* waiting         # for their number
    Py_ssize_t count
    Py_ssize_t capacity
    int32_t* finals         # of provisional labels, which count from 1 as markers are found
    Py_ssize_t given
    Py_ssize_t room
    int32_t numbered
    int32_t closed          # rows before are of closed clumps only
    int32_t renamed         # rows before are done


cdef int reserve_labels(LabelTable* table, Py_ssize_t more) noexcept nogil:
    """Make room for `more` labels; return -1 without memory."""
    cdef Marker* waiting
    cdef int32_t* finals
    if table.count + more > table.capacity:
        table.capacity = 2 * (table.count + more)
        waiting = <Marker*> realloc(table.waiting, table.capacity * sizeof(Marker))
        if waiting == NULL:
            return -1
        table.waiting = waiting
    if table.given + more + 1 > table.room:
        table.room = 2 * (table.given + more + 1)
        finals = <int32_t*> realloc(table.finals, table.room * sizeof(int32_t))
        if finals == NULL:
            return -1
        table.finals = finals
    return 0


cdef inline int32_t new_label(LabelTable* table, int64_t first, int32_t top) noexcept nogil:
    """Return a provisional label for the marker of a clump that begins in row `top`; there is room for it."""
    cdef Marker* marker = &table.waiting[table.count]
    table.given += 1
    table.count += 1
    marker.first, marker.top, marker.label = first, top, <int32_t> table.given
    return marker.label


cdef int by_place(const void* a, const void* b) noexcept nogil:
    cdef int64_t left = (<const Marker*> a).first, right = (<const Marker*> b).first
    return (left > right) - (left < right)


cdef void number_labels(LabelTable* table, int32_t closed, int32_t* out, Py_ssize_t width) noexcept nogil:
    """Number the markers above row `closed`, where every clump is closed, and rename the rows that only they fill."""
    cdef Py_ssize_t k, done = 0
    cdef int32_t row, complete = closed
    if closed <= table.closed:
        return
    table.closed = closed
    if table.count:
        table.finals[0] = 0
        qsort(table.waiting, table.count, sizeof(Marker), by_place)
    while done < table.count and table.waiting[done].first < closed * width:
        table.numbered += 1
        table.finals[table.waiting[done].label] = table.numbered
        done += 1
    for k in range(done, table.count):
        complete = min(complete, table.waiting[k].top)
        table.waiting[k - done] = table.waiting[k]
    table.count -= done
    if table.given:
        for row in range(table.renamed, complete):
            rename_labels(width, table.finals, out + row * width)
    table.renamed = max(table.renamed, complete)


cdef enum:
    BATCH = 1 << 19     # clumps are looked for after about so many pixels: a few MB of image and labels
    SPARSE = 16         # a clump whose frame is so many times larger lies in the sheet instead

cdef int64_t MAX_PLACES = 0xFFFFFFFF       # a place has 32 bits

cdef enum:
    AHEAD = 12          # runs whose pixels are fetched before they are needed

cdef enum Task:
    REGIONS             # write watershed regions
    MAXIMA              # write maxima only
    GROW                # turn markers into regions

cdef struct Job:
    Rule rule
    const uint8_t* mask     # NULL: everywhere
    int32_t* out
    Py_ssize_t height
    Py_ssize_t width
    float floor             # NaN: none
    Py_ssize_t smallest     # regions of fewer pixels are dropped
    Task task
    bint low_first          # of markers: the lowest pixels are flooded first

cdef struct Work:           # memory that is kept from clump to clump
    Runs runs
    Runs sorted             # runs of closed clumps, clump by clump
    Py_ssize_t* starts      # of clumps in `sorted`
    Py_ssize_t capacity
    uint64_t* items         # a clump's pixels as key << 32 | place, and as much to sort them
    Py_ssize_t room
    int32_t* frame          # places of a clump
    Py_ssize_t area
    int32_t* sheet          # places of the whole image, for clumps that fill their frame badly
    Pool pool
    uint64_t* words         # of a queue
    Py_ssize_t word_room
    LabelTable table


cdef int allocate_frame(Work* work, const Job* job, const Run* runs, Py_ssize_t count, Places* places,
                 Py_ssize_t* pixels) noexcept nogil:
    """Choose where a clump's pixels lie in memory: a frame around it, or the sheet; return -1 without memory."""
    cdef int32_t left = runs[0].start, right = runs[0].stop
    cdef Py_ssize_t height = runs[count - 1].row - runs[0].row + 1, k, area
    cdef int32_t* frame
    cdef uint64_t* items
    pixels[0] = 0
    for k in range(count):
        left, right = min(left, runs[k].start), max(right, runs[k].stop)
        pixels[0] += runs[k].stop - runs[k].start
    if pixels[0] > work.room:
        items = <uint64_t*> realloc(work.items, 4 * pixels[0] * sizeof(uint64_t))
        if items == NULL:
            return -1
        work.items, work.room = items, 2 * pixels[0]
    places.row, places.col, places.stride = <Py_ssize_t> runs[0].row - 1, <Py_ssize_t> left - 1, right - left + 1
    area = (height + 2) * places.stride + 2
    if area > SPARSE * pixels[0]:
        places.row = places.col = -1
        places.stride = <uint32_t> job.width + 1
        area = (job.height + 2) * places.stride + 2
        if work.sheet == NULL:
            work.sheet = <int32_t*> calloc(area, sizeof(int32_t))
        places.basins = work.sheet
        return -1 if work.sheet == NULL or area > MAX_PLACES else 0
    if area > work.area:
        frame = <int32_t*> realloc(work.frame, 2 * area * sizeof(int32_t))
        if frame == NULL:
            return -1
        work.frame = frame
        work.area = 2 * area
    places.basins = work.frame
    memset(places.basins, 0, area * sizeof(int32_t))
    return -1 if area > MAX_PLACES else 0


cdef inline Py_ssize_t place_of(const Places* places, const Run* run) noexcept nogil:
    return (run.row - places.row) * places.stride + run.start - places.col


cdef uint64_t* ordered_items(Work* work, const Job* job, const Run* runs, Py_ssize_t count,
                     const Places* places, Py_ssize_t* listed) noexcept nogil:
    """Return a clump's pixels in the order of flooding."""
    cdef uint64_t* items = work.items
    cdef const Run* ahead
    cdef uint32_t low = 0xFFFFFFFF, high = 0
    cdef Py_ssize_t k, filled = 0
    for k in range(count):
        ahead = &runs[min(k + AHEAD, count - 1)]
        fetch(job.rule.image + ahead.row * job.width + ahead.start)
        fetch(job.rule.image + ahead.row * job.width + ahead.stop)
        list_pixels(runs[k].stop - runs[k].start, job.rule.image + runs[k].row * job.width + runs[k].start,
                    <uint32_t> place_of(places, &runs[k]), items + filled, &low, &high)
        filled += runs[k].stop - runs[k].start
    listed[0] = filled
    return sort_items(items, items + work.room, filled, low, high)


cdef void count_pixels(Work* work, const Run* runs, Py_ssize_t count, const Places* places) noexcept nogil:
    """Count the pixels of every basin that keeps some into `joined`, which is not needed any more."""
    cdef Basin* basins = work.pool.items
    cdef const int32_t* basin
    cdef Py_ssize_t k, col
    for k in range(1, work.pool.count + 1):
        basins[k].joined = 0
    for k in range(count):
        basin = places.basins + place_of(places, &runs[k])
        for col in range(runs[k].stop - runs[k].start):
            basins[basins[basin[col]].parent].joined += 1


cdef int assign_labels(Work* work, const Job* job, const Run* runs, Py_ssize_t count, const Places* places) noexcept nogil:
    """Give every basin of a flooded clump its region's label (0: none); return -1 without memory."""
    cdef Basin* basins = work.pool.items
    cdef Py_ssize_t first
    cdef int32_t k
    for k in range(1, work.pool.count + 1):
        basins[k].parent = find_basin(basins, k)
    if reserve_labels(&work.table, work.pool.count):
        return -1
    if job.smallest > 1:
        count_pixels(work, runs, count, places)
    for k in range(1, work.pool.count + 1):
        if basins[k].parent != k or (job.smallest > 1 and basins[k].joined < <uint64_t> job.smallest):
            continue
        if job.floor != job.floor or basins[k].height - job.floor > job.rule.h:
            first = pixel_of(places, &job.rule, <uint32_t> basins[k].peak)
            basins[k].label = new_label(&work.table, first, runs[0].row)
    for k in range(1, work.pool.count + 1):
        basins[k].label = basins[basins[k].parent].label
    return 0


cdef void paint(Work* work, const Job* job, const Run* runs, Py_ssize_t count, const Places* places) noexcept nogil:
    cdef const int32_t* basin
    cdef int32_t* out
    cdef const Run* ahead
    cdef Py_ssize_t k, col
    work.pool.items[0].label = 0
    for k in range(count):
        ahead = &runs[min(k + AHEAD, count - 1)]
        fetch(job.out + ahead.row * job.width + ahead.start)
        fetch(job.out + ahead.row * job.width + ahead.stop)
        basin = places.basins + place_of(places, &runs[k])
        out = job.out + runs[k].row * job.width + runs[k].start
        for col in range(runs[k].stop - runs[k].start):
            out[col] = work.pool.items[basin[col]].label


cdef void outline_peaks(Work* work, const Job* job, const Places* places) noexcept nogil:
    """Write the plateau around every labelled peak."""
    cdef uint64_t* stack = work.items
    cdef Py_ssize_t filled, place, pixel
    cdef Py_ssize_t[16] steps
    cdef Basin* basin
    cdef int32_t k
    cdef int side
    neighbour_steps(places, &job.rule, steps)
    for k in range(1, work.pool.count + 1):
        basin = &work.pool.items[k]
        if basin.parent != k or not basin.label:
            continue
        stack[0] = <uint32_t> basin.peak
        job.out[pixel_of(places, &job.rule, <uint32_t> stack[0])] = basin.label
        filled = 1
        while filled:
            filled -= 1
            place = <uint32_t> stack[filled]
            pixel = pixel_of(places, &job.rule, place)
            for side in range(job.rule.neighbours):
                if (places.basins[place + steps[side]] and not job.out[pixel + steps[8 + side]]
                        and job.rule.image[pixel + steps[8 + side]] == <float> basin.height):
                    job.out[pixel + steps[8 + side]] = basin.label
                    stack[filled] = place + steps[side]
                    filled += 1


include "_marked_clumps.pxi"


cdef int flood_clump(Work* work, const Job* job, const Run* runs, Py_ssize_t count) noexcept nogil:
    """Label one clump, given as its runs in raster order; return -1 without memory."""
    cdef Places places
    cdef Py_ssize_t pixels
    cdef uint64_t* items
    if job.task == GROW:
        return 0 if paint_single(job, runs, count) else flood_marked(work, job, runs, count)
    if allocate_frame(work, job, runs, count, &places, &pixels):
        return -1
    items = ordered_items(work, job, runs, count, &places, &pixels)
    if flood(&work.pool, &places, &job.rule, items, pixels):
        return -1
    if assign_labels(work, job, runs, count, &places):
        return -1
    if job.task == MAXIMA:
        outline_peaks(work, job, &places)
    else:
        paint(work, job, runs, count, &places)
    return 0


cdef int reserve(Work* work) noexcept nogil:
    cdef Py_ssize_t capacity = 2 * work.runs.count + 64
    if work.runs.count + 1 <= work.capacity:
        return 0
    free(work.starts)
    free(work.sorted.items)
    work.starts = <Py_ssize_t*> malloc((capacity + 1) * sizeof(Py_ssize_t))
    work.sorted.items = <Run*> malloc(capacity * sizeof(Run))
    work.capacity = capacity
    return -1 if work.starts == NULL or work.sorted.items == NULL else 0


cdef int close_clumps(Work* work, const Job* job, int32_t last) noexcept nogil:
    """Label the clumps that end before row `last` and keep the runs of the others; return -1 without memory.

    While clumps are told apart, a run's `parent` holds the number of its clump.
    """
    cdef Run* runs = work.runs.items
    cdef Py_ssize_t count = work.runs.count, k, clumps = 0, begin = 0, size
    cdef int32_t clump, kept = 0
    if reserve(work):
        return -1
    for k in range(count):
        if runs[k].parent == k:
            runs[k].parent = <int32_t> clumps
            work.starts[clumps] = 0
            clumps += 1
        else:
            runs[k].parent = runs[runs[k].parent].parent
        clump = runs[k].parent
        if runs[k].row == last:
            work.starts[clump] = -1
        elif work.starts[clump] >= 0:
            work.starts[clump] += 1
    for k in range(clumps):                     # from sizes (-1: still open) to starts
        if work.starts[k] >= 0:
            size = work.starts[k]
            work.starts[k] = begin
            begin += size
    work.runs.above = 0
    for k in range(count):
        clump = runs[k].parent
        if work.starts[clump] >= 0:             # which end as the next clump's starts
            work.sorted.items[work.starts[clump]] = runs[k]
            work.starts[clump] += 1
            continue
        if work.starts[clump] == -1:            # open: -2 - its first kept run
            work.starts[clump] = -2 - kept
        if runs[k].row != last:
            work.runs.above = kept + 1
        runs[kept] = runs[k]
        runs[kept].parent = <int32_t> (-2 - work.starts[clump])
        kept += 1
    work.runs.count = kept
    begin = 0
    for k in range(clumps):
        if work.starts[k] >= 0:
            if flood_clump(work, job, work.sorted.items + begin, work.starts[k] - begin):
                return -1
            begin = work.starts[k]
    if job.task != GROW:
        number_labels(&work.table, runs[0].row if kept else min(last + 1, <int32_t> job.height), job.out, job.width)
    return 0


cdef int stream(Work* work, const Job* job, uint8_t* inside, int32_t* edges) noexcept nogil:
    """Label all clumps; return -1 without memory."""
    cdef Py_ssize_t row, kept = 0, since = 0
    cdef const float* heights
    for row in range(job.height):
        heights = job.rule.image + row * job.width
        if job.floor == job.floor:
            is_above(job.width, job.floor, heights, inside)
        else:
            is_number(job.width, heights, inside)
        if job.mask != NULL:
            restrict_to(job.width, job.mask + row * job.width, inside)
        if job.task == GROW:
            clear_outside(job.width, inside, job.out + row * job.width)
        if add_row(&work.runs, <int32_t> row, job.width, inside, edges, job.rule.neighbours == 8):
            return -1
        since += job.width
        # Open clumps are sorted again every time: only when as many runs have come does it stay linear.
        if since >= BATCH and work.runs.count >= 2 * kept:
            if close_clumps(work, job, <int32_t> row):
                return -1
            kept, since = work.runs.count, 0
    return close_clumps(work, job, <int32_t> job.height)
