"""Write a QuPath project: its images, its classes with their colours, and a script that imports the nuclei."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from nuclix.engine.batch.index import read_index
from nuclix.engine.contracts import ObjectClass
from nuclix.engine.errors import DataError, OutputError, UsageError
from nuclix.engine.files import replace_file
from nuclix.engine.segmentation.annotations import TISSUE

PROJECT_NAME = "project.qpproj"
IMPORT_SCRIPT = "import-nuclei.groovy"
PROJECT_SCRIPT = "make-project.groovy"
IMAGE_TYPES = ("BRIGHTFIELD_H_E", "BRIGHTFIELD_H_DAB", "BRIGHTFIELD_OTHER", "FLUORESCENCE", "OTHER")
# The QuPath whose file format is written; 0.4 to 0.7 open it.
_QUPATH_VERSION = "0.5.1"
_OPENSLIDE = "qupath.lib.images.servers.openslide.OpenslideServerBuilder"
_BIOFORMATS = "qupath.lib.images.servers.bioformats.BioFormatsServerBuilder"
# Vendors (as OpenSlide names them) whose slides QuPath opens with OpenSlide; others are opened with Bio-Formats.
_OPENSLIDE_VENDORS = frozenset(
    ("aperio", "hamamatsu", "leica", "mirax", "philips", "sakura", "trestle", "ventana", "generic-tiff", "dicom")
)
_ALPHA = 0xFF000000
_INT32 = 1 << 32


@dataclass(frozen=True, slots=True)
class ProjectOptions:
    """How the import script treats an image.

    Attributes
    ----------
    image_type : str
        Type given to images that have none yet, one of `IMAGE_TYPES`; empty to leave them alone.
    resolve_hierarchy : bool
        Whether nuclei are put under the annotations that contain them.
    """

    image_type: str = ""
    resolve_hierarchy: bool = False


@dataclass(frozen=True, slots=True)
class ProjectSummary:
    """A written project.

    Attributes
    ----------
    project, script : Path
        The project file and the import script.
    added, present : int
        Images that were added, and that were in the project already.
    without_result : tuple of str
        Names of slides that have no file for QuPath.
    """

    project: Path
    script: Path
    added: int
    present: int
    without_result: tuple[str, ...]


def write_project(index: Path, folder: Path, options: ProjectOptions) -> ProjectSummary:
    """Write a QuPath project with all slides of an index, or add those that an existing project lacks.

    Parameters
    ----------
    index : Path
        The index of an output folder.
    folder : Path
        The project's folder, made if missing.
    options : ProjectOptions
        How the import script treats an image.

    Raises
    ------
    UsageError
        If the index has no slides.
    DataError
        If the folder's project file can't be understood; it is left alone.
    OutputError
        If the folder can't be written.
    """
    slides = read_index(index)
    if not slides:
        raise UsageError(f"{index.parent}: no slide is finished yet; run `nuclix run` first")
    path = folder / PROJECT_NAME
    project = _read_project(path)
    images = project["images"]
    before = {uri for image in images for uri in _uris_of(image)}
    present = 0
    for slide in slides:
        if before & {_comparable(uri) for uri in slide["uris"]}:
            present += 1
            continue
        project["lastID"] += 1
        images.append(_entry(slide, project["lastID"]))
    project["modifyTimestamp"] = _now()
    project["uri"] = path.resolve().as_uri()
    script = folder / "scripts" / IMPORT_SCRIPT
    try:
        script.parent.mkdir(parents=True, exist_ok=True)
        (folder / "classifiers").mkdir(exist_ok=True)
        replace_file(script, _script(IMPORT_SCRIPT, index, options).encode())
        replace_file(folder / "scripts" / PROJECT_SCRIPT, _script(PROJECT_SCRIPT, index, options).encode())
        _write_classes(folder / "classifiers" / "classes.json", slides)
        if path.exists():
            shutil.copy2(path, path.with_name(f"{PROJECT_NAME}.backup"))
        replace_file(path, json.dumps(project, indent=2).encode())
    except OSError as error:
        raise OutputError(f"{error.filename or folder}: can't be written: {error.strerror}") from error
    without = tuple(str(slide["name"]) for slide in slides if not slide["result"])
    return ProjectSummary(path, script, len(slides) - present, present, without)


def headless_command(summary: ProjectSummary) -> str:
    """Return the command that imports the nuclei of all images without a window, for a shell."""
    import shlex

    parts = ["QuPath", "script", str(summary.script.resolve()), "--project", str(summary.project.resolve()), "--save"]
    return shlex.join(parts)


def _now() -> int:
    """Return the time as QuPath keeps it: milliseconds since 1970."""
    return int(time.time() * 1000)


def _read_project(path: Path) -> dict[str, Any]:
    """Return the content of a project file, or that of an empty project."""
    if not path.exists():
        now = _now()
        return {
            "version": _QUPATH_VERSION,
            "createTimestamp": now,
            "modifyTimestamp": now,
            "uri": "",
            "lastID": 0,
            "images": [],
        }
    try:
        content = json.loads(path.read_bytes())
        content["images"] = list(content.get("images", []))
        identifiers = [int(image["entryID"]) for image in content["images"]]
        content["lastID"] = max([int(content.get("lastID", 0)), *identifiers])
        return dict(content)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"{path}: is not a QuPath project that can be added to ({error}); give another folder"
        ) from error


def _uris_of(image: Mapping[str, Any]) -> list[str]:
    """Return the URIs in an image's server builder, however deep: rotated and cropped images wrap another builder."""
    found: list[str] = []
    waiting: list[Any] = [image.get("serverBuilder")]
    while waiting:
        part = waiting.pop()
        if isinstance(part, dict):
            if isinstance(part.get("uri"), str):
                found.append(_comparable(part["uri"]))
            waiting += part.values()
        elif isinstance(part, list):
            waiting += part
    return found


