"""Imports point one way: plugins -> engine -> ext; plugins do not know each other; nothing heavy at the top."""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

from sources import PACKAGES, ROOT, Import, dotted, imports, modules

# Imported by the functions that use them, so that start-up does not pay for them.
DEFERRED = {
    "PIL", "cv2", "dask", "distributed", "jinja2", "matplotlib", "numba", "onnxruntime", "openslide", "openvino",
    "rich", "scipy", "skimage", "tiffslide", "torch",
}  # fmt: skip
# Networks are classes of torch's: these modules can't wait, so whoever needs them does.
OF_TORCH = {
    "engine/inference/batch_norm.py",
    "engine/inference/adapter.py",
    "engine/training/unet.py",
    *(str(path.relative_to(ROOT)) for path in ROOT.glob("plugins/recipes/_*_network*.py")),
}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def within(name: str, package: str) -> bool:
    return name == package or name.startswith(package + ".")


# What each package of the engine may import besides itself and the modules at the engine's top; guarantee 1.
LAYERS = {
    "slide": set(),
    "inference": set(),
    "segmentation": {"inference", "slide"},
    "batch": {"inference", "segmentation", "slide"},
    "bench": {"batch", "inference", "segmentation", "slide"},
    "evaluation": set(),
    "training": {"evaluation", "inference", "slide"},
    "progress": {"batch", "segmentation"},
    "report": {"batch", "progress", "segmentation", "slide"},
    "qupath": {"batch", "segmentation"},
    "viewer": {"batch", "report", "segmentation", "slide"},
}  # fmt: skip
# `nuclix bench kernels` compares with them where they are installed; the extra `bench` has them.
PEERS = {"cv2"}
# Modules at the engine's top that stand above all packages: nothing in a package imports them.
TOP = {"api", "benchmark"}


def violations(packages: tuple[str, ...], allowed: Callable[[Path, Import], bool]) -> list[str]:
    """Return every import of the packages that is not allowed."""
    return [
        f"{path}:{seen.line} imports {seen.name}"
        for path in modules(*packages)
        for seen in imports(path)
        if not allowed(path, seen)
    ]


def test_ext_imports_only_numpy_numba_and_itself() -> None:
    allowed = {"numpy", "numba", *sys.stdlib_module_names}
    found = violations(
        ("ext",), lambda _, seen: seen.name.partition(".")[0] in allowed or within(seen.name, "nuclix.ext")
    )
    assert found == []


def test_engine_imports_no_plugin() -> None:
    assert violations(("engine",), lambda _, seen: not within(seen.name, "nuclix.plugins")) == []


def test_packages_of_the_engine_import_one_way() -> None:
    def allowed(path: Path, seen: Import) -> bool:
        if not within(seen.name, "nuclix.engine") or len(path.parts) < 3 or path.parts[1] == "cli":
            return True
        own, target = path.parts[1], seen.name.split(".")[2]
        return target not in TOP | {"cli"} and (target not in LAYERS or target == own or target in LAYERS[own])

    assert {path.parts[1] for path in modules("engine") if len(path.parts) > 2} == {*LAYERS, "cli"}
    assert violations(("engine",), allowed) == []


def test_plugins_do_not_import_each_other() -> None:
    """A plugin may import private modules (``_name``) of its own group; everything shared is in the engine."""

    def allowed(path: Path, seen: Import) -> bool:
        group = ".".join(dotted(path).split(".")[:3])
        return not within(seen.name, "nuclix.plugins") or (
            within(seen.name, group) and seen.name.removeprefix(group + ".").startswith("_")
        )

    assert violations(("plugins",), allowed) == []


def test_heavy_libraries_are_imported_where_they_are_used() -> None:
    waiting = {*DEFERRED, *(dotted(Path(name)) for name in OF_TORCH)}

    def allowed(path: Path, seen: Import) -> bool:
        return str(path) in OF_TORCH or not (seen.at_top and any(within(seen.name, name) for name in waiting))

    assert violations(PACKAGES, allowed) == []


def test_nothing_is_imported_by_the_folders_names() -> None:
    """From the repository's root `import engine` works too, and yields classes that are not nuclix.engine's."""
    found = violations(
        (*PACKAGES, "tests"), lambda _, seen: seen.name.partition(".")[0] not in PACKAGES and seen.name != "nuclix"
    )
    assert found == []


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
    "pylibczirw": "pylibCZIrw", "scikit-image": "skimage",
}  # fmt: skip
# Extras for developing nuclix, which its packages do not import.
DEVELOPMENT = {"test", "bench", "docs", "wheel"}
# Installed for others' sake: openslide-bin is the library of openslide-python, aiohttp and s3fs read addresses for
# fsspec.
INDIRECT = {"openslide-bin", "aiohttp", "s3fs"}


def distributions(requirements: list[str]) -> set[str]:
    return {re.split(r"[<>=!~\[; ]", requirement)[0].lower() for requirement in requirements}


def test_what_is_imported_is_declared_and_what_is_declared_is_imported() -> None:
    extras = PROJECT["optional-dependencies"]
    asked_for = distributions(PROJECT["dependencies"]) | {
        name for extra in set(extras) - DEVELOPMENT for name in distributions(extras[extra])
    }
    declared = {IMPORT_NAMES.get(name, name) for name in asked_for - INDIRECT}
    used = {seen.name.partition(".")[0] for path in modules(*PACKAGES) for seen in imports(path)}
    assert used - set(sys.stdlib_module_names) - {"nuclix"} - PEERS == declared
