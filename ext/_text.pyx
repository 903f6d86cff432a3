# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""GeoJSON text of outlines. Called through nuclix.ext.geojson_text, which validates.

Input: objects as columns, and what their features share. Output: one feature a line, commas between, none after the last.
Invariants: an object's text depends on its own columns alone; room for a piece of text is reserved before it is written.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.math cimport fabs, fma, isfinite, isnan
from libc.stdint cimport int32_t, int64_t, uint8_t
from libc.stdlib cimport free, malloc, realloc
from libc.string cimport memcpy

include "_digits.pxi"

cdef enum:
    OK = 0
    NO_MEMORY = 1
    NOT_FINITE = 2
    TOO_FAR = 3

cdef enum:
    NUMBER = 32             # bytes that hold any number written here
    CORNER = 72             # bytes that hold "[x,y]," and leave room to copy two whole number fields
    FRAME = 320             # bytes that hold all fixed text of a feature, its identifier included

ctypedef fused corner_t:
    int32_t                 # along pixel edges
    float                   # smooth outlines

cdef double FARTHEST = 8589934592.0     # 2^33 px: hundredths below 2^40 leave 2^-13 for the rounding error
cdef double NEAR_TIE = 0.001            # further from a tie than the rounding error of a product below 2^40
cdef struct Text:
    char *data
    int64_t size
    int64_t capacity

cdef struct Field:
    char text[NUMBER]
    int64_t size

cdef struct Frame:
    double pixel
    double origin_row
    double origin_col
    const uint8_t *name_space   # 16 bytes
    const char **properties     # for each class, the members of "properties" that come before the measurements
    int64_t *property_sizes
    const char **names          # for each measurement, its key with quotes
    int64_t *name_sizes
    int64_t names_size          # of all keys together
    int64_t measurements


cdef int reserve(Text *text, int64_t room) noexcept nogil:
    cdef int64_t capacity
    cdef void *moved
    if text.size + room <= text.capacity:
        return OK
    capacity = 2 * text.capacity + room
    moved = realloc(text.data, capacity)
    if moved == NULL:
        return NO_MEMORY
    text.data = <char *> moved
    text.capacity = capacity
    return OK


cdef inline void put(Text *text, const char *piece, int64_t size) noexcept nogil:
    memcpy(text.data + text.size, piece, size)
    text.size += size


cdef inline int64_t hundredths(double value) noexcept nogil:
    """Return 100 * value rounded to the nearest whole number, ties to even, as if the product were exact."""
    cdef double product = value * 100.0
    cdef int64_t down = <int64_t> product
    cdef double above
    if down > product:
        down -= 1
    above = (product - down) - 0.5
    if fabs(above) < NEAR_TIE:
        above += fma(value, 100.0, -product)
        if above == 0:
            return down + (down & 1)
    return down + 1 if above > 0 else down


cdef inline int put_coordinate(Field *field, double corner, double pixel, double origin) noexcept nogil:
    """Fill `field` with a coordinate of at most two decimals, trailing zeros dropped."""
    cdef double value = corner * pixel - origin
    cdef int64_t rounded, whole
    cdef int64_t n = 0
    cdef int cents
    if not fabs(value) < FARTHEST:
        return TOO_FAR
    rounded = hundredths(value)
    if rounded < 0:
        field.text[0] = b"-"
        n = 1
        rounded = -rounded
    whole = rounded // 100
    cents = <int> (rounded - 100 * whole)
    n += put_whole(field.text + n, whole)
    if cents:
        field.text[n] = b"."
        memcpy(field.text + n + 1, PAIRS + 2 * cents, 2)
        n += 3 if cents % 10 else 2
    field.size = n
    return OK


