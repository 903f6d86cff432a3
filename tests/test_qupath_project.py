"""The QuPath project: its JSON, its classes, and what it does to a project that exists."""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
from dataclasses import asdict
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

from nuclix.engine.batch.index import read_index, write_index
from nuclix.engine.batch.ledger import Ledger
from nuclix.engine.cli.main import main
from nuclix.engine.errors import DataError
from nuclix.engine.qupath import project as module
from nuclix.engine.qupath.project import ProjectOptions, headless_command, packed_color, write_project
from nuclix.engine.segmentation.record import SlideRecord

CLASSES = [{"name": "Tumour", "color": [200, 0, 0]}, {"name": "Größe", "color": [0, 0, 255]}]


def finish(out: Path, name: str, path: Path, vendor: str, results: list[str]) -> None:
    """Enter a finished slide in the ledger, with its result files."""
    for result in results:
        (out / result).parent.mkdir(parents=True, exist_ok=True)
        (out / result).write_text("{}")
    record = SlideRecord(
        slide={
            "vendor": vendor,
            "height": 100,
            "width": 200,
            "bounds": {"row": 1, "col": 2, "height": 30, "width": 40},
        },
        model={"classes": CLASSES},
        settings={},
        counts={"nuclei": 3},
        outputs=[{"format": "x", "path": result, "sha256": "s"} for result in results],
    )
    ledger = Ledger(out)
    ledger.enlist(name, path, 1)
    entry = {"fingerprint": "f", "key": "{}", "output": results[0] if results else "x", "checksum": "s"}
    ledger.finish(name, {**entry, "record": asdict(record)})
    ledger.close()


@pytest.fixture
def out(tmp_path: Path) -> Path:
    folder = tmp_path / "out"
    folder.mkdir()
    finish(folder, "a", tmp_path / "a b'ü.svs", "aperio", ["a.geojson", "a.zip", "a.csv"])
    finish(folder, "sub/c", tmp_path / "c.ome.tif", "ome-tiff", ["sub/c.geojson.gz"])
    finish(folder, "d", tmp_path / "d.svs", "aperio", ["d.csv"])
    return folder


def project(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / "project.qpproj").read_bytes()))


def test_the_index_names_the_file_that_needs_the_least_memory(out: Path, tmp_path: Path) -> None:
    slides = {item["name"]: item for item in read_index(write_index(out))}
    assert {name: item["result"] for name, item in slides.items()} == {
        "a": "a.zip", "sub/c": "sub/c.geojson.gz", "d": None,
    }  # fmt: skip
    assert slides["a"]["uris"] == [(tmp_path / "a b'ü.svs").as_uri()]
    assert (slides["a"]["width"], slides["a"]["height"]) == (40, 30), "what QuPath shows: the bounds"
    (out / "a.zip").unlink()
    assert {item["name"]: item["result"] for item in read_index(write_index(out))}["a"] == "a.geojson"


def test_a_link_is_found_under_both_names(tmp_path: Path, out: Path) -> None:
    (tmp_path / "real.svs").touch()
    (tmp_path / "link.svs").symlink_to(tmp_path / "real.svs")
    finish(out, "link", tmp_path / "link.svs", "aperio", ["link.geojson"])
    slides = {item["name"]: item for item in read_index(write_index(out))}
    assert slides["link"]["uris"] == [(tmp_path / name).as_uri() for name in ("link.svs", "real.svs")]


def test_a_new_project(out: Path, tmp_path: Path) -> None:
    folder = tmp_path / "project"
    summary = write_project(write_index(out), folder, ProjectOptions("BRIGHTFIELD_H_E", True))
    assert (summary.added, summary.present, summary.without_result) == (3, 0, ("d",))
    found = project(folder)
    assert list(found) == ["version", "createTimestamp", "modifyTimestamp", "uri", "lastID", "images"]
    assert isinstance(found["createTimestamp"], int) and isinstance(found["modifyTimestamp"], int)
    assert found["uri"] == (folder / "project.qpproj").as_uri() and found["lastID"] == 3
    first, second, third = found["images"]
    assert first == {
        "serverBuilder": {
            "builderType": "uri",
            "providerClassName": "qupath.lib.images.servers.openslide.OpenslideServerBuilder",
            "uri": (tmp_path / "a b'ü.svs").as_uri(),
            "args": [],
        },
        "entryID": 1,
        "imageName": "a b'ü.svs",
        "metadata": {},
    }
    assert third["serverBuilder"]["providerClassName"].endswith("bioformats.BioFormatsServerBuilder")
    assert third["serverBuilder"]["args"] == ["--series", "0"] and second["entryID"] == 2
    classes = json.loads((folder / "classifiers" / "classes.json").read_bytes())["pathClasses"]
    assert [item["name"] for item in classes] == ["Tumour", "Größe", "Tissue"]
    assert classes[0]["color"] == packed_color((200, 0, 0)) == -3670016
    script = summary.script.read_text(encoding="utf-8")
    assert "'BRIGHTFIELD_H_E'" in script and "RESOLVE_HIERARCHY = true" in script and "@" not in script


