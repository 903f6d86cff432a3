"""Identifiers of objects, from their definition."""

from __future__ import annotations

import uuid

_BITS_32 = 2**32 - 1
_BITS_64 = 2**64 - 1


def mixed(value: int) -> int:
    """SplitMix64 (Steele, Lea and Flood 2014)."""
    value = (value + 0x9E3779B97F4A7C15) & _BITS_64
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & _BITS_64
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & _BITS_64
    return value ^ (value >> 31)


def identifier(namespace: uuid.UUID, row: int, col: int) -> str:
    """Return the UUIDv8 of a place: 64 bits of the place, mixed with the namespace, and 58 of the namespace."""
    place = mixed(((row & _BITS_32) << 32 | (col & _BITS_32)) ^ (namespace.int >> 64))
    free = place << 58 | (namespace.int & (2**58 - 1))
    high, middle, low = free >> 74, free >> 62 & 0xFFF, free & (2**62 - 1)
    return str(uuid.UUID(int=high << 80 | 8 << 76 | middle << 64 | 2 << 62 | low))