cdef int put_ring(Text *text, const corner_t *corners, int64_t count, const Frame *frame) noexcept nogil:
    """Write a ring, closed. Neighbouring corners share a coordinate along pixel edges: only what changes is formatted."""
    cdef Field x, y
    cdef char *out
    cdef int64_t i, k
    cdef int status = OK
    if reserve(text, (count + 1) * CORNER + 2) != OK:
        return NO_MEMORY
    out = text.data + text.size
    out[0] = b"["
    out += 1
    for i in range(count + 1):
        k = i if i < count else 0
        if i == 0 or corners[2 * k] != corners[2 * (i - 1)]:
            status |= put_coordinate(&y, corners[2 * k], frame.pixel, frame.origin_row)
        if i == 0 or corners[2 * k + 1] != corners[2 * (i - 1) + 1]:
            status |= put_coordinate(&x, corners[2 * k + 1], frame.pixel, frame.origin_col)
        if status != OK:
            return TOO_FAR
        # A fixed number of bytes is one or two moves; what is too much is overwritten.
        out[0] = b"["
        memcpy(out + 1, x.text, NUMBER)
        out += 1 + x.size
        out[0] = b","
        memcpy(out + 1, y.text, NUMBER)
        out += 1 + y.size
        out[0] = b"]"
        out[1] = b","
        out += 2
    (out - 1)[0] = b"]"
    text.size = out - text.data
    return OK


cdef int put_geometry(Text *text, int64_t ring, int64_t ring_end, const uint8_t *shells, const int64_t *offsets,
                      const corner_t *corners, const Frame *frame) noexcept nogil:
    """Write a Polygon, or a MultiPolygon where there are several shells."""
    cdef int64_t r, parts = 0
    cdef int status
    for r in range(ring, ring_end):
        parts += shells[r]
    if parts == 1:
        put(text, b'{"type":"Polygon","coordinates":[', 33)
    else:
        put(text, b'{"type":"MultiPolygon","coordinates":[[', 39)
    for r in range(ring, ring_end):
        if reserve(text, FRAME) != OK:
            return NO_MEMORY
        if r > ring:
            if shells[r]:
                put(text, b"],[", 3)
            else:
                put(text, b",", 1)
        status = put_ring(text, corners + 2 * offsets[r], offsets[r + 1] - offsets[r], frame)
        if status != OK:
            return status
    if reserve(text, FRAME) != OK:
        return NO_MEMORY
    if parts == 1:
        put(text, b"]}", 2)
    else:
        put(text, b"]]}", 3)
    return OK


cdef int put_properties(Text *text, int64_t kind, const double *values, const Frame *frame) noexcept nogil:
    cdef int64_t k
    cdef bint first = True
    if reserve(text, FRAME + frame.property_sizes[kind] + frame.names_size + (NUMBER + 2) * frame.measurements) != OK:
        return NO_MEMORY
    put(text, b',"properties":{', 15)
    put(text, frame.properties[kind], frame.property_sizes[kind])
    put(text, b'"measurements":{', 16)
    for k in range(frame.measurements):
        if isnan(values[k]):
            continue                # this object has no such measurement
        if not isfinite(values[k]):
            return NOT_FINITE
        if not first:
            put(text, b",", 1)
        first = False
        put(text, frame.names[k], frame.name_sizes[k])
        text.size += put_number(text.data + text.size, values[k])
    put(text, b"}}}", 3)
    return OK


cdef int begin_feature(Text *text, const int64_t *first, const Frame *frame) noexcept nogil:
    """Write a feature up to its geometry."""
    if reserve(text, FRAME) != OK:
        return NO_MEMORY
    put(text, b'{"type":"Feature","id":"', 24)
    text.size += put_uuid(text.data + text.size, frame.name_space, first[0], first[1])
    put(text, b'","geometry":', 13)
    return OK


cdef class Pieces:
    """Bytes objects as C strings, alive as long as this is."""

    cdef tuple pieces
    cdef const char **texts
    cdef int64_t *sizes
    cdef int64_t total

    def __cinit__(self, tuple pieces):
        cdef int64_t k
        cdef bytes piece
        self.pieces = pieces
        self.texts = <const char **> malloc((len(pieces) + 1) * sizeof(char *))
        self.sizes = <int64_t *> malloc((len(pieces) + 1) * sizeof(int64_t))
        if self.texts == NULL or self.sizes == NULL:
            raise MemoryError("no memory for the text of features")
        for k in range(len(pieces)):
            piece = pieces[k]
            self.texts[k] = <const char *> piece
            self.sizes[k] = len(piece)
            self.total += self.sizes[k]

    def __dealloc__(self):
        free(self.texts)
        free(self.sizes)


cdef check(int status):
    if status == NO_MEMORY:
        raise MemoryError("no memory for the text of features")
    if status == NOT_FINITE:
        raise ValueError("a measurement is infinite: JSON has no text for it")
    if status == TOO_FAR:
        raise ValueError("a coordinate lies beyond 2^33 px")