def test_a_project_that_exists_keeps_what_it_has(out: Path, tmp_path: Path) -> None:
    folder = tmp_path / "project"
    folder.mkdir()
    wrapped = {"builderType": "rotated", "builder": {"uri": f"file:{(tmp_path / 'd.svs')}", "args": []}}
    mine = {"serverBuilder": wrapped, "entryID": 7, "imageName": "renamed", "metadata": {"stain": "x"}, "tags": ["t"]}
    before = {"version": "0.6.0", "createTimestamp": 1, "uri": "file:/x", "lastID": 7, "images": [mine], "extra": 1}
    (folder / "project.qpproj").write_text(json.dumps(before))
    (folder / "classifiers").mkdir()
    (folder / "classifiers" / "classes.json").write_text('{"pathClasses": [{"name": "Tumour", "color": 5}]}')
    for added, present in ((2, 1), (0, 3)):
        summary = write_project(write_index(out), folder, ProjectOptions())
        assert (summary.added, summary.present) == (added, present)
    found = project(folder)
    assert found["images"][0] == mine and found["extra"] == 1 and found["version"] == "0.6.0"
    assert [image["entryID"] for image in found["images"]] == [7, 8, 9]
    classes = json.loads((folder / "classifiers" / "classes.json").read_bytes())["pathClasses"]
    assert classes[0] == {"name": "Tumour", "color": 5} and len(classes) == 3
    assert (folder / "project.qpproj.backup").exists()


@pytest.mark.parametrize("content", ["", "[]", '{"images": [{}]}', '{"images": 5}'])
def test_a_file_that_is_no_project_is_left_alone(content: str, out: Path, tmp_path: Path) -> None:
    path = tmp_path / "project" / "project.qpproj"
    path.parent.mkdir()
    path.write_text(content)
    with pytest.raises(DataError, match="not a QuPath project"):
        write_project(write_index(out), path.parent, ProjectOptions())
    assert path.read_text() == content


def test_the_command_line(out: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "my project"
    assert main(["qupath", str(out), "--project", str(folder), "--headless-command"]) == 0
    said = capsys.readouterr()
    assert "d: has no file for QuPath" in said.err
    words = shlex.split(said.out)
    assert words[:2] == ["QuPath", "script"] and Path(words[2]).is_file()
    assert words[3:] == ["--project", str(folder / "project.qpproj"), "--save"]
    assert main(["qupath", str(out), "--project", str(folder), "--image-type", "H&E"]) == 2
    (tmp_path / "empty").mkdir()
    Ledger(tmp_path / "empty").close()
    assert main(["qupath", str(tmp_path / "empty"), "--project", str(folder)]) == 2
    assert "no slide is finished" in capsys.readouterr().err


def test_the_headless_command_names_the_script_with_its_folder(out: Path, tmp_path: Path) -> None:
    summary = write_project(write_index(out), tmp_path / "p", ProjectOptions())
    assert f"{tmp_path}/p/scripts/import-nuclei.groovy" in headless_command(summary)


@pytest.mark.skipif(shutil.which("groovyc") is None, reason="no Groovy on this machine")
@pytest.mark.parametrize("name", [module.IMPORT_SCRIPT, module.PROJECT_SCRIPT])
def test_groovy_parses_the_scripts(name: str, tmp_path: Path) -> None:
    text = files("nuclix.engine.qupath").joinpath(name).read_text(encoding="utf-8")
    text = text.replace("@INDEX@", "C:\\\\it\\'s").replace("@RESOLVE_HIERARCHY@", "false").replace("@IMAGE_TYPE@", "")
    # QuPath's classes are not here: Groovy compiles the syntax without them.
    lines = [line for line in text.splitlines() if not line.startswith("import qupath")]
    script = tmp_path / "Script.groovy"
    script.write_text("\n".join(lines), encoding="utf-8")
    done = subprocess.run(["groovyc", "-d", tmp_path, script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("groovy") is None, reason="no Groovy on this machine")
def test_the_import_script_on_made_up_images(out: Path, tmp_path: Path) -> None:
    """Its own code with stand-ins for QuPath's classes: which result it takes, and what it replaces."""
    summary = write_project(write_index(out), tmp_path / "p", ProjectOptions("BRIGHTFIELD_H_E"))
    here = Path(__file__).parent / "groovy"
    subprocess.run(
        ["groovyc", "-d", tmp_path / "classes", here / "ImageData.groovy", here / "PathIO.groovy"], check=True
    )
    command = ["groovy", "-cp", tmp_path / "classes", here / "Harness.groovy", summary.script, tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    results = [line for line in done.stdout.splitlines() if line.startswith("RESULT")]
    untouched = "RESULT 2 true true UNSET"
    assert results == [
        "RESULT 4 true false BRIGHTFIELD_H_E",
        "RESULT 4 true false BRIGHTFIELD_H_DAB",
        *[untouched] * 4,
    ]
    said = [line for line in done.stdout.splitlines() if line.startswith("nuclix")]
    for words in ("1 earlier ones replaced", "same file name and size", "does not name its file", "would be shifted",
                  "no GeoJSON or zip", "does not fit in QuPath's memory"):  # fmt: skip
        assert any(words in line for line in said), words
