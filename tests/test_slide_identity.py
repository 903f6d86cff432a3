"""A slide is known by its content: states, quick digests and hashes of slides that changed or did not."""

from __future__ import annotations

import json
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from nuclix.engine.segmentation.result_key import result_key
from nuclix.engine.slide.identity import agree, content_hash, is_quick, quick_digest, slide_state
from nuclix.engine.slide.open import fingerprint, open_slide
from resume_case import ResumeCase, touch
from slides import smooth_image, write_slide


def test_a_slide_that_was_overwritten_between_the_samples_of_its_fingerprint_is_another(tmp_path: Path) -> None:
    case = ResumeCase(tmp_path)
    case.slide.write_bytes(bytes(4 << 20))
    case.row = case.made(None, 0.5)
    with case.slide.open("r+b") as file:
        file.seek(70 << 10)  # after the first sample of 64 kB, before the second
        file.write(b"other" * 1000)
    touch(case.slide)
    assert json.loads(case.row.key)["slide"] == fingerprint(case.slide)
    assert case.check().changed == ("slide",)


class Index:
    """Stands for a reader that knows where tiles lie."""

    def __init__(self, places: str) -> None:
        self.places = places

    def tile_index(self) -> str:
        return self.places


class OtherIndex(Index):
    """Another reader, whose index is another."""


def test_a_quick_digest_sees_places_of_tiles_and_samples_of_all_files(tmp_path: Path) -> None:
    path = tmp_path / "a.svs"
    path.write_bytes(bytes(8 << 20))
    before = quick_digest(path, Index("one"))
    assert is_quick(before) and not is_quick(content_hash(path))
    assert agree(before, quick_digest(path, Index("one")))
    assert not agree(before, quick_digest(path, Index("two")))
    assert agree(before, quick_digest(path, OtherIndex("two"))), "indices of two readers can't be compared"
    assert agree(quick_digest(path, object()), quick_digest(path, object()))
    with path.open("r+b") as file:
        file.seek(3 << 20)
        file.write(b"other" * 4000)  # a quarter of a percent
    assert not agree(before, quick_digest(path, Index("one")))


@pytest.mark.parametrize("full", [False, True])
def test_a_slide_with_new_content_under_an_old_name_is_another(tmp_path: Path, full: bool) -> None:
    case = ResumeCase(tmp_path)
    write_slide(case.slide, smooth_image(300, 300))
    size = case.slide.stat().st_size
    with closing(open_slide(case.slide)) as reader:
        digest = content_hash(case.slide) if full else quick_digest(case.slide, reader)
        case.row = replace(case.made(None, 0.5), content=digest)
    touch(case.slide)
    assert case.check().done
    with case.slide.open("r+b") as file:  # nothing that `fingerprint` sees: the file is small, so it sees all
        file.seek(size // 2)
        file.write(b"other" * 100)
    touch(case.slide)
    case.row = replace(case.row, key=result_key(fingerprint(case.slide), "model", case.config, None))
    assert case.check().changed == ("slide",)


def test_the_data_folder_of_a_slide_counts(tmp_path: Path) -> None:
    (tmp_path / "a.mrxs").write_bytes(b"preview")
    data = tmp_path / "a" / "Data0000.dat"
    data.parent.mkdir()
    data.write_bytes(b"pixels")
    before, hashed = slide_state(tmp_path / "a.mrxs"), content_hash(tmp_path / "a.mrxs")
    assert before.size == 13
    data.write_bytes(b"others")
    touch(data)
    assert slide_state(tmp_path / "a.mrxs").text != before.text and content_hash(tmp_path / "a.mrxs") != hashed
