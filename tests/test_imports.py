"""Imports point one way: plugins -> engine -> ext; plugins do not know each other; nothing heavy at the top."""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

import pytest

from sources import PACKAGES, ROOT, Import, dotted, imports, modules

# Imported by the functions that use them, so that start-up does not pay for them.
DEFERRED = {
    "PIL", "cv2", "dask", "distributed", "jinja2", "matplotlib", "numba", "rich", "scipy", "skimage", "tiffslide", "torch",
}  # fmt: skip
# Networks are classes of torch's: these modules can't wait, so whoever needs them does.
OF_TORCH = {
    "engine/training/unet.py",
    *(str(path.relative_to(ROOT)) for path in ROOT.glob("plugins/recipes/_*_network*.py")),
}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def within(name: str, package: str) -> bool:
    return name == package or name.startswith(package + ".")


def found(path: Path) -> list[Import]:
    return list(imports(path))


@pytest.mark.parametrize("path", modules("ext"), ids=str)
def test_ext_knows_numpy_numba_and_itself(path: Path) -> None:
    allowed = {"numpy", "numba", "nuclix", *sys.stdlib_module_names}
    for seen in found(path):
        assert seen.name.partition(".")[0] in allowed, f"{path}:{seen.line} imports {seen.name}"
        if within(seen.name, "nuclix"):
            assert within(seen.name, "nuclix.ext"), f"{path}:{seen.line} imports {seen.name}"


@pytest.mark.parametrize("path", modules("engine"), ids=str)
def test_engine_knows_no_plugin(path: Path) -> None:
    for seen in found(path):
        assert not within(seen.name, "nuclix.plugins"), f"{path}:{seen.line} imports {seen.name}"


@pytest.mark.parametrize("path", modules("plugins"), ids=str)
def test_plugins_do_not_know_each_other(path: Path) -> None:
    """A plugin may have private helpers (``_name``) in its own group; everything shared lies below, in the engine."""
    group = ".".join(dotted(path).split(".")[:3])
    for seen in found(path):
        if not within(seen.name, "nuclix.plugins"):
            continue
        helper = within(seen.name, group) and seen.name.removeprefix(group + ".").startswith("_")
        assert helper, f"{path}:{seen.line} imports {seen.name}"


@pytest.mark.parametrize("path", modules(*PACKAGES), ids=str)
def test_heavy_libraries_are_imported_where_they_are_used(path: Path) -> None:
    if str(path) in OF_TORCH:
        return
    waiting = {*DEFERRED, *(dotted(Path(name)) for name in OF_TORCH)}
    for seen in found(path):
        heavy = any(within(seen.name, name) for name in waiting)
        assert not (seen.at_top and heavy), f"{path}:{seen.line} imports {seen.name} at the top"


@pytest.mark.parametrize("path", modules(*PACKAGES, "tests"), ids=str)
def test_nobody_imports_by_the_folders_names(path: Path) -> None:
    """From the repository's root `import engine` works too, and yields classes that are not nuclix.engine's."""
    for seen in found(path):
        assert seen.name.partition(".")[0] not in PACKAGES, f"{path}:{seen.line} imports {seen.name}"
        assert seen.name != "nuclix", f"{path}:{seen.line} imports the bare namespace"


def test_the_reader_of_imports_sees_through_every_form() -> None:
    source = Path("tests/import_forms.txt")
    assert [(seen.name, seen.at_top) for seen in imports(source)] == [
        ("a", True),
        ("b.c", True),
        ("nuclix.tests.d", True),
        ("nuclix.e.f", True),
        ("g", False),
        ("h", True),
        ("i", False),
        ("j", True),
        ("k", False),
    ]


# Names that a distribution is imported by, where they differ.
IMPORT_NAMES = {
    "pillow": "PIL", "jinja2": "jinja2", "markupsafe": "markupsafe", "openslide-python": "openslide",
    "pylibczirw": "pylibCZIrw",
}  # fmt: skip
# Extras for developing nuclix, which its packages do not import.
DEVELOPMENT = {"test", "bench", "docs"}
# Installed for others' sake: imagecodecs has tifffile's decoders, openslide-bin is the library of openslide-python.
INDIRECT = {"imagecodecs", "openslide-bin"}


def distributions(requirements: list[str]) -> set[str]:
    return {re.split(r"[<>=!~\[; ]", requirement)[0].lower() for requirement in requirements}


def test_what_is_imported_is_declared_and_what_is_declared_is_imported() -> None:
    extras = PROJECT["optional-dependencies"]
    asked_for = distributions(PROJECT["dependencies"]) | {
        name for extra in set(extras) - DEVELOPMENT for name in distributions(extras[extra])
    }
    declared = {IMPORT_NAMES.get(name, name) for name in asked_for - INDIRECT}
    used = {seen.name.partition(".")[0] for path in modules(*PACKAGES) for seen in imports(path)}
    assert used - set(sys.stdlib_module_names) - {"nuclix"} == declared