def _comparable(uri: str) -> str:
    """Return what two spellings of a file's URI have in common: Java writes file:/a, Python file:///a."""
    parts = urlsplit(uri)
    return f"{parts.scheme}:{parts.netloc}{unquote(parts.path)}"


def _entry(slide: Mapping[str, Any], number: int) -> dict[str, Any]:
    openslide = slide.get("vendor") in _OPENSLIDE_VENDORS
    builder = {
        "builderType": "uri",
        "providerClassName": _OPENSLIDE if openslide else _BIOFORMATS,
        "uri": slide["uris"][0],
        "args": [] if openslide else ["--series", "0"],
    }
    return {"serverBuilder": builder, "entryID": number, "imageName": slide["file"], "metadata": {}}


def packed_color(color: Sequence[int]) -> int:
    """Return a colour as Java packs it: a signed 32-bit number of alpha, red, green and blue.

    >>> packed_color((200, 0, 0))
    -3670016
    """
    red, green, blue = (int(value) for value in color)
    return (_ALPHA | red << 16 | green << 8 | blue) - _INT32


def _write_classes(path: Path, slides: Sequence[Mapping[str, Any]]) -> None:
    """Add the slides' classes to those that the project has; colours that are there stay."""
    try:
        classes = list(json.loads(path.read_bytes())["pathClasses"]) if path.exists() else []
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path}: is not a list of QuPath's classes ({error}); move it away") from error
    known = {item.get("name") for item in classes if isinstance(item, dict)}
    found = [ObjectClass(item["name"], tuple(item["color"])) for slide in slides for item in slide["classes"]]
    for kind in (*found, TISSUE):
        if kind.name not in known:
            known.add(kind.name)
            classes.append({"name": kind.name, "color": packed_color(kind.color)})
    replace_file(path, json.dumps({"pathClasses": classes}, indent=2, ensure_ascii=False).encode())


def _script(name: str, index: Path, options: ProjectOptions) -> str:
    """Return a script with its settings filled in."""
    text = files(__package__).joinpath(name).read_text(encoding="utf-8")
    values = {
        "@INDEX@": _groovy_text(str(index.resolve())),
        "@IMAGE_TYPE@": options.image_type,
        "@RESOLVE_HIERARCHY@": str(options.resolve_hierarchy).lower(),
    }
    for mark, value in values.items():
        text = text.replace(mark, value)
    return text


def _groovy_text(text: str) -> str:
    """Return text as it stands between single quotes in Groovy."""
    return text.replace("\\", "\\\\").replace("'", "\\'")
