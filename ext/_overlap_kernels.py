"""The Numba side of `nuclix.ext.overlap`: imported at the first call, since Numba takes a second to load."""

from __future__ import annotations

import numpy as np
from nuclix.ext._jit import kernel

_EMPTY = -1  # a free slot of the hash table; counts are never negative
_START_BITS = 12
_MULTIPLY = np.uint64(0x9E3779B97F4A7C15)  # 2^64 / golden ratio: Fibonacci hashing (Knuth, TAOCP 3, 6.4)
_SPREAD = np.uint64(0xD1B54A32D192ED03)  # an odd constant unlike the one above, so that (a, b) and (b, a) part
_CHUNK = 16  # pixels compared at a time: four or eight SIMD registers


@kernel
def _slot(keys_a, keys_b, counts, bits, a, b):  # type: ignore[no-untyped-def]
    """Return where the pair (a, b) lies, or the free slot where it belongs."""
    mask = (1 << bits) - 1
    mixed = (np.uint64(a) * _MULTIPLY) ^ (np.uint64(b) * _SPREAD)
    mixed *= _MULTIPLY
    position = np.int64(mixed >> np.uint64(64 - bits))
    while counts[position] != _EMPTY and (keys_a[position] != a or keys_b[position] != b):
        position = (position + 1) & mask
    return position


@kernel
def _grow(keys_a, keys_b, counts, bits):  # type: ignore[no-untyped-def]
    """Return the table with four times the slots."""
    size = 1 << (bits + 2)
    new_a = np.zeros(size, keys_a.dtype)
    new_b = np.zeros(size, keys_b.dtype)
    new_counts = np.full(size, _EMPTY, np.int64)
    for old in range(counts.shape[0]):
        if counts[old] != _EMPTY:
            position = _slot(new_a, new_b, new_counts, bits + 2, keys_a[old], keys_b[old])
            new_a[position] = keys_a[old]
            new_b[position] = keys_b[old]
            new_counts[position] = counts[old]
    return new_a, new_b, new_counts


@kernel
def count_pairs(first, second):  # type: ignore[no-untyped-def]
    """Count the distinct pairs of two flat arrays of one unsigned dtype, run by run.

    Returns the pairs (without (0, 0)) in the order of the hash table, and their counts. A run is a stretch in which
    neither array changes; only its end costs a look into the table, the middle is compared `_CHUNK` pixels at a time.
    """
    bits = _START_BITS
    keys_a = np.zeros(1 << bits, first.dtype)
    keys_b = np.zeros(1 << bits, first.dtype)
    counts = np.full(1 << bits, _EMPTY, np.int64)
    used = 0
    size = first.shape[0]
    start = 0
    while start < size:
        a = first[start]
        b = second[start]
        end = start + 1
        same = True
        while same and end + _CHUNK <= size:
            differs = first[end] ^ a
            for step in range(_CHUNK):
                differs |= (first[end + step] ^ a) | (second[end + step] ^ b)
            same = differs == 0
            if same:
                end += _CHUNK
        while end < size and first[end] == a and second[end] == b:
            end += 1
        if a != 0 or b != 0:
            position = _slot(keys_a, keys_b, counts, bits, a, b)
            if counts[position] == _EMPTY:
                keys_a[position] = a
                keys_b[position] = b
                counts[position] = 0
                used += 1
            counts[position] += end - start
            if 2 * used > counts.shape[0]:
                keys_a, keys_b, counts = _grow(keys_a, keys_b, counts, bits)
                bits += 2
        start = end
    filled = np.flatnonzero(counts != _EMPTY)
    return keys_a[filled], keys_b[filled], counts[filled]


@kernel
def take_free(truth, prediction, truths, predictions):  # type: ignore[no-untyped-def]
    """Return, for pairs in order of preference, which are taken: those whose both ends are still free."""
    truth_free = np.ones(truths, np.bool_)
    prediction_free = np.ones(predictions, np.bool_)
    chosen = np.zeros(truth.shape[0], np.bool_)
    for pair in range(truth.shape[0]):
        if truth_free[truth[pair]] and prediction_free[prediction[pair]]:
            truth_free[truth[pair]] = False
            prediction_free[prediction[pair]] = False
            chosen[pair] = True
    return chosen
