# Numbers and identifiers as text. Included in _text.pyx.
#
# Input: a number, or a namespace and a place. Output: ASCII characters written at `out`; every function returns how many.
# Nothing here asks the C library: its answer would depend on the locale.

from libc.math cimport rint
from libc.stdint cimport int64_t, uint8_t, uint64_t
from libc.string cimport memcpy, memset

cdef enum:
    DIGITS = 5              # significant digits: within 5e-5 of the value, less than rounded coordinates add

cdef double ALL_DIGITS = 1e5             # 10 to the DIGITS
cdef double LARGEST_WHOLE = 1e9         # below it whole numbers are written in full
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


cdef int64_t put_digits(char *out, int64_t digits, int exponent) noexcept nogil:
    """Write digits * 10^(exponent - DIGITS + 1), the number d.dddd * 10^exponent, in the shorter usual form."""
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
    """Write a finite number with DIGITS significant digits, trailing zeros dropped, whole ones in full; return its length."""
    cdef int64_t n = 0, digits
    cdef int exponent = 0, k = 0
    if value < 0:
        out[0] = b"-"
        n = 1
        value = -value
    if value < LARGEST_WHOLE and value == <double> <int64_t> value:
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
    if digits >= ALL_DIGITS:
        digits //= 10
        k += 1
    return n + put_digits(out + n, digits, exponent + k)


cdef inline uint64_t mixed(uint64_t value) noexcept nogil:
    """Return the value with its bits mixed, one to one (SplitMix64: Steele, Lea and Flood 2014)."""
    value += 0x9e3779b97f4a7c15u
    value = (value ^ (value >> 30)) * 0xbf58476d1ce4e5b9u
    value = (value ^ (value >> 27)) * 0x94d049bb133111ebu
    return value ^ (value >> 31)


cdef inline uint64_t eight_bytes_of(const uint8_t *data) noexcept nogil:
    cdef uint64_t value = 0
    cdef int i
    for i in range(8):
        value = value << 8 | data[i]
    return value


cdef int64_t put_uuid(char *out, const uint8_t *name_space, int64_t row, int64_t col) noexcept nogil:
    """Write a UUIDv8 (RFC 9562, section 5.8) of a place, whose row and column fit 32 bits, in a namespace of 16 bytes.

    The 122 free bits are 64 of the place, mixed with the namespace one to one, and 58 of the namespace: no two places of a
    namespace have one UUID.
    """
    cdef const char *hexadecimal = b"0123456789abcdef"
    cdef uint64_t place = <uint64_t> row << 32 | (<uint64_t> col & 0xffffffffu)
    cdef uint64_t halves[2]
    cdef int i
    cdef char *begin = out
    place = mixed(place ^ eight_bytes_of(name_space))
    halves[0] = (place >> 16 << 16) | 0x8000u | (place >> 4 & 0xfffu)       # version 8
    halves[1] = <uint64_t> 2 << 62 | (place & 15) << 58 | (eight_bytes_of(name_space + 8) & 0x03ffffffffffffffu)
    for i in range(32):
        if i == 8 or i == 12 or i == 16 or i == 20:
            out[0] = b"-"
            out += 1
        out[0] = hexadecimal[halves[i >> 4] >> (60 - 4 * (i & 15)) & 15]
        out += 1
    return out - begin
