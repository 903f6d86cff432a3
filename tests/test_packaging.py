"""What is shipped: lists that must agree, and an sdist from a clean checkout that builds, installs and works."""

from __future__ import annotations

import itertools
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from sources import ROOT, SHIPPED

CONFIG = tomllib.loads((ROOT / "pyproject.toml").read_text())
PROJECT = CONFIG["project"]


def pins() -> dict[str, Version]:
    lines = (line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#"))
    return {canonicalize_name(name): Version(version) for name, _, version in (line.partition("==") for line in lines)}


def requirements() -> list[Requirement]:
    extras = itertools.chain.from_iterable(PROJECT["optional-dependencies"].values())
    return [Requirement(text) for text in [*PROJECT["dependencies"], *extras]]


def test_every_package_is_listed() -> None:
    """setuptools ships the packages that are listed and says nothing of the others."""
    folders = {path.parent for name in SHIPPED for path in (ROOT / name).rglob("*.py")}
    present = {".".join(("nuclix", *folder.relative_to(ROOT).parts)) for folder in folders}
    assert sorted(present) == sorted(CONFIG["tool"]["setuptools"]["packages"])
    assert all((folder / "__init__.py").exists() for folder in folders)


def test_every_package_says_that_it_is_typed() -> None:
    assert all((ROOT / name / "py.typed").exists() for name in SHIPPED)


def test_constraints_pin_every_requirement_to_something_allowed() -> None:
    for requirement in requirements():
        assert pins()[canonicalize_name(requirement.name)] in requirement.specifier, requirement


def test_constraints_pin_what_the_requirements_require() -> None:
    """Followed through the metadata of what is installed here, markers and all."""
    from importlib.metadata import PackageNotFoundError, requires

    seen: set[str] = set()
    queue = [requirement.name for requirement in requirements()]
    while queue:
        name = canonicalize_name(queue.pop())
        if name in seen:
            continue
        seen.add(name)
        try:
            needed = [Requirement(text) for text in requires(name) or []]
        except PackageNotFoundError:  # other extras need not be installed to run the tests
            continue
        queue += [one.name for one in needed if one.marker is None or one.marker.evaluate({"extra": ""})]
    # CUDA builds of torch bring libraries whose versions that build fixes itself.
    assert {name for name in seen - pins().keys() if not name.startswith(("nvidia-", "cuda-", "triton"))} == set()


def test_readme_gives_a_reason_for_every_dependency() -> None:
    readme = (ROOT / "README.md").read_text()
    for text in PROJECT["dependencies"]:
        name = Requirement(text).name
        assert re.search(rf"^\| `{re.escape(name)}` \| \S", readme, re.MULTILINE), f"{name} stands there without one"


def test_changelog_has_this_version() -> None:
    assert f"## [{PROJECT['version']}]" in (ROOT / "CHANGELOG.md").read_text()


def run(*command: str | Path, cwd: Path, **environment: str) -> str:
    done = subprocess.run(
        command, cwd=cwd, env={**os.environ, **environment}, capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Copy what git would hand to a clone, without anything built."""
    if not (ROOT / ".git").exists() or shutil.which("git") is None:
        pytest.skip("a clean checkout can only be told from a built one with git")
    copy = tmp_path_factory.mktemp("clone") / "nuclix"
    listed = run("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", cwd=ROOT)
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, copy / name)
    return copy


@pytest.fixture(scope="module")
def sdist(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the sdist with the backend itself: nothing is downloaded."""
    out = tmp_path_factory.mktemp("sdist")
    code = "import sys; from setuptools import build_meta; build_meta.build_sdist(sys.argv[1])"
    run(sys.executable, "-c", code, out, cwd=checkout)
    return next(out.glob("*.tar.gz"))


@pytest.fixture(scope="module")
def wheel(sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel from the sdist, not from the checkout: what is missing there would show here."""
    out = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    run(*pip, "--wheel-dir", out, sdist, cwd=out)
    return next(out.glob("*.whl"))


@pytest.mark.slow
def test_sdist_holds_the_whole_checkout(sdist: Path, checkout: Path) -> None:
    with tarfile.open(sdist) as archive:
        held = {name.partition("/")[2] for name in archive.getnames()}
    wanted = {str(path.relative_to(checkout)) for path in checkout.rglob("*") if path.is_file()}
    wanted = {name for name in wanted if ".egg-info" not in name and name not in {".gitignore", "MANIFEST.in"}}
    assert wanted - held == set()
    assert not [name for name in held if name.endswith((".so", ".pyc")) or re.fullmatch(r"ext/_.*\.c", name)]


@pytest.mark.slow
def test_wheel_holds_what_runs_and_no_sources_of_kernels(wheel: Path, checkout: Path) -> None:
    held = zipfile.ZipFile(wheel).namelist()
    for package in SHIPPED:
        assert f"nuclix/{package}/py.typed" in held
        for path in (checkout / package).rglob("*.py"):
            assert f"nuclix/{path.relative_to(checkout)}" in held
    for path in (checkout / "ext").glob("*.pyx"):
        assert [name for name in held if name.startswith(f"nuclix/ext/{path.stem}.")], f"{path.name} is not compiled"
    for path in (checkout / "plugins" / "weights").iterdir():
        assert path.suffix in {".pyc", ""} or f"nuclix/plugins/weights/{path.name}" in held
    assert not [name for name in held if name.endswith((".pyx", ".pxi", ".c")) or name.startswith("tests")]


@pytest.mark.slow
def test_the_wheel_works_by_itself(wheel: Path, tmp_path: Path) -> None:
    site = tmp_path / "site"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index"]
    run(*pip, "--target", site, wheel, cwd=tmp_path)
    where = run(
        sys.executable, "-c", "import nuclix.ext; print(nuclix.ext.__file__)", cwd=tmp_path, PYTHONPATH=str(site)
    )
    assert Path(where.strip()).is_relative_to(site), "the checkout was imported instead"
    nuclix = [sys.executable, "-m", "nuclix.engine.cli"]
    listed = run(*nuclix, "plugins", "--check", cwd=tmp_path, PYTHONPATH=str(site))
    assert "FAILS" not in listed
    assert run(*nuclix, "--version", cwd=tmp_path, PYTHONPATH=str(site)).split() == ["nuclix", PROJECT["version"]]
