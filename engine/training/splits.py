"""Which images a network learns from and which it is scored on: by a table, by whole groups, by folds, or all of them.

Images of one patient, or tiles of one field, are alike: a network that has seen one half of a cell is not tested by the
other. Groups keep them together.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from nuclix.engine.errors import DataError, UsageError
from nuclix.engine.training.tables import IMAGE, read_column, read_rows

TRAIN, VALIDATION = PARTS = ("train", "validation")
SPLIT_FILE, GROUPS_FILE = "split.csv", "groups.csv"
GROUP, FOLD = "group", "fold"
HOLD_OUT_ONE_IN = 5


@dataclass(frozen=True, slots=True)
class Fold:
    """Fold `index` (from 1) of `count`: its images validate, all others train."""

    index: int
    count: int

    def __post_init__(self) -> None:
        if not (self.count >= 2 and 1 <= self.index <= self.count):
            raise ValueError(f"a fold is I/K with K of at least 2 and I from 1 to K, not {self.index}/{self.count}")

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"

    @classmethod
    def parse(cls, text: str) -> Fold:
        """Return the fold that ``I/K`` says; raise `ValueError` where it is none."""
        index, slash, count = text.partition("/")
        if not (slash and index.isdecimal() and count.isdecimal()):
            raise ValueError(f"a fold is I/K, such as 1/4, not {text!r}")
        return cls(int(index), int(count))


@dataclass(frozen=True, slots=True)
class SplitOptions:
    """How a data set is split.

    Attributes
    ----------
    table : Path, optional
        CSV with the columns image and split (train or validation); default: the folder's ``split.csv``, else the first
        of `shipped` that names exactly these images, else one group in five by a hash of its name.
    groups : Path, optional
        CSV with the columns image and group: the images of a group stay together. Default: the folder's ``groups.csv``.
    fold : Fold, optional
        Hold out one of several folds in place of what a table says.
    folds : Path, optional
        CSV with the columns image and fold (1 to K); default: groups are dealt so that folds have equally many images.
    train_on_all : bool
        Hold out nothing.
    shipped : tuple of Path
        Split tables of known data sets.
    """

    table: Path | None = None
    groups: Path | None = None
    fold: Fold | None = None
    folds: Path | None = None
    train_on_all: bool = False
    shipped: tuple[Path, ...] = ()

    def __post_init__(self) -> None:
        if sum((self.table is not None, self.fold is not None, self.train_on_all)) > 1:
            raise UsageError("use only one of --split, --fold and --train-on-all")
        if self.folds is not None and self.fold is None:
            raise UsageError("--folds needs --fold I/K to say which of its folds is held out")


@dataclass(frozen=True, slots=True)
class Split:
    """Image name to "train" or "validation" (images without a part are not used), and in words where that is from.

    Attributes
    ----------
    parts : mapping of str to str
        Image name to part.
    source : str
        For the log and the model's card.
    table : Path, optional
        The CSV that said it.
    """

    parts: Mapping[str, str]
    source: str
    table: Path | None = None


def split_images(folder: Path, names: Sequence[str], options: SplitOptions) -> Split:
    """Split the images of a folder.

    Parameters
    ----------
    folder : Path
        May hold ``split.csv`` and ``groups.csv``.
    names : sequence of str
        Its images.
    options : SplitOptions
        How.

    Raises
    ------
    DataError
        If a table can't be read, names an image that is not there, or tears a group apart.
    """
    groups = read_groups(folder, names, options.groups)
    if options.train_on_all:
        return Split(dict.fromkeys(names, TRAIN), "all images train, none validates", _shipped(names, options.shipped))
    if options.fold is not None:
        return _fold_split(names, groups, options)
    table = options.table or (folder / SPLIT_FILE if (folder / SPLIT_FILE).is_file() else None)
    if table is not None:
        parts = read_split(table)
        unknown = sorted(set(parts) - set(names))
        if unknown:
            raise DataError(f"{table}: names {unknown[0]}, which is not in {folder / 'images'}")
        _check_groups(table, parts, groups)
        return Split(parts, table.name, table)
    shipped = _shipped(names, options.shipped)
    if shipped is not None:
        return Split(read_split(shipped), f"{shipped.name} of the recipe", shipped)
    what = "name" if _all_alone(groups) else "group"
    parts = {name: VALIDATION if held_out(groups[name]) else TRAIN for name in names}
    return Split(parts, f"one {what} in {HOLD_OUT_ONE_IN} by hash")


def read_split(path: Path) -> dict[str, str]:
    """Return name to "train" or "validation" from a CSV with the columns image and split."""
    rows = read_rows(path, "split")
    for number, row in enumerate(rows, 2):
        if not row[IMAGE] or row["split"] not in PARTS:
            raise DataError(f"{path}, line {number}: split must be one of {', '.join(PARTS)}, not {row['split']!r}")
    return {row[IMAGE]: row["split"] for row in rows}


def read_groups(folder: Path, names: Sequence[str], path: Path | None = None) -> dict[str, str]:
    """Return image name to group: from `path`, else the folder's ``groups.csv``, else every image is its own group."""
    path = path or (folder / GROUPS_FILE if (folder / GROUPS_FILE).is_file() else None)
    if path is None:
        return {name: name for name in names}
    return read_column(path, GROUP, names)


