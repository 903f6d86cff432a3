# Markers from the calm pixels of clumps: holes are filled, the rest is opened, and what is large enough is numbered.
# Included in _gradient_energy.pyx. A frame of bytes has MARGIN px of zeros on every side.


cdef int list_empty(Runs* empty, const uint8_t* calm, Py_ssize_t height, Py_ssize_t width) noexcept nogil:
    """Find and join the runs of what is not calm; return -1 without memory."""
    cdef uint8_t* inside = <uint8_t*> calloc(width + 16, 1)
    cdef int32_t* edges = <int32_t*> malloc((width + 2) * sizeof(int32_t))
    cdef Py_ssize_t row
    cdef int status = -1 if inside == NULL or edges == NULL else 0
    for row in range(height):
        if status:
            break
        empty_bytes(width, calm + (row + MARGIN) * (width + 2 * MARGIN) + MARGIN, inside)
        status = add_row(empty, <int32_t> row, width, inside, edges, False)
    free(inside)
    free(edges)
    return status


cdef int32_t clump_at(const Clumps* clumps, int32_t row, int32_t col) noexcept nogil:
    """Return the first run of the clump at a pixel, or -1."""
    cdef Py_ssize_t k
    cdef const Run* run
    for k in range(clumps.starts[row], clumps.starts[row + 1]):
        run = &clumps.runs.items[k]
        if run.start <= col < run.stop:
            return run.parent
    return -1


cdef void fill_run(const Clumps* clumps, const Run* hole, int32_t owner, uint8_t* calm) noexcept nogil:
    """Set the pixels of a run that belong to a clump."""
    cdef Py_ssize_t k, pitch = clumps.width + 2 * MARGIN
    cdef int32_t start, stop
    cdef const Run* run
    for k in range(clumps.starts[hole.row], clumps.starts[hole.row + 1]):
        run = &clumps.runs.items[k]
        start, stop = max(run.start, hole.start), min(run.stop, hole.stop)
        if run.parent == owner and start < stop:
            memset(calm + (hole.row + MARGIN) * pitch + MARGIN + start, 1, stop - start)


cdef int fill_holes(const Clumps* clumps, uint8_t* calm) noexcept nogil:
    """Fill the holes of calm regions with pixels of the clump around them; return -1 without memory.

    What is not calm and not 4-connected with the image's edge is a hole. The pixel above its first one is calm and of
    the clump that encloses it.
    """
    cdef Runs empty
    cdef Py_ssize_t k
    cdef int32_t* owners            # of each first run: the clump around it; -1: none
    cdef Run* run
    memset(&empty, 0, sizeof(Runs))
    if list_empty(&empty, calm, clumps.height, clumps.width):
        free(empty.items)
        return -1
    owners = <int32_t*> malloc((empty.count + 1) * sizeof(int32_t))
    if owners == NULL:
        free(empty.items)
        return -1
    for k in range(empty.count):
        run = &empty.items[k]
        run.parent = empty.items[run.parent].parent
        if run.parent == k:
            owners[k] = clump_at(clumps, run.row - 1, run.start) if run.row else -1
        if run.start == 0 or run.stop == clumps.width or run.row == clumps.height - 1:
            owners[run.parent] = -1
    for k in range(empty.count):
        run = &empty.items[k]
        if owners[run.parent] >= 0:
            fill_run(clumps, run, owners[run.parent], calm)
    free(owners)
    free(empty.items)
    return 0


cdef void join_element(const uint8_t* frame, Py_ssize_t height, Py_ssize_t width, bint grow, uint8_t* fives,
                       uint8_t* out) noexcept nogil:
    """Erode a frame, or dilate it; `fives` and `out` are frames, too."""
    cdef Py_ssize_t pitch = width + 2 * MARGIN, row, at
    for row in range(MARGIN, height + MARGIN):
        at = row * pitch + MARGIN
        if grow:
            dilate_five(width, frame + at, fives + at)
        else:
            erode_five(width, frame + at, fives + at)
    for row in range(MARGIN, height + MARGIN):
        at = row * pitch + MARGIN
        if grow:
            dilate_rows(width, pitch, frame + at - 2 * pitch, fives + at - pitch, frame + at + 2 * pitch, out + at)
        else:
            erode_rows(width, pitch, frame + at - 2 * pitch, fives + at - pitch, frame + at + 2 * pitch, out + at)


cdef int find_markers(const Clumps* clumps, uint8_t* calm, uint8_t* frames, int64_t min_marker,
                      int32_t* markers) noexcept nogil:
    """Fill and open the calm regions, and number those that are large enough; return -1 without memory.

    `calm` and `frames`, the memory of two frames, are overwritten.
    """
    cdef Py_ssize_t height = clumps.height, width = clumps.width, pitch = width + 2 * MARGIN, row
    cdef Py_ssize_t size = (height + 2 * MARGIN) * pitch
    cdef int64_t* areas = NULL
    cdef Runs runs
    cdef int status
    memset(&runs, 0, sizeof(Runs))
    if fill_holes(clumps, calm):
        return -1
    memset(frames, 0, 2 * size)
    join_element(calm, height, width, False, frames, frames + size)
    join_element(frames + size, height, width, True, frames, calm)
    for row in range(height):           # without margins
        memmove(calm + row * width, calm + (row + MARGIN) * pitch + MARGIN, width)
    status = find_components(calm, height, width, False, &runs)
    if status == 0:
        areas = <int64_t*> malloc((runs.count + 1) * sizeof(int64_t))
        status = -1 if areas == NULL else 0
    if status == 0:
        find_areas(&runs, areas)
        paint(&runs, areas, min_marker, markers, width)
    free(areas)
    free(runs.items)
    return status
