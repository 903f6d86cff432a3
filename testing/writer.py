"""What every writer must do; run `CHECKS` on your own, each with the writer's class and an empty folder.

>>> import pytest
>>> @pytest.mark.parametrize("check", CHECKS)
... def test_my_writer(check, tmp_path):
...     check(MyWriter, tmp_path)
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from nuclix.engine.contracts import ObjectClass, SlideHeader, Writer
from nuclix.engine.errors import OutputError
from nuclix.engine.geometry import Box
from nuclix.engine.segmentation.measure import objects_of
from nuclix.engine.segmentation.objects import Objects, take

Check = Callable[[type[Writer], Path], None]
NAME = "a slide.v2"  # with a space and a dot: suffixes are added, not replaced
CLASSES = (ObjectClass("Nucleus", (200, 0, 0)), ObjectClass("Größer", (0, 0, 255)))


def header() -> SlideHeader:
    """Return a header with a size, a downsample, an origin and two classes."""
    return SlideHeader(
        name=NAME, downsample=0.5, origin=(3.0, 4.5), classes=CLASSES, namespace="slide/model", shape=(90, 160), mpp=0.5
    )


def objects(seed: int = 0) -> Objects:
    """Return some nuclei of two classes: with holes, in several parts, in canonical order."""
    rng = np.random.default_rng(seed)
    labels = np.kron(rng.integers(0, 30, (20, 20)), np.ones((3, 4), int)) * (rng.random((60, 80)) < 0.97)
    found = objects_of(labels, rng.random(labels.shape, np.float32), Box(100, 200, 60, 80), 0.25)
    found.classes[1::2] = 1
    return found


def blocks(whole: Objects, size: int) -> list[Objects]:
    """Split objects into blocks of `size`."""
    return [take(whole, np.arange(start, min(start + size, len(whole)))) for start in range(0, len(whole), size)]


def target(writer: type[Writer], folder: Path, name: str = NAME) -> Path:
    """Return the path of a result in `folder`."""
    return folder / (name + writer.suffix)


def written(writer: type[Writer], path: Path, parts: Sequence[Objects]) -> bytes:
    """Write a file and return its bytes."""
    session = writer().open(path, header())
    for part in parts:
        session.write(part)
    session.commit()
    return path.read_bytes()


def open_files() -> set[str]:
    """Return what this process has open, where the system tells."""
    folder = Path("/proc/self/fd")
    if not folder.is_dir():
        return set()
    return {str(link.readlink()) for link in folder.iterdir() if link.is_symlink()}


def check_protocol(writer: type[Writer], folder: Path) -> None:
    """Check the protocol and the suffix."""
    assert isinstance(writer(), Writer)
    assert writer.suffix.startswith((".", "-"))
    assert "/" not in writer.suffix


def check_the_name_is_given_by_commit(writer: type[Writer], folder: Path) -> None:
    """Check that the final name appears with `commit`, not before."""
    path = target(writer, folder)
    session = writer().open(path, header())
    assert not path.exists()
    for block in blocks(objects(), 7):
        session.write(block)
        assert not path.exists()
    session.commit()
    assert [entry.name for entry in folder.iterdir()] == [path.name], "nothing else is left over"
    assert path.stat().st_size > 0


def check_unfinished_files_are_hidden(writer: type[Writer], folder: Path) -> None:
    """Check that a glob over the folder does not find a file that is being written."""
    session = writer().open(target(writer, folder), header())
    session.write(objects())
    assert not list(folder.glob("[!.]*"))
    session.abort()


def check_abort_leaves_nothing(writer: type[Writer], folder: Path) -> None:
    """Check that `abort` removes everything that was written."""
    for parts in ([], [objects()]):
        session = writer().open(target(writer, folder), header())
        for part in parts:
            session.write(part)
        session.abort()
        assert not list(folder.iterdir())
        session.abort()


def check_abort_keeps_what_was_there(writer: type[Writer], folder: Path) -> None:
    """Check that `abort` leaves an earlier file of the same name as it was."""
    path = target(writer, folder)
    old = written(writer, path, [objects()])
    session = writer().open(path, header())
    session.write(objects(1))
    assert path.read_bytes() == old, "the old file stands until the new one is complete"
    session.abort()
    assert path.read_bytes() == old
    assert len(list(folder.iterdir())) == 1


def check_commit_replaces_what_was_there(writer: type[Writer], folder: Path) -> None:
    """Check that `commit` replaces an earlier file of the same name."""
    path = target(writer, folder)
    old = written(writer, path, [objects()])
    new = written(writer, path, [objects(1)])
    assert new == path.read_bytes() != old
    assert len(list(folder.iterdir())) == 1


def check_a_committed_file_outlives_abort(writer: type[Writer], folder: Path) -> None:
    """Check that `abort` after `commit` does nothing."""
    path = target(writer, folder)
    session = writer().open(path, header())
    session.write(objects())
    session.commit()
    content = path.read_bytes()
    session.abort()
    assert path.read_bytes() == content


def check_slides_without_nuclei(writer: type[Writer], folder: Path) -> None:
    """Check that a slide without nuclei gives a complete file."""
    nothing = take(objects(), np.zeros(0, np.int64))
    contents = [written(writer, target(writer, folder, str(k)), parts) for k, parts in enumerate([[], [nothing]])]
    assert all(target(writer, folder, str(k)).exists() for k in range(2))
    full = written(writer, target(writer, folder), [objects()])
    assert all(len(content) < len(full) for content in contents)


def check_blocks_do_not_matter(writer: type[Writer], folder: Path) -> None:
    """Check that the file depends on the objects and their order only, not on block sizes or the date."""
    whole = objects()
    nothing = take(whole, np.zeros(0, np.int64))
    splits = [[whole], blocks(whole, 1), blocks(whole, 8), [nothing, *blocks(whole, 9), nothing], [whole]]
    contents = {written(writer, target(writer, folder, str(k)), parts) for k, parts in enumerate(splits)}
    assert len(contents) == 1


def check_order_is_kept(writer: type[Writer], folder: Path) -> None:
    """Check that objects are written in the order in which they come."""
    whole = objects()
    forwards = written(writer, target(writer, folder, "forwards"), [whole])
    backwards = written(writer, target(writer, folder, "backwards"), [take(whole, np.arange(len(whole))[::-1])])
    assert forwards != backwards


def check_two_files_at_once(writer: type[Writer], folder: Path) -> None:
    """Check that two files can be written at the same time."""
    alone = [written(writer, target(writer, folder, f"alone {k}"), [objects(k)]) for k in range(2)]
    paths = [target(writer, folder, f"together {k}") for k in range(2)]
    sessions = [writer().open(path, header()) for path in paths]
    for part in range(3):
        for k, session in enumerate(sessions):
            session.write(take(objects(k), np.arange(len(objects(k)))[part::3]))
    sessions[0].commit()
    sessions[1].abort()
    assert not paths[1].exists()
    again = writer().open(paths[1], header())
    again.write(objects(1))
    again.commit()
    assert paths[1].read_bytes() == alone[1]
    assert paths[0].stat().st_size > 0


def check_objects_are_left_alone(writer: type[Writer], folder: Path) -> None:
    """Check that the caller's arrays are not changed."""
    given, untouched = objects(), objects()
    arrays = [given.first, given.pixels, given.rings, given.shells, given.offsets, given.corners, given.classes]
    for array in [*arrays, *given.measurements.values()]:
        array.setflags(write=False)
    written(writer, target(writer, folder), [given])
    np.testing.assert_array_equal(given.corners, untouched.corners)
    assert list(given.measurements) == list(untouched.measurements)


