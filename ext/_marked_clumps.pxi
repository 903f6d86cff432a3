# Clumps that are flooded from markers: what of them needs no flooding.
# Included in _clumps.pxi, after its structures.


cdef inline bint is_inner(const Job* job, Py_ssize_t row, Py_ssize_t col) noexcept nogil:
    """Return whether a pixel and all its neighbours are markers, so that no flood starts from it or reaches it."""
    cdef const int32_t* at = job.rule.markers + row * job.width + col
    cdef Py_ssize_t pitch = job.width
    if not (0 < row < job.height - 1 and 0 < col < job.width - 1):
        return False
    if not (at[0] and (at - 1)[0] and at[1] and (at - pitch)[0] and at[pitch]):
        return False
    return job.rule.neighbours == 4 or ((at - pitch - 1)[0] and (at - pitch + 1)[0] and at[pitch - 1] and at[pitch + 1])


cdef Py_ssize_t list_run(uint64_t* items, const Job* job, const Run* run, uint32_t place, uint32_t* low,
                         uint32_t* high) noexcept nogil:
    """List a run's pixels, those that `is_inner` left out; return how many are listed."""
    cdef const float* heights = job.rule.image + run.row * job.width + run.start
    cdef Py_ssize_t length = run.stop - run.start, start = 0, stop, filled = 0
    if job.rule.markers == NULL:
        list_pixels(length, heights, place, items, low, high)
        return length
    while start < length:
        stop = start
        while stop < length and not is_inner(job, run.row, run.start + stop):
            stop += 1
        list_pixels(stop - start, heights + start, <uint32_t> (place + start), items + filled, low, high)
        filled += stop - start
        start = stop
        while start < length and is_inner(job, run.row, run.start + start):
            start += 1
    return filled


cdef bint paint_single(const Job* job, const Run* runs, Py_ssize_t count) noexcept nogil:
    """Write the label of a clump that holds markers of one label only, or of none; return whether it is such a clump."""
    cdef const int32_t* marker
    cdef int32_t* out
    cdef int32_t label = 0
    cdef Py_ssize_t k, col
    for k in range(count):
        marker = job.rule.markers + runs[k].row * job.width
        for col in range(runs[k].start, runs[k].stop):
            if marker[col] != label and marker[col]:
                if label:
                    return False
                label = marker[col]
    if label:
        for k in range(count):
            out = job.out + runs[k].row * job.width
            for col in range(runs[k].start, runs[k].stop):
                out[col] = label
    return True


cdef void lay_markers(const Job* job, const Run* runs, Py_ssize_t count, const Places* places) noexcept nogil:
    """Write minus the markers' labels to a clump's places, where the flood finds them without a division."""
    cdef const int32_t* marker
    cdef int32_t* place
    cdef Py_ssize_t k, col
    for k in range(count):
        marker = job.rule.markers + runs[k].row * job.width + runs[k].start
        place = places.basins + place_of(places, &runs[k])
        for col in range(runs[k].stop - runs[k].start):
            place[col] = -marker[col]