def held_out(name: str) -> bool:
    """Return whether a group without a stated part validates: one in five, by SHA-256 of its name."""
    return hashlib.sha256(name.encode()).digest()[0] % HOLD_OUT_ONE_IN == 0


def deal_folds(group_of: Mapping[str, str], count: int) -> dict[str, int]:
    """Deal whole groups to folds of about equally many images.

    Parameters
    ----------
    group_of : mapping of str to str
        Image name to group.
    count : int
        Folds.

    Returns
    -------
    dict
        Image name to fold, from 1; a function of the names alone.

    Raises
    ------
    DataError
        If there are fewer groups than folds.

    Examples
    --------
    >>> deal_folds({"a": "x", "b": "x", "c": "y", "d": "z"}, 2)
    {'a': 1, 'b': 1, 'c': 2, 'd': 2}
    """
    members: dict[str, list[str]] = {}
    for name, group in group_of.items():
        members.setdefault(group, []).append(name)
    if len(members) < count:
        raise DataError(f"{len(members)} group(s) of images can't be split into {count} folds")
    order = sorted(members, key=lambda group: (-len(members[group]), hashlib.sha256(group.encode()).digest()))
    sizes, fold_of = [0] * count, {}
    for group in order:
        fold = sizes.index(min(sizes))
        sizes[fold] += len(members[group])
        fold_of.update(dict.fromkeys(members[group], fold + 1))
    return {name: fold_of[name] for name in group_of}


def read_folds(path: Path, names: Sequence[str], group_of: Mapping[str, str], count: int) -> dict[str, int]:
    """Return image name to fold, 1 to `count`, from a CSV with the columns image and fold; groups must stay whole."""
    found = read_column(path, FOLD, names)
    wrong = next((name for name in names if not found[name].isdecimal() or int(found[name]) < 1), None)
    if wrong is not None:
        raise DataError(f"{path}: the fold of {wrong} is {found[wrong]!r}; folds are whole numbers from 1")
    _check_groups(path, found, group_of)
    fold_of = {name: int(found[name]) for name in names}
    if set(fold_of.values()) != set(range(1, count + 1)):
        raise DataError(f"{path}: must have the folds 1 to {count}, has {sorted(set(fold_of.values()))}")
    return fold_of


def _fold_split(names: Sequence[str], groups: Mapping[str, str], options: SplitOptions) -> Split:
    fold = options.fold
    assert fold is not None
    if options.folds is None:
        fold_of, source = deal_folds(groups, fold.count), f"fold {fold}"
    else:
        fold_of, source = read_folds(options.folds, names, groups, fold.count), f"fold {fold} of {options.folds.name}"
    parts = {name: VALIDATION if fold_of[name] == fold.index else TRAIN for name in names}
    return Split(parts, source, _shipped(names, options.shipped))


def _shipped(names: Sequence[str], tables: Sequence[Path]) -> Path | None:
    """Return the first table that names exactly these images."""
    return next((path for path in tables if set(names) == set(read_split(path))), None)


def _check_groups(path: Path, part_of: Mapping[str, str], group_of: Mapping[str, str]) -> None:
    """Raise `DataError` if a table puts two images of one group into different parts."""
    seen: dict[str, str] = {}
    for name, part in part_of.items():
        other = seen.setdefault(group_of[name], name)
        if part_of[other] != part:
            raise DataError(
                f"{path}: {other} is in {part_of[other]} and {name} in {part}, but both are of group {group_of[name]}; "
                "keep a group's images together"
            )


def _all_alone(group_of: Mapping[str, str]) -> bool:
    return all(name == group for name, group in group_of.items())
