"""Zip archives of nuclei: Python's reader and Info-ZIP's rules, also beyond what 32 and 16 bits count."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import pytest

from nuclix.plugins.writers._zip_archive import ZipArchive, ZipEntry, compressed


class Hole(bytes):
    """Three GB that no memory holds."""

    def __len__(self) -> int:
        return 3 << 30


def test_entries_come_back_as_they_were() -> None:
    texts = {f"nuclei-{number:04d}.geojson": b"[1, 2]\n" * number for number in range(4)}
    file = io.BytesIO()
    archive = ZipArchive(file.write)
    for name, text in texts.items():
        archive.add(compressed(name, text))
    archive.finish()
    with zipfile.ZipFile(file) as found:
        assert found.testzip() is None
        assert {name: found.read(name) for name in found.namelist()} == texts
        assert {item.date_time for item in found.infolist()} == {(1980, 1, 1, 0, 0, 0)}
        assert {item.external_attr >> 16 for item in found.infolist()} == {0o100644}


def test_an_entry_behind_four_gigabytes(tmp_path: Path) -> None:
    path = tmp_path / "large.zip"
    with path.open("wb") as file:

        def write(content: bytes) -> None:
            if isinstance(content, Hole):
                file.seek(len(content), io.SEEK_CUR)  # takes no disk
            else:
                file.write(content)

        archive = ZipArchive(write)
        for number in range(2):
            archive.add(ZipEntry(f"hole{number}", Hole(), 0, 0))
        archive.add(compressed("behind", b"found"))
        archive.finish()
    with zipfile.ZipFile(path) as found:
        assert found.getinfo("behind").header_offset > 1 << 32
        assert found.read("behind") == b"found"


def test_more_entries_than_sixteen_bits_count() -> None:
    file = io.BytesIO()
    archive = ZipArchive(file.write)
    entry = compressed("a", b"same")
    for _ in range(1 << 16):
        archive.add(entry)
    archive.finish()
    with zipfile.ZipFile(file) as found:
        assert len(found.infolist()) == 1 << 16


def test_an_entry_that_32_bits_do_not_count_is_refused() -> None:
    class Huge(bytes):
        def __len__(self) -> int:
            return 1 << 32

    with pytest.raises(ValueError, match="too large"):
        compressed("huge", Huge())
