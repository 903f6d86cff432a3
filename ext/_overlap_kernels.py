"""The Numba side of `nuclix.ext.overlap`: imported at the first call, since Numba takes a second to load."""

from __future__ import annotations

import numpy as np

from nuclix.ext._jit import kernel

_BLOCK = 4096  # pixels whose runs are found before they are counted: the list of runs stays in the L1 cache
_START_BITS = 14  # slots of the first hash table, so that a block's runs never fill more than half of it
_MULTIPLY = np.uint64(0x9E3779B97F4A7C15)  # 2^64 / golden ratio: Fibonacci hashing (Knuth, TAOCP 3, 6.4)
_SPREAD = np.uint64(0xD1B54A32D192ED03)  # an odd constant unlike the one above, so that (a, b) and (b, a) part


@kernel
def _first_slot(a, b, bits):  # type: ignore[no-untyped-def]
    """Return the slot where the search for the pair (a, b) begins."""
    mixed = ((np.uint64(a) * _MULTIPLY) ^ (np.uint64(b) * _SPREAD)) * _MULTIPLY
    return mixed >> np.uint64(64 - bits)


@kernel
def _find_runs(first, second, start, stop, starts):  # type: ignore[no-untyped-def]
    """Write where the runs of [start, stop) begin, then `stop`; return how many there are.

    A run is a stretch in which neither image changes. No branch depends on the pixels: every index is written, and
    the place to write to moves on only where a run begins.
    """
    starts[0] = start
    runs = 1
    last_a = first[start]
    last_b = second[start]
    for pixel in range(start + 1, stop):
        a = first[pixel]
        b = second[pixel]
        starts[runs] = pixel
        runs += np.int64(((a ^ last_a) | (b ^ last_b)) != 0)
        last_a = a
        last_b = b
    starts[runs] = stop
    return runs


@kernel
def _add_runs(first, second, starts, runs, table):  # type: ignore[no-untyped-def]
    """Add the lengths of the runs to the hash table; return how many pairs are new to it."""
    keys_a, keys_b, counts, bits = table
    last_slot = np.uint64((1 << bits) - 1)
    new = 0
    for run in range(runs):
        start = starts[run]
        a = first[start]
        b = second[start]
        if a | b == 0:
            continue
        slot = _first_slot(a, b, bits)
        while counts[slot] != 0 and (keys_a[slot] != a or keys_b[slot] != b):
            slot = (slot + np.uint64(1)) & last_slot
        if counts[slot] == 0:
            keys_a[slot] = a
            keys_b[slot] = b
            new += 1
        counts[slot] += starts[run + 1] - start
    return new


@kernel
def _grown(table):  # type: ignore[no-untyped-def]
    """Return the hash table with four times the slots."""
    keys_a, keys_b, counts, bits = table
    bits += 2
    last_slot = np.uint64((1 << bits) - 1)
    new_a = np.zeros(1 << bits, keys_a.dtype)
    new_b = np.zeros(1 << bits, keys_b.dtype)
    new_counts = np.zeros(1 << bits, np.int64)
    for old in range(counts.shape[0]):
        if counts[old] != 0:
            slot = _first_slot(keys_a[old], keys_b[old], bits)
            while new_counts[slot] != 0:
                slot = (slot + np.uint64(1)) & last_slot
            new_a[slot] = keys_a[old]
            new_b[slot] = keys_b[old]
            new_counts[slot] = counts[old]
    return new_a, new_b, new_counts, bits


@kernel
def count_pairs(first, second):  # type: ignore[no-untyped-def]
    """Count the distinct pairs of two flat arrays of one unsigned dtype.

    Returns the pairs without (0, 0), in the order of the hash table, and their counts.
    """
    slots = 1 << _START_BITS
    table = (np.zeros(slots, first.dtype), np.zeros(slots, first.dtype), np.zeros(slots, np.int64), _START_BITS)
    starts = np.empty(_BLOCK + 1, np.int64)
    used = 0
    for start in range(0, first.shape[0], _BLOCK):
        runs = _find_runs(first, second, start, min(start + _BLOCK, first.shape[0]), starts)
        used += _add_runs(first, second, starts, runs, table)
        if 2 * (used + _BLOCK) > table[2].shape[0]:
            table = _grown(table)
    filled = np.flatnonzero(table[2])
    return table[0][filled], table[1][filled], table[2][filled]


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
