"""The registry against distributions made by hand: metadata only, names, duplicates, failures."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from nuclix.engine import registry
from nuclix.engine.errors import PluginError

GROUP = "nuclix.readers"


def distribution(site: Path, name: str, points: dict[str, str], version: str = "1.0") -> None:
    """Write the dist-info of a package that plugs `points` into GROUP."""
    info = site / f"{name}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    lines = [f"[{GROUP}]", *(f"{key} = {value}" for key, value in points.items())]
    (info / "entry_points.txt").write_text("\n".join(lines) + "\n")


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))
    return folder


def test_built_ins_are_listed_with_their_distribution() -> None:
    found = {entry.name: entry for entry in registry.entries(registry.READERS)}
    assert {"tiffslide", "image"} <= found.keys()
    assert found["image"].distribution == "nuclix"
    assert found["image"].value == "nuclix.plugins.readers.image:ImageReader"
    assert found["image"].group == registry.READERS


@pytest.mark.parametrize("group", registry.GROUPS)
def test_every_group_has_a_built_in_and_is_sorted(group: str) -> None:
    known = registry.names(group)
    assert known
    assert list(known) == sorted(set(known))


def test_a_strangers_package_is_found_and_loaded(site: Path) -> None:
    (site / "stranger.py").write_text("class Reader:\n    pass\n")
    distribution(site, "nuclix-stranger", {"odd": "stranger:Reader"}, version="2.5")
    entry = next(entry for entry in registry.entries(GROUP) if entry.name == "odd")
    assert entry.origin == "nuclix-stranger 2.5"
    loaded = registry.load(GROUP, "odd")
    assert isinstance(loaded, type)
    assert loaded.__module__ == "stranger"


def test_listing_imports_nothing(site: Path) -> None:
    (site / "explosive.py").write_text("raise RuntimeError('imported while listing')\n")
    distribution(site, "explosive", {"bomb": "explosive:Reader"})
    assert "bomb" in registry.names(GROUP)
    assert "explosive" not in sys.modules


def test_two_of_one_name_are_refused_naming_both(site: Path) -> None:
    distribution(site, "first-package", {"twin": "one:Reader", "single": "json:JSONDecoder"})
    distribution(site, "second-package", {"twin": "two:Reader"}, version="3.1")
    assert len([entry for entry in registry.entries(GROUP) if entry.name == "twin"]) == 2
    for refused in (lambda: registry.names(GROUP), lambda: registry.load(GROUP, "twin")):
        with pytest.raises(PluginError, match=r"'twin'.*first-package 1\.0.*second-package 3\.1"):
            refused()
    assert registry.load(GROUP, "single"), "the others still load"


def test_a_stranger_cannot_take_a_built_ins_name(site: Path) -> None:
    distribution(site, "usurper", {"image": "usurper:Reader"})
    with pytest.raises(PluginError, match=r"nuclix .*usurper"):
        registry.load(GROUP, "image")


def test_one_distribution_that_claims_a_name_twice_is_refused(site: Path) -> None:
    distribution(site, "muddle", {"twin": "one:Reader"})
    points = site / "muddle-1.0.dist-info" / "entry_points.txt"
    points.write_text(points.read_text() + "twin = two:Reader\n")
    with pytest.raises(PluginError, match=r"one:Reader.*two:Reader"):
        registry.load(GROUP, "twin")


def test_the_same_distribution_found_twice_is_no_duplicate(
    site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "other"
    for folder in (site, other):
        distribution(folder, "same", {"once": "json:JSONDecoder"})
    monkeypatch.syspath_prepend(str(other))
    assert registry.names(GROUP).count("once") == 1
    assert registry.load(GROUP, "once")


def test_unknown_name_lists_the_known_and_guesses() -> None:
    with pytest.raises(PluginError, match=r"'tifslide' in nuclix\.readers; did you mean 'tiffslide'.*known: .*image"):
        registry.load(GROUP, "tifslide")


def test_unknown_group_says_that_it_is_empty() -> None:
    with pytest.raises(PluginError, match=r"nothing is installed in nuclix\.nothing"):
        registry.load("nuclix.nothing", "x")


@pytest.mark.parametrize(
    ("body", "value", "reason"),
    [
        ("import no_such_library_at_all\n", "broken_a:Reader", "ModuleNotFoundError: .*no_such_library_at_all"),
        ("x = 1 / 0\n", "broken_b:Reader", "ZeroDivisionError"),
        ("Other = 1\n", "broken_c:Reader", "AttributeError: .*Reader"),
        ("def broken(:\n", "broken_d:Reader", "SyntaxError"),
        ("Reader = 1\n", "broken e : : Reader", "Error"),
        (None, "broken_f:Reader", "ModuleNotFoundError"),
    ],
)
def test_a_plugin_that_fails_to_load_says_which_and_why(site: Path, body: str | None, value: str, reason: str) -> None:
    module = value.partition(":")[0]
    if body is not None:
        (site / f"{module}.py").write_text(body)
    distribution(site, "broken-package", {"broken": value})
    with pytest.raises(PluginError, match=rf"'broken' of nuclix\.readers .*broken-package 1\.0.*{reason}") as caught:
        registry.load(GROUP, "broken")
    assert caught.value.__cause__ is not None


def test_listing_does_not_pull_in_heavy_libraries() -> None:
    code = (
        "import sys; from nuclix.engine import registry; [registry.entries(g) for g in registry.GROUPS];"
        "heavy = {'torch', 'numba', 'skimage', 'PIL', 'tiffslide', 'scipy', 'numpy'} & set(sys.modules);"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