cdef struct Columns:
    const int64_t *first
    const int64_t *rings
    const uint8_t *shells
    const int64_t *offsets
    const int32_t *classes
    const double *values
    const int64_t *cells        # where the boundaries of cells begin among their corners; NULL: no cells


cdef int put_boundary(Text *text, const int64_t *offsets, const corner_t *corners, const Frame *frame) noexcept nogil:
    """Write the boundary of a cell and the key of its nucleus."""
    cdef uint8_t shell = 1
    cdef int status
    cdef int64_t ends[2]
    ends[0] = offsets[0]
    ends[1] = offsets[1]
    status = put_geometry(text, 0, 1, &shell, ends, corners, frame)
    if status == OK:
        status = reserve(text, FRAME)
    if status == OK:
        put(text, b',"nucleusGeometry":', 19)
    return status


cdef int put_features(Text *text, const Columns *columns, const corner_t *corners, const corner_t *boundaries, int64_t begin,
                      int64_t end, const Frame *frame) noexcept nogil:
    cdef int64_t i
    cdef int status
    for i in range(begin, end):
        if i > begin:
            if reserve(text, FRAME) != OK:
                return NO_MEMORY
            put(text, b",\n", 2)
        status = begin_feature(text, columns.first + 2 * i, frame)
        if status == OK and columns.cells != NULL:
            status = put_boundary(text, columns.cells + i, boundaries, frame)
        if status == OK:
            status = put_geometry(text, columns.rings[i], columns.rings[i + 1], columns.shells, columns.offsets, corners, frame)
        if status == OK:
            status = put_properties(text, columns.classes[i], columns.values + i * frame.measurements, frame)
        if status != OK:
            return status
    return OK


def features(tuple columns, const corner_t[:, ::1] corners, const corner_t[:, ::1] boundaries, double[::1] transform,
             bytes name_space, tuple styles, int64_t begin, int64_t end):
    """Return the text of objects begin..end, one a line, commas between.

    `columns` are first, rings, shells, offsets, classes, values and the offsets of `boundaries` (none where objects are no
    cells), C-contiguous, as nuclix.ext.geojson_text has checked them; `transform` is (pixel, origin row, origin column); `styles` are the classes' properties and the names.
    """
    cdef const int64_t[:, ::1] first = columns[0]
    cdef const int64_t[::1] rings = columns[1], offsets = columns[3]
    cdef const uint8_t[::1] shells = columns[2]
    cdef const int32_t[::1] classes = columns[4]
    cdef const double[:, ::1] values = columns[5]
    cdef const int64_t[::1] cells = columns[6]
    cdef const corner_t *boundary = NULL
    cdef Pieces by_class = Pieces(styles[0]), by_name = Pieces(styles[1])
    cdef const uint8_t *seed = <const uint8_t *> <const char *> name_space
    cdef Frame frame = Frame(transform[0], transform[1], transform[2], seed, by_class.texts, by_class.sizes,
                             by_name.texts, by_name.sizes, by_name.total, values.shape[1])
    cdef Columns data
    cdef Text text = Text(NULL, 0, 0)
    cdef char *out
    cdef int status
    if begin >= end:
        return b""
    data = Columns(&first[0, 0], &rings[0], &shells[0], &offsets[0], &classes[0], NULL, NULL)
    if cells.shape[0]:
        data.cells = &cells[0]
        boundary = &boundaries[0, 0]
    if values.shape[1]:
        data.values = &values[0, 0]
    try:
        with nogil:
            status = put_features(&text, &data, &corners[0, 0], boundary, begin, end, &frame)
        check(status)
        result = PyBytes_FromStringAndSize(NULL, text.size)
        out = PyBytes_AS_STRING(result)
        with nogil:     # nobody else has seen these bytes yet
            memcpy(out, text.data, text.size)
        return result
    finally:
        free(text.data)


def identifiers(const int64_t[:, ::1] first, bytes name_space):
    """Return the UUIDs of places as a list of str; rows and columns fit 32 bits, the namespace has 16 bytes."""
    cdef const uint8_t *seed = <const uint8_t *> <const char *> name_space
    cdef char text[64]
    cdef int64_t i, size
    cdef list found = []
    for i in range(first.shape[0]):
        size = put_uuid(text, seed, first[i, 0], first[i, 1])
        found.append(text[:size].decode("ascii"))
    return found
