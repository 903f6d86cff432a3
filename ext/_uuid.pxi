# UUIDs of first pixels. Included after _digits.pxi, not imported.

from libc.stdint cimport int64_t, uint8_t, uint32_t
from libc.string cimport memcpy, memset


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


cdef int64_t put_uuid(char *out, const uint8_t *name_space, int64_t row, int64_t col) noexcept nogil:
    """Write the UUIDv5 (RFC 9562, section 5.5) of the name "row,col", which is shorter than 40 bytes; return its length."""
    cdef uint8_t block[64]
    cdef uint32_t state[5]
    cdef uint8_t byte
    cdef int64_t size = 16
    cdef int i
    cdef const char *hexadecimal = b"0123456789abcdef"
    cdef char *begin = out
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
    return out - begin
