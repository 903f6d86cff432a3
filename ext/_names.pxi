# Labels are numbered by their markers' first pixels as soon as no earlier one can come: rows are still in the cache.

from libc.stdint cimport int32_t, int64_t
from libc.stdlib cimport qsort, realloc

cdef extern from "_rows.h" nogil:
    void rename_labels(Py_ssize_t n, const int32_t* names, int32_t* row)

cdef struct Marker:
    int64_t first           # pixel in raster order
    int32_t top             # first row of its clump
    int32_t label           # provisional

cdef struct Names:
    Marker* waiting         # for their number
    Py_ssize_t count
    Py_ssize_t capacity
    int32_t* finals         # of provisional labels, which count from 1 as markers are found
    Py_ssize_t given
    Py_ssize_t room
    int32_t numbered
    int32_t closed          # rows before are of closed clumps only
    int32_t renamed         # rows before are done


cdef int reserve_names(Names* names, Py_ssize_t more) noexcept nogil:
    """Make room for `more` labels; return -1 without memory."""
    cdef Marker* waiting
    cdef int32_t* finals
    if names.count + more > names.capacity:
        names.capacity = 2 * (names.count + more)
        waiting = <Marker*> realloc(names.waiting, names.capacity * sizeof(Marker))
        if waiting == NULL:
            return -1
        names.waiting = waiting
    if names.given + more + 1 > names.room:
        names.room = 2 * (names.given + more + 1)
        finals = <int32_t*> realloc(names.finals, names.room * sizeof(int32_t))
        if finals == NULL:
            return -1
        names.finals = finals
    return 0


cdef inline int32_t new_label(Names* names, int64_t first, int32_t top) noexcept nogil:
    """Return a provisional label for the marker of a clump that begins in row `top`; there is room for it."""
    cdef Marker* marker = &names.waiting[names.count]
    names.given += 1
    names.count += 1
    marker.first, marker.top, marker.label = first, top, <int32_t> names.given
    return marker.label


cdef int by_place(const void* a, const void* b) noexcept nogil:
    cdef int64_t left = (<const Marker*> a).first, right = (<const Marker*> b).first
    return (left > right) - (left < right)


cdef void number(Names* names, int32_t closed, int32_t* out, Py_ssize_t width) noexcept nogil:
    """Number the markers above row `closed`, where every clump is closed, and rename the rows that only they fill."""
    cdef Py_ssize_t k, done = 0
    cdef int32_t row, complete = closed
    if closed <= names.closed:
        return
    names.closed = closed
    if names.count:
        names.finals[0] = 0
        qsort(names.waiting, names.count, sizeof(Marker), by_place)
    while done < names.count and names.waiting[done].first < closed * width:
        names.numbered += 1
        names.finals[names.waiting[done].label] = names.numbered
        done += 1
    for k in range(done, names.count):
        complete = min(complete, names.waiting[k].top)
        names.waiting[k - done] = names.waiting[k]
    names.count -= done
    if names.given:
        for row in range(names.renamed, complete):
            rename_labels(width, names.finals, out + row * width)
    names.renamed = max(names.renamed, complete)
