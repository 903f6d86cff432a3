# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""Growth of labels into the background up to a Euclidean distance. Called through nuclix.ext.expansion, which validates.

Input: labels, 0 being background. Output: an image in which every background pixel within the distance of a labelled one has
the label of the nearest, and of equally near ones of the first in raster order; all others are 0.

The nearest labelled pixel is found along columns, then along rows as the lower envelope of parabolas (Meijster, Roerdink and
Hesselink 2000), here with ties: the place in raster order counts as an infinitesimal distance, which keeps the envelope's
order. So a pixel's result depends on what lies within the distance, not on where the image was cut, nor on the labels' numbers.
"""

from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t
from libc.stdlib cimport free, malloc

ctypedef fused label_t:
    uint8_t
    uint16_t
    uint32_t
    int32_t
    int64_t

cdef enum:
    NONE = -1               # no labelled pixel of the column within the distance

cdef struct Envelope:
    int64_t *column         # whose parabola is lowest
    int64_t *begin          # from this column on
    int64_t count


cdef inline int64_t last_column(int64_t a, int64_t row_a, int64_t b, int64_t row_b, int64_t row) noexcept nogil:
    """Return the last column in which the source of column a is nearer to `row` than that of b > a."""
    cdef int64_t gap = 2 * (b - a)
    cdef int64_t twice = b * b - a * a + (row_b - row) * (row_b - row) - (row_a - row) * (row_a - row)
    cdef int64_t column = twice // gap
    if column * gap > twice:        # C rounds towards 0
        column -= 1
    if column * gap == twice and row_b < row_a:
        column -= 1                 # equally near: the first in raster order is b's
    return column


cdef void find_envelope(const int32_t *sources, int64_t width, int64_t row, Envelope *envelope) noexcept nogil:
    """Find which column's source is nearest along `row`; `sources` has each column's row, or NONE."""
    cdef int64_t column, top, last = 0
    envelope.count = 0
    for column in range(width):
        if sources[column] == NONE:
            continue
        while envelope.count:
            top = envelope.count - 1
            last = last_column(envelope.column[top], sources[envelope.column[top]], column, sources[column], row)
            if last >= envelope.begin[top]:
                break
            envelope.count -= 1
        if not envelope.count:
            last = -1
        if last + 1 < width:
            envelope.column[envelope.count] = column
            envelope.begin[envelope.count] = last + 1
            envelope.count += 1


cdef void paint_row(const label_t *labels, int64_t width, const int32_t *sources, int64_t row, double limit,
                    const Envelope *envelope, label_t *out) noexcept nogil:
    """Give the pixels of a row the labels of their sources where these are near; `out` is zero. `limit` is a squared distance."""
    cdef int64_t k, column, begin, end, source, away, reach
    for k in range(envelope.count):
        column = envelope.column[k]
        source = sources[column]
        begin = envelope.begin[k]
        end = envelope.begin[k + 1] if k + 1 < envelope.count else width
        away = (source - row) * (source - row)
        while begin < end and <double> ((begin - column) * (begin - column) + away) > limit and begin < column:
            begin += 1
        for reach in range(begin, end):
            if <double> ((reach - column) * (reach - column) + away) > limit:
                break
            out[reach] = labels[source * width + column]


cdef void find_above(const label_t *labels, int64_t height, int64_t width, int64_t reach, int32_t *above) noexcept nogil:
    """Fill `above` with the row of the next labelled pixel at or over each pixel, at most `reach` rows away, or NONE."""
    cdef int64_t row, column
    cdef int32_t before
    for row in range(height):
        for column in range(width):
            before = above[(row - 1) * width + column] if row else NONE
            if before != NONE and row - before > reach:
                before = NONE
            above[row * width + column] = <int32_t> row if labels[row * width + column] else before


cdef int expand_rows(const label_t *labels, int64_t height, int64_t width, double distance, label_t *out) noexcept nogil:
    """Grow all labels; return -1 when memory is out."""
    cdef int64_t row, column, reach = <int64_t> distance
    cdef int32_t here, over
    cdef Envelope envelope
    cdef int32_t *above = <int32_t *> malloc(height * width * sizeof(int32_t))
    cdef int32_t *below = <int32_t *> malloc(width * sizeof(int32_t))
    cdef int32_t *sources = <int32_t *> malloc(width * sizeof(int32_t))
    envelope.column = <int64_t *> malloc(width * sizeof(int64_t))
    envelope.begin = <int64_t *> malloc(width * sizeof(int64_t))
    cdef bint ready = (above != NULL and below != NULL and sources != NULL and envelope.column != NULL
                       and envelope.begin != NULL)
    if ready:
        find_above(labels, height, width, reach, above)
        for column in range(width):
            below[column] = NONE
        for row in range(height - 1, -1, -1):
            for column in range(width):
                over = above[row * width + column]
                here = <int32_t> row if over == row else below[column]
                if here != NONE and here - row > reach:
                    here = NONE
                below[column] = here
                if over != NONE and (here == NONE or row - over <= here - row):
                    here = over
                sources[column] = here
            find_envelope(sources, width, row, &envelope)
            paint_row(labels, width, sources, row, distance * distance, &envelope, out + row * width)
    free(above)
    free(below)
    free(sources)
    free(envelope.column)
    free(envelope.begin)
    return 0 if ready else -1


def expand(const label_t[:, ::1] labels, double distance, label_t[:, ::1] out):
    """Fill `out`, which is zero, with the labels grown by `distance` pixels. The image has a pixel or more."""
    cdef int status
    with nogil:
        status = expand_rows(&labels[0, 0], labels.shape[0], labels.shape[1], distance, &out[0, 0])
    if status:
        raise MemoryError("no memory to expand labels")