def check_files_are_closed(writer: type[Writer], folder: Path) -> None:
    """Check that no file stays open after `commit` and `abort`."""
    before = open_files()
    written(writer, target(writer, folder), [objects()])
    session = writer().open(target(writer, folder), header())
    session.write(objects())
    session.abort()
    assert open_files() == before


def check_permissions_are_the_usual_ones(writer: type[Writer], folder: Path) -> None:
    """Check that a result has the permissions of any new file."""
    usual = folder / "usual"
    usual.touch()
    written(writer, target(writer, folder), [objects()])
    assert target(writer, folder).stat().st_mode == usual.stat().st_mode


def check_a_missing_folder_is_an_error_for_the_user(writer: type[Writer], folder: Path) -> None:
    """Check that a missing folder raises `OutputError` with the path."""
    path = target(writer, folder / "missing")
    with pytest.raises(OutputError) as caught:
        writer().open(path, header())
    assert str(path) in str(caught.value)
    assert os.strerror(2) in str(caught.value)


def check_a_folder_that_vanishes_is_an_error_for_the_user(writer: type[Writer], folder: Path) -> None:
    """Check that a folder removed while writing raises `OutputError`."""
    path = target(writer, folder / "there")
    path.parent.mkdir()
    session = writer().open(path, header())
    session.write(objects())
    path.parent.rename(folder / "gone")
    with pytest.raises(OutputError) as caught:
        session.commit()
    assert str(path) in str(caught.value)
    session.abort()


CHECKS: list[Check] = [value for name, value in sorted(globals().items()) if name.startswith("check_")]
