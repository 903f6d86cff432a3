"""A checkpoint keeps what was committed, whoever opens it and whenever its writer died."""

from __future__ import annotations

import errno
import os
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nuclix.engine.errors import Interrupted, OutputError
from nuclix.engine.segmentation import checkpoint as checkpoint_module
from nuclix.engine.segmentation.checkpoint import Checkpoint, committed_key
from nuclix.engine.segmentation.objects import Objects, concatenate

NAMES = ("area", "score")


@pytest.fixture(autouse=True)
def close_all(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Close the files of checkpoints that a test leaves open, as a kill would."""
    begun: list[Checkpoint] = []
    begin = Checkpoint._begin

    def remember(self: Checkpoint) -> None:
        begun.append(self)
        begin(self)

    monkeypatch.setattr(Checkpoint, "_begin", remember)
    yield
    for checkpoint in begun:
        checkpoint.close()


def some_objects(rng: np.random.Generator, count: int) -> Objects:
    """Objects of one square each, at random places."""
    first = rng.integers(0, 1000, (count, 2))
    corners = (first[:, None] + [[0, 0], [0, 3], [3, 3], [3, 0]]).reshape(-1, 2).astype(np.int32)
    return Objects(
        first=first,
        pixels=np.full(count, 9),
        rings=np.arange(count + 1),
        shells=np.ones(count, bool),
        offsets=4 * np.arange(count + 1),
        corners=corners,
        classes=np.zeros(count, np.int32),
        measurements={"area": rng.uniform(size=count), "score": rng.uniform(size=count)},
    )


def content(checkpoint: Checkpoint) -> list[tuple[int, ...]]:
    """The objects as they would be written: place, corners and a measurement."""
    blocks = list(checkpoint.blocks(size=5))
    if not blocks:
        return []
    found = concatenate(blocks)
    return [
        (*found.first[i].tolist(), *found.corners[4 * i : 4 * i + 4].ravel().tolist(), found.measurements["area"][i])
        for i in range(len(found))
    ]


@settings(max_examples=20)
@given(seed=st.integers(0, 2**32), rows=st.integers(0, 4), late=st.integers(0, 9), openings=st.integers(1, 3))
def test_whoever_opens_it_finds_what_was_committed_and_nothing_else(
    seed: int, rows: int, late: int, openings: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("checkpoint") / "s"
    rng = np.random.default_rng(seed)
    checkpoint = Checkpoint(folder, NAMES, "key")
    for row in range(rows):
        checkpoint.append(some_objects(rng, int(rng.integers(0, 12))))
        checkpoint.commit({"row": np.array([row])})
    expected = content(checkpoint)
    checkpoint.append(some_objects(rng, late))
    for _ in range(openings):  # each as after a kill: nobody has closed the one before
        checkpoint = Checkpoint(folder, NAMES, "key")
        assert content(checkpoint) == expected and len(checkpoint) == len(expected)
        assert ("row" in checkpoint.state) == (rows > 0)
        assert rows == 0 or int(checkpoint.state["row"][0]) == rows - 1
    assert len(list(folder.iterdir())) == 1
    checkpoint.remove()
    assert not folder.exists()


def test_a_worker_given_up_for_lost_can_spoil_nothing(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    zombie = Checkpoint(tmp_path / "s", NAMES, "key")
    zombie.append(some_objects(rng, 5))
    zombie.commit({"row": np.array([0])})
    heir = Checkpoint(tmp_path / "s", NAMES, "key")
    zombie.append(some_objects(rng, 50))
    with pytest.raises(Interrupted, match="taken this slide over"):
        zombie.commit({"row": np.array([1])})
    with pytest.raises(Interrupted):
        zombie.check()
    with pytest.raises(Interrupted):
        list(zombie.blocks())
    heir.append(some_objects(rng, 7))
    heir.commit({"row": np.array([1])})
    heir.check()
    assert len(content(heir)) == 12
    assert len(content(Checkpoint(tmp_path / "s", NAMES, "key"))) == 12


def test_a_zombie_whose_slide_is_done_and_cleared_away_is_told_so(tmp_path: Path) -> None:
    zombie = Checkpoint(tmp_path / "s", NAMES, "key")
    Checkpoint(tmp_path / "s", NAMES, "key").remove()
    with pytest.raises(Interrupted):
        zombie.check()


def test_many_open_it_at_once_and_one_of_them_has_it(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    first = Checkpoint(tmp_path / "s", NAMES, "key")
    first.append(some_objects(rng, 30))
    first.commit({"row": np.array([0])})
    expected = content(first)
    for _ in range(20):
        opened: list[Checkpoint] = []
        others: list[Exception] = []
        gate = threading.Barrier(4)

        def open_one(gate=gate, opened=opened, others=others) -> None:
            gate.wait()
            try:
                opened.append(Checkpoint(tmp_path / "s", NAMES, "key"))
            except Interrupted as error:
                others.append(error)

        threads = [threading.Thread(target=open_one) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(opened) + len(others) == 4
        mine = [checkpoint for checkpoint in opened if checkpoint._is_mine()]
        assert len(mine) == 1
        assert content(mine[0]) == expected
        for checkpoint in opened:
            checkpoint.close()


@pytest.mark.parametrize("how", ["shorter", "no_state", "torn_state", "empty_state", "column_gone"])
def test_a_damaged_checkpoint_is_begun_anew(tmp_path: Path, how: str) -> None:
    checkpoint = Checkpoint(tmp_path / "s", NAMES, "key")
    checkpoint.append(some_objects(np.random.default_rng(3), 20))
    checkpoint.commit({"row": np.array([0])})
    checkpoint.close()
    state, column = checkpoint.folder / "state.npz", checkpoint.folder / "first.bin"
    if how == "shorter":
        os.truncate(column, 100)
    elif how == "no_state":
        state.unlink()
    elif how == "torn_state":
        os.truncate(state, 300)
    elif how == "empty_state":
        state.write_bytes(b"")
    else:
        column.unlink()
    again = Checkpoint(tmp_path / "s", NAMES, "key")
    assert not again.state and len(again) == 0
    again.append(some_objects(np.random.default_rng(3), 4))
    again.commit({})
    assert len(content(again)) == 4


@pytest.mark.parametrize(
    "name", ["first", "pixels", "ring_counts", "shells", "corner_counts", "corners", "classes", "m0"]
)
def test_a_flipped_bit_in_any_column_is_noticed(tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture) -> None:
    checkpoint = Checkpoint(tmp_path / "s", NAMES, "key")
    checkpoint.append(some_objects(np.random.default_rng(3), 20))
    checkpoint.commit({"row": np.array([0])})
    checkpoint.close()
    file = checkpoint.folder / f"{name}.bin"
    content_before = bytearray(file.read_bytes())
    content_before[len(content_before) // 2] ^= 1
    file.write_bytes(content_before)
    again = Checkpoint(tmp_path / "s", NAMES, "key")
    assert not again.state and len(again) == 0
    assert f"{name}.bin has another checksum" in caplog.text and "started again" in caplog.text


def test_damage_of_every_kind_at_any_place_is_noticed(tmp_path: Path) -> None:
    """Zeroed, swapped, shortened, lengthened or flipped: what is resumed is what was committed, or nothing."""
    rng = np.random.default_rng(7)
    for trial in range(60):
        folder = tmp_path / str(trial)
        checkpoint = Checkpoint(folder, NAMES, "key")
        checkpoint.append(some_objects(rng, 20))
        checkpoint.commit({"row": np.array([0]), "edge": rng.random(5)})
        expected, state = content(checkpoint), checkpoint.state
        checkpoint.close()
        files = sorted(checkpoint.folder.iterdir())
        file = files[rng.integers(len(files))]
        damaged = bytearray(file.read_bytes())
        place = int(rng.integers(len(damaged)))
        how = trial % 5
        if how == 0:
            damaged[place] ^= 1 << int(rng.integers(8))
        elif how == 1:
            damaged[:] = bytes(len(damaged))
        elif how == 2:
            del damaged[place:]
        elif how == 3:
            damaged += b"more"  # past what was committed
        else:
            damaged[place:] = rng.bytes(len(damaged) - place)
        file.write_bytes(damaged)
        again = Checkpoint(folder, NAMES, "key")
        if again.state:
            assert content(again) == expected and int(again.state["row"][0]) == 0
        else:
            assert len(again) == 0 and state == {}
        again.close()


def test_a_kill_while_it_is_taken_over_leaves_the_older_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint = Checkpoint(tmp_path / "s", NAMES, "key")
    checkpoint.append(some_objects(np.random.default_rng(4), 20))
    checkpoint.commit({"row": np.array([0])})
    expected = content(checkpoint)

    class Kill(BaseException):
        pass

    def killed(*_: object) -> None:
        raise Kill

    for moment in ("_write_all", "write_state"):
        with monkeypatch.context() as patch, pytest.raises(Kill):
            patch.setattr(checkpoint_module, moment, killed)
            Checkpoint(tmp_path / "s", NAMES, "key")
    assert content(Checkpoint(tmp_path / "s", NAMES, "key")) == expected


def test_the_key_of_what_was_committed_last(tmp_path: Path) -> None:
    assert committed_key(tmp_path / "s") is None
    checkpoint = Checkpoint(tmp_path / "s", NAMES, "one")
    assert committed_key(tmp_path / "s") is None
    checkpoint.commit({})
    assert committed_key(tmp_path / "s") == "one"
    Checkpoint(tmp_path / "s", NAMES, "two").commit({})
    assert committed_key(tmp_path / "s") == "two"


@pytest.mark.parametrize("call", ["append", "commit"])
def test_a_full_disk_is_an_output_error_that_says_so(
    tmp_path: Path, call: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = Checkpoint(tmp_path / "s", NAMES, "key")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(checkpoint_module, "_write_all", full)
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match="No space left on device") as caught:
        checkpoint.append(some_objects(np.random.default_rng(5), 3)) if call == "append" else checkpoint.commit({})
    assert caught.value.__cause__.errno == errno.ENOSPC


def test_a_folder_that_is_gone_is_an_output_error(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    checkpoint = Checkpoint(tmp_path / "out" / "s", NAMES, "key")
    shutil.rmtree(tmp_path / "out")
    with pytest.raises(OutputError, match="No such file"):
        checkpoint.commit({})
    with pytest.raises(OutputError, match="No such file"):
        Checkpoint(tmp_path / "out" / "s", NAMES, "key")
    assert not (tmp_path / "out").exists()
