"""The mechanism proved from outside: a package that nuclix knows nothing of is installed, listed, loaded and used."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from end_to_end import LONG, Finished, nuclix_here
from end_to_end import nuclix as start
from nuclix.engine import registry
from nuclix.engine.contracts import ModelCard, ObjectClass, SlideReader
from nuclix.engine.errors import PluginError
from nuclix.engine.geometry import Scale
from nuclix.engine.inference.model_file import save_model
from nuclix.testing import postprocessor as postprocessor_suite
from nuclix.testing import reader as reader_suite
from nuclix.testing import recipe as recipe_suite
from nuclix.testing import writer as writer_suite

SOURCE = Path(__file__).parent / "dummy_distribution"
PLUGINS = {
    registry.READERS: "raw",
    registry.POSTPROCESSORS: "threshold",
    registry.RECIPES: "darkness",
    registry.WRITERS: "listing",
}


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install the package with pip, as a stranger would, into a folder of its own."""
    copy = tmp_path_factory.mktemp("dummy") / "source"
    shutil.copytree(SOURCE, copy)  # building leaves traces next to the sources
    site = copy.parent / "site"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    done = subprocess.run([*pip, "--target", site, copy], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return site


@pytest.fixture
def site(installed: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.syspath_prepend(str(installed))
    yield installed
    forget()


def forget() -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "nuclix_dummy"]:
        del sys.modules[name]


def nuclix(*args: str, path: str) -> Finished:
    """Run the command line with further folders on the path."""
    forget()
    with pytest.MonkeyPatch.context() as patch:
        for folder in reversed(path.split(os.pathsep)):
            patch.syspath_prepend(folder)
        end = nuclix_here(*args)
    forget()
    return end


@pytest.mark.parametrize(("group", "name"), PLUGINS.items())
def test_it_is_listed_beside_the_built_ins_and_loads(site: Path, group: str, name: str) -> None:
    entry = next(entry for entry in registry.entries(group) if entry.name == name)
    assert entry.origin == "nuclix-dummy 1.2.3"
    assert len(registry.names(group)) > 1, "the built-ins are still there"
    plugin = registry.load(group, name)
    assert isinstance(plugin, type)
    assert Path(str(sys.modules[plugin.__module__].__file__)).is_relative_to(site)


@pytest.mark.parametrize("check", reader_suite.CHECKS)
def test_its_reader_conforms(site: Path, tmp_path: Path, check: reader_suite.Check) -> None:
    reader = registry.load(registry.READERS, "raw")
    path = tmp_path / "slide.raw"
    image = np.random.default_rng(0).integers(0, 256, (90, 130, 3), dtype=np.uint8)
    sys.modules["nuclix_dummy.reader"].save_raw(path, image, 0.25)  # type: ignore[attr-defined]
    check(cast(type[SlideReader], reader), path)


def test_its_postprocessor_conforms(site: Path) -> None:
    kind: Any = registry.load(registry.POSTPROCESSORS, "threshold")
    noise = np.random.default_rng(0).random((90, 130), np.float32)
    smooth = sum(np.roll(noise, (row, col), (0, 1)) for row in range(5) for col in range(5)) / 25
    postprocessor_suite.check_postprocessor(kind(level=0.52), smooth.astype(np.float32)[None])


@pytest.mark.parametrize("check", recipe_suite.CHECKS)
def test_its_recipe_conforms(site: Path, check: recipe_suite.Check) -> None:
    kind: Any = registry.load(registry.RECIPES, "darkness")
    check(kind())


@pytest.mark.parametrize("check", writer_suite.CHECKS)
def test_its_writer_conforms(site: Path, tmp_path: Path, check: writer_suite.Check) -> None:
    kind: Any = registry.load(registry.WRITERS, "listing")
    check(kind, tmp_path)


@pytest.mark.slow
def test_a_run_uses_them_together(site: Path, tmp_path: Path) -> None:
    """Its reader opens the slide, its recipe made the model, its post-processor finds six dark squares."""
    import torch

    recipe: Any = registry.load(registry.RECIPES, "darkness")
    network = recipe().network()
    with torch.no_grad():
        network.weight.fill_(-5.0)  # white is 0 and black is -2 after normalisation
        network.bias.fill_(-15.0)
    card = ModelCard(
        "dark", "darkness", Scale(0.25), recipe().patch, recipe.maps, recipe.postprocessor, {"level": 0.5},
        (ObjectClass("Nucleus", (200, 0, 0)),),
    )  # fmt: skip
    save_model(tmp_path / "dark.pt", recipe().exported(network), card)
    image = np.full((150, 200, 3), 240, np.uint8)
    for row, col in itertools.product((10, 60), (20, 62, 150)):  # on both sides of the patches' borders
        image[row : row + 8, col : col + 12] = 30
    registry.load(registry.READERS, "raw")
    sys.modules["nuclix_dummy.reader"].save_raw(tmp_path / "slide.raw", image, 0.25)  # type: ignore[attr-defined]
    options = ["--model", str(tmp_path / "dark.pt"), "--device", "cpu", "--no-tissue", "--outline", "pixel"]
    process = start(
        "run", tmp_path / "slide.raw", "--out", tmp_path / "out", *options, environment={"PYTHONPATH": str(site)}
    )
    _, errors = process.communicate(timeout=LONG)
    assert process.returncode == 0, errors
    features = json.loads((tmp_path / "out" / "slide.geojson").read_text())["features"]
    assert len(features) == 6
    assert {feature["properties"]["measurements"]["Area µm^2"] for feature in features} == {8 * 12 * 0.25**2}


def test_without_it_its_names_are_unknown() -> None:
    with pytest.raises(PluginError, match="no plugin 'darkness'"):
        registry.load(registry.RECIPES, "darkness")


def test_the_command_line_shows_it(installed: Path) -> None:
    done = nuclix("plugins", path=str(installed))
    assert done.code == 0
    for name in PLUGINS.values():
        assert [line for line in done.said.splitlines() if line.split()[:3] == [name, "nuclix-dummy", "1.2.3"]]


def test_the_command_line_checks_it(installed: Path) -> None:
    done = nuclix("plugins", "--check", path=str(installed))
    lines = {line.split()[0]: line for line in done.said.splitlines() if "nuclix-dummy" in line}
    assert lines.keys() == set(PLUGINS.values())
    assert all(line.endswith("  ok") for line in lines.values()), done.said


@pytest.fixture
def broken(installed: Path, tmp_path: Path) -> Path:
    """Copy the installed package with one module that can't be imported and one class that lacks a method."""
    site = tmp_path / "site"
    shutil.copytree(installed, site)
    (site / "nuclix_dummy" / "writer.py").write_text("import a_library_that_is_not_there\n")
    reader = site / "nuclix_dummy" / "reader.py"
    reader.write_text(reader.read_text().replace("def recognises", "def knows"))
    return site


def test_a_broken_one_is_named_with_its_reason_and_the_others_work(broken: Path) -> None:
    done = nuclix("plugins", "--check", path=str(broken))
    assert done.code == 1
    lines = {line.split()[0]: line for line in done.said.splitlines() if "nuclix-dummy" in line}
    assert "FAILS: ModuleNotFoundError: No module named 'a_library_that_is_not_there'" in lines["listing"]
    assert lines["raw"].endswith("FAILS: lacks recognises")
    assert lines["threshold"].endswith("  ok")
    assert nuclix("plugins", path=str(broken)).code == 0, "listing reads metadata only"


def test_two_packages_of_one_plugin_name_are_shown_and_refused(installed: Path, tmp_path: Path) -> None:
    rival = tmp_path / "rival"
    shutil.copytree(next(installed.glob("*.dist-info")), rival / "nuclix_rival-9.0.dist-info")
    metadata = rival / "nuclix_rival-9.0.dist-info" / "METADATA"
    metadata.write_text(metadata.read_text().replace("nuclix-dummy", "nuclix-rival").replace("1.2.3", "9.0"))
    done = nuclix("plugins", path=os.pathsep.join([str(installed), str(rival)]))
    assert done.code == 1
    twins = [line for line in done.said.splitlines() if line.split()[0] == "darkness"]
    assert len(twins) == 2
    assert all(line.endswith("FAILS: two plugins have this name") for line in twins)
    assert {"nuclix-dummy", "nuclix-rival"} == {line.split()[1] for line in twins}


def test_installed_twice_on_the_path_it_counts_once(installed: Path, tmp_path: Path) -> None:
    again = tmp_path / "again"
    shutil.copytree(installed, again)
    done = nuclix("plugins", path=os.pathsep.join([str(installed), str(again)]))
    assert done.code == 0
    assert done.said.count("nuclix-dummy") == len(PLUGINS)
