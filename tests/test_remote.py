"""Slides at addresses are copied once, found again, and refused in a line."""

from __future__ import annotations

import functools
import http.server
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import fsspec
import pytest

from end_to_end import config_for, make_model, make_slide
from nuclix.engine.batch.remote import local_inputs
from nuclix.engine.batch.slide_table import list_slides
from nuclix.engine.cli import main
from nuclix.engine.errors import UsageError
from nuclix.engine.slide.open import open_slide


@pytest.fixture
def slide(tmp_path: Path) -> Path:
    return make_slide(tmp_path / "store" / "a slide.tif", height=60, width=80)


@pytest.fixture
def store(slide: Path) -> Iterator[str]:
    """A bucket in memory with two slides."""
    memory = fsspec.filesystem("memory")
    for name in ("a.tif", "b.tif"):
        memory.pipe(f"/bucket/{name}", slide.read_bytes())
    yield "memory://bucket"
    memory.rm("/bucket", recursive=True)


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Keep still."""


@contextmanager
def serving(kind: type[http.server.SimpleHTTPRequestHandler], folder: Path) -> Iterator[str]:
    handler = functools.partial(kind, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{running.server_address[1]}"
        running.shutdown()
        thread.join()


@pytest.fixture
def server(slide: Path) -> Iterator[str]:
    with serving(_Quiet, slide.parent) as address:
        yield address


def test_a_pattern_of_a_store_is_copied_once(store: str, slide: Path, tmp_path: Path) -> None:
    paths = [
        Path(path) for path in local_inputs([f"{store}/*.tif", "here.svs"], tmp_path / "copies", download=True).paths
    ]
    assert [path.name for path in paths] == ["a.tif", "b.tif", "here.svs"]
    assert all(path.read_bytes() == slide.read_bytes() for path in paths[:2])
    before = paths[0].stat().st_mtime_ns
    again = local_inputs([f"{store}/a.tif"], tmp_path / "copies", download=False)
    assert again.paths == (str(paths[0]),) and paths[0].stat().st_mtime_ns == before
    fsspec.filesystem("memory").pipe("/bucket/a.tif", b"another file")
    with pytest.raises(UsageError, match="is not copied yet"):
        local_inputs([f"{store}/a.tif"], tmp_path / "copies", download=False)
    (copied,) = local_inputs([f"{store}/a.tif"], tmp_path / "copies", download=True).paths
    assert Path(copied).read_bytes() == b"another file"


def test_a_slide_of_a_web_server_is_a_slide_of_the_run(server: str, slide: Path, tmp_path: Path) -> None:
    pytest.importorskip("aiohttp")
    config = config_for(tmp_path / "out", tmp_path / "model.pt", f"{server}/a%20slide.tif?token=x")
    (job,) = list_slides(config, download=True).jobs
    assert str(job.name) == "a slide"
    assert job.path.is_relative_to(tmp_path / "out" / ".nuclix" / "remote")
    reader = open_slide(job.path)
    assert reader.info.levels[0].width == 80
    reader.close()
    missing = replace(config, inputs=(f"{server}/none.tif",))
    with pytest.raises(UsageError, match=r"none\.tif: can't be read"):
        list_slides(missing, download=True)


class _Lost(_Quiet):
    """Ends the connection in the middle of every file but those named whole.tif."""

    def copyfile(self, source: Any, outputfile: Any) -> None:
        content = source.read()
        outputfile.write(content if self.path.endswith("/whole.tif") else content[: len(content) // 2])
        self.close_connection = True


def test_a_lost_connection_fails_one_slide_and_leaves_no_part_of_a_file(
    slide: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("aiohttp")
    model = make_model(tmp_path / "model.pt")
    for name in ("whole.tif", "lost.tif"):
        (slide.parent / name).write_bytes(slide.read_bytes())
    out = tmp_path / "out"
    with serving(_Lost, slide.parent) as address:
        command = ["run", f"{address}/lost.tif", f"{address}/whole.tif", "--model", str(model), "--out", str(out)]
        assert main([*command, "--no-tissue"]) == 1
    said = capsys.readouterr()
    assert re.search(r"/lost\.tif: can't be copied \(Client", said.out + said.err)
    assert (out / "whole.geojson").is_file(), said.out + said.err
    assert not (out / "lost.geojson").exists()
    copies = [path for path in (out / ".nuclix" / "remote").rglob("*") if path.is_file()]
    assert sorted(path.name for path in copies) == ["source.json", "whole.tif"]
    with serving(_Quiet, slide.parent) as address:
        again = [text.replace(text[: text.rindex("/")], address) if "http" in text else text for text in command]
        assert main([*again, "--no-tissue"]) == 0


@pytest.mark.parametrize(
    ("address", "text"),
    [
        ("memory://bucket/none-*.svs", "matches no file"),
        ("memory://bucket/none.svs", "can't be read"),
        ("memory://bucket/a.mrxs", "several files"),
        ("memory://bucket", r"is a folder; name its slides by a pattern such as memory://bucket/\*\.svs"),
        ("nosuch://bucket/a.svs", "Protocol not known"),
    ],
)
def test_addresses_that_are_no_slides_are_refused(address: str, text: str, store: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=text) as error:
        local_inputs([address], tmp_path / "copies", download=True)
    assert str(error.value).startswith(address)
    assert not (tmp_path / "copies").exists()


def test_a_missing_library_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: object) -> None:
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr(fsspec.core, "url_to_fs", missing)
    with pytest.raises(UsageError, match=r"Install s3fs to access S3.*install it with pip"):
        local_inputs(["s3://bucket/a.svs"], tmp_path, download=True)
