"""Damage that a slide is read in spite of: how much of it there is, and how much is allowed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from nuclix.engine.contracts import SlideReader
from nuclix.engine.geometry import Box


@dataclass(frozen=True, slots=True)
class TileDamage:
    """Tiles of a slide that are shown as background because the file does not hold their pixels.

    Attributes
    ----------
    missing : int
        Tiles of all levels that have no bytes in the file. Some scanners and exporters leave tiles out where nothing
        was scanned; a coarse level's tile is averaged from the finer level.
    undecodable : int
        Tiles read so far that do not decode.
    """

    missing: int = 0
    undecodable: int = 0


@runtime_checkable
class DamageTolerant(Protocol):
    """A slide reader that can go on after a tile that does not decode."""

    @property
    def damage(self) -> TileDamage:
        """Tiles that are shown as background because the file does not hold their pixels."""
        ...

    def tolerate_damage(self, max_tiles: int) -> None:
        """Show up to `max_tiles` tiles that do not decode as background; one more is a `SlideError`."""
        ...


@runtime_checkable
class UniformRegions(Protocol):
    """A slide reader that knows regions of one colour without decoding them, such as background that shares a tile."""

    def uniform(self, level: int, box: Box) -> tuple[int, int, int] | None:
        """Return the colour of a box inside the level where it is known to be of one, None elsewhere."""
        ...


def damage_of(reader: SlideReader) -> TileDamage:
    """Return what a reader counted; none for one that does not count."""
    return reader.damage if isinstance(reader, DamageTolerant) else TileDamage()


def damage_warnings(damage: TileDamage) -> list[str]:
    """Return what the user should know of a slide's tiles."""
    warnings = []
    if damage.missing:
        warnings.append(f"tiles without data in the file, shown as background: {damage.missing}")
    if damage.undecodable:
        warnings.append(f"damaged tiles, shown as background because of --tolerate-damage: {damage.undecodable}")
    return warnings
