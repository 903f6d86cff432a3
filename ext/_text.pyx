# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""GeoJSON text of outlines. Called through nuclix.ext.geojson_text, which validates.

Nothing here asks the C library to format a number: its answer would depend on the locale.
"""

from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.math cimport fabs, fma, isfinite, rint
from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc, realloc
from libc.string cimport memcpy, memset

cdef enum:
    OK = 0
    NO_MEMORY = 1
    NOT_FINITE = 2
    TOO_FAR = 3

cdef enum:
    NUMBER = 32             # bytes that hold any number written here
    CORNER = 72             # bytes that hold "[x,y]," and leave room to copy two whole number fields
    FRAME = 320             # bytes that hold all fixed text of a feature, its identifier included
    DIGITS = 9              # significant digits: enough to tell any two float32 apart

cdef double FARTHEST = 8589934592.0     # 2^33 px: hundredths below 2^40 leave 2^-13 for the rounding error
cdef double NEAR_TIE = 0.001            # further from a tie than the rounding error of a product below 2^40
cdef double NINE_DIGITS = 1e9
cdef double SMALLEST_FIXED = 1e-5       # below it and from 1e15 on numbers get an exponent
cdef double LARGEST_STEP = 1e10

cdef double POWERS[23]                  # of ten: all that a double holds exactly
POWERS[:] = [1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18,
             1e19, 1e20, 1e21, 1e22]

cdef char PAIRS[200]                    # "00" to "99"
cdef int _pair
for _pair in range(100):
    PAIRS[2 * _pair] = 48 + _pair // 10
    PAIRS[2 * _pair + 1] = 48 + _pair % 10

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


cdef inline int64_t put_whole(char *out, uint64_t value) noexcept nogil:
    """Write a whole number; return its length."""
    cdef char digits[24]
    cdef int at = 24
    while value >= 100:
        at -= 2
        memcpy(digits + at, PAIRS + 2 * (value % 100), 2)
        value //= 100
    if value >= 10:
        at -= 2
        memcpy(digits + at, PAIRS + 2 * value, 2)
    else:
        at -= 1
        digits[at] = <char> (48 + value)
    memcpy(out, digits + at, 24 - at)
    return 24 - at


cdef inline int64_t put_signed(char *out, int64_t value) noexcept nogil:
    if value < 0:
        out[0] = b"-"
        return 1 + put_whole(out + 1, -<uint64_t> value)
    return put_whole(out, <uint64_t> value)


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


cdef inline int put_coordinate(Field *field, int32_t corner, double pixel, double origin) noexcept nogil:
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


cdef int put_ring(Text *text, const int32_t *corners, int64_t count, const Frame *frame) noexcept nogil:
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


cdef int64_t put_digits(char *out, int64_t digits, int exponent) noexcept nogil:
    """Write digits * 10^(exponent - DIGITS + 1), the number d.dddddddd * 10^exponent, in the shorter usual form."""
    cdef char text[24]
    cdef int64_t n = 0, count, point
    while digits % 10 == 0:
        digits //= 10
    count = put_whole(text, digits)
    if -5 <= exponent < 0:
        memcpy(out, b"0.00000", 7)
        memcpy(out + 1 - exponent, text, count)
        return 1 - exponent + count
    point = exponent + 1 if 0 <= exponent < 15 else 1
    if count <= point:
        memcpy(out, text, count)
        memset(out + count, 48, point - count)
        n = point
    else:
        memcpy(out, text, point)
        out[point] = b"."
        memcpy(out + point + 1, text + point, count - point)
        n = count + 1
    if not 0 <= exponent < 15:
        out[n] = b"e"
        n += 1 + put_signed(out + n + 1, exponent)
    return n


cdef int64_t put_number(char *out, double value) noexcept nogil:
    """Write a finite number with DIGITS significant digits, trailing zeros dropped; return its length."""
    cdef int64_t n = 0, digits
    cdef int exponent = 0, k = 0
    if value < 0:
        out[0] = b"-"
        n = 1
        value = -value
    if value < NINE_DIGITS and value == <double> <int64_t> value:
        return n * (value != 0) + put_whole(out + n * (value != 0), <uint64_t> value)
    while value >= LARGEST_STEP:
        value /= LARGEST_STEP
        exponent += 10
    while value < SMALLEST_FIXED:
        value *= LARGEST_STEP
        exponent -= 10
    while value >= POWERS[k + 1]:
        k += 1
    while value * POWERS[-k if k < 0 else 0] < 1:
        k -= 1
    digits = <int64_t> rint(value * POWERS[DIGITS - 1 - k] if k < DIGITS else value / POWERS[k - DIGITS + 1])
    if digits >= NINE_DIGITS:
        digits //= 10
        k += 1
    return n + put_digits(out + n, digits, exponent + k)


cdef inline uint32_t rotate(uint32_t value, int bits) noexcept nogil:
    return (value << bits) | (value >> (32 - bits))


cdef void sha1_block(const uint8_t *block, uint32_t *state) noexcept nogil:
    """Digest one block of 64 bytes (FIPS 180-4, section 6.1.2)."""
    cdef uint32_t words[80]
    cdef uint32_t a = state[0], b = state[1], c = state[2], d = state[3], e = state[4], mixed
    cdef int i
    for i in range(16):
        words[i] = ((<uint32_t> block[4 * i] << 24) | (<uint32_t> block[4 * i + 1] << 16)
                    | (<uint32_t> block[4 * i + 2] << 8) | block[4 * i + 3])
    for i in range(16, 80):
        words[i] = rotate(words[i - 3] ^ words[i - 8] ^ words[i - 14] ^ words[i - 16], 1)
    for i in range(80):
        if i < 20:
            mixed = ((b & c) | (~b & d)) + 0x5a827999u
        elif i < 40:
            mixed = (b ^ c ^ d) + 0x6ed9eba1u
        elif i < 60:
            mixed = ((b & c) | (b & d) | (c & d)) + 0x8f1bbcdcu
        else:
            mixed = (b ^ c ^ d) + 0xca62c1d6u
        mixed += rotate(a, 5) + e + words[i]
        e = d
        d = c
        c = rotate(b, 30)
        b = a
        a = mixed
    state[0] += a
    state[1] += b
    state[2] += c
    state[3] += d
    state[4] += e


cdef void put_uuid(Text *text, const uint8_t *name_space, int64_t row, int64_t col) noexcept nogil:
    """Write the UUIDv5 (RFC 9562, section 5.5) of the name "row,col"; the name is shorter than 40 bytes."""
    cdef uint8_t block[64]
    cdef uint32_t state[5]
    cdef uint8_t byte
    cdef int64_t size = 16
    cdef int i
    cdef const char *hexadecimal = b"0123456789abcdef"
    cdef char *out = text.data + text.size
    memset(block, 0, 64)
    memcpy(block, name_space, 16)
    size += put_signed(<char *> block + size, row)
    block[size] = b","
    size += 1
    size += put_signed(<char *> block + size, col)
    block[size] = 0x80
    block[62] = <uint8_t> (size * 8 >> 8)
    block[63] = <uint8_t> (size * 8)
    state[0], state[1], state[2], state[3], state[4] = 0x67452301u, 0xefcdab89u, 0x98badcfeu, 0x10325476u, 0xc3d2e1f0u
    sha1_block(block, state)
    for i in range(16):
        byte = <uint8_t> (state[i >> 2] >> (24 - 8 * (i & 3)))
        if i == 6:
            byte = (byte & 0x0f) | 0x50     # version 5
        elif i == 8:
            byte = (byte & 0x3f) | 0x80     # variant of RFC 9562
        if i == 4 or i == 6 or i == 8 or i == 10:
            out[0] = b"-"
            out += 1
        out[0] = hexadecimal[byte >> 4]
        out[1] = hexadecimal[byte & 15]
        out += 2
    text.size = out - text.data


cdef int put_geometry(Text *text, int64_t ring, int64_t ring_end, const uint8_t *shells, const int64_t *offsets,
                      const int32_t *corners, const Frame *frame) noexcept nogil:
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
    if reserve(text, FRAME + frame.property_sizes[kind] + frame.names_size + (NUMBER + 2) * frame.measurements) != OK:
        return NO_MEMORY
    put(text, b',"properties":{', 15)
    put(text, frame.properties[kind], frame.property_sizes[kind])
    put(text, b'"measurements":{', 16)
    for k in range(frame.measurements):
        if not isfinite(values[k]):
            return NOT_FINITE
        if k:
            put(text, b",", 1)
        put(text, frame.names[k], frame.name_sizes[k])
        text.size += put_number(text.data + text.size, values[k])
    put(text, b"}}}", 3)
    return OK


cdef int put_feature(Text *text, const int64_t *first, int64_t ring, int64_t ring_end, const uint8_t *shells,
                     const int64_t *offsets, const int32_t *corners, const Frame *frame) noexcept nogil:
    """Write a feature up to its properties."""
    if reserve(text, FRAME) != OK:
        return NO_MEMORY
    put(text, b'{"type":"Feature","id":"', 24)
    put_uuid(text, frame.name_space, first[0], first[1])
    put(text, b'","geometry":', 13)
    return put_geometry(text, ring, ring_end, shells, offsets, corners, frame)


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
        raise ValueError("a measurement is not finite: JSON has no text for it")
    if status == TOO_FAR:
        raise ValueError("a coordinate lies beyond 2^33 px")


cdef struct Columns:
    const int64_t *first
    const int64_t *rings
    const uint8_t *shells
    const int64_t *offsets
    const int32_t *corners
    const int32_t *classes
    const double *values


cdef int put_features(Text *text, const Columns *columns, int64_t begin, int64_t end, const Frame *frame) noexcept nogil:
    cdef int64_t i
    cdef int status
    for i in range(begin, end):
        if i > begin:
            if reserve(text, FRAME) != OK:
                return NO_MEMORY
            put(text, b",\n", 2)
        status = put_feature(text, columns.first + 2 * i, columns.rings[i], columns.rings[i + 1], columns.shells,
                             columns.offsets, columns.corners, frame)
        if status == OK:
            status = put_properties(text, columns.classes[i], columns.values + i * frame.measurements, frame)
        if status != OK:
            return status
    return OK


def features(tuple columns, double[::1] transform, bytes name_space, tuple styles, int64_t begin, int64_t end):
    """Return the text of objects begin..end, one a line, commas between.

    `columns` are first, rings, shells, offsets, corners, classes and values, C-contiguous, as nuclix.ext.geojson_text has
    checked them; `transform` is (pixel, origin row, origin column); `styles` are the classes' properties and the names.
    """
    cdef const int64_t[:, ::1] first = columns[0]
    cdef const int64_t[::1] rings = columns[1], offsets = columns[3]
    cdef const uint8_t[::1] shells = columns[2]
    cdef const int32_t[:, ::1] corners = columns[4]
    cdef const int32_t[::1] classes = columns[5]
    cdef const double[:, ::1] values = columns[6]
    cdef Pieces by_class = Pieces(styles[0]), by_name = Pieces(styles[1])
    cdef const uint8_t *seed = <const uint8_t *> <const char *> name_space
    cdef Frame frame = Frame(transform[0], transform[1], transform[2], seed, by_class.texts, by_class.sizes,
                             by_name.texts, by_name.sizes, by_name.total, values.shape[1])
    cdef Columns data
    cdef Text text = Text(NULL, 0, 0)
    cdef int status
    if begin >= end:
        return b""
    data = Columns(&first[0, 0], &rings[0], &shells[0], &offsets[0], &corners[0, 0], &classes[0], NULL)
    if values.shape[1]:
        data.values = &values[0, 0]
    try:
        with nogil:
            status = put_features(&text, &data, begin, end, &frame)
        check(status)
        return PyBytes_FromStringAndSize(text.data, text.size)
    finally:
        free(text.data)
