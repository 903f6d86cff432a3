"""A sample of the damaged slides of tests/chaos: each is done, or fails with a message that names it."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path, PurePosixPath

from mutations import write_mutations
from nuclix.engine.inputs import SlideJob
from nuclix.engine.messages import Done, Failed
from nuclix.engine.pipeline import Watch
from nuclix.engine.slide_run import make_tools
from nuclix.engine.worker import attempt
from overnight import make_model, settings_for

COUNT = 60


def test_damaged_slides_are_done_or_fail_with_a_message(tmp_path: Path) -> None:
    write_mutations(tmp_path, COUNT, 1)
    (tmp_path / "out").mkdir()
    settings = replace(settings_for(tmp_path / "out", make_model(tmp_path / "red.pt")), mpp=0.25)
    tools = make_tools(settings, time.time())
    done = 0
    for path in sorted((tmp_path / "damaged").iterdir()):
        message = attempt(SlideJob(path, PurePosixPath(path.name)), tools, Watch(lambda _: None, lambda: False))
        if isinstance(message, Done):
            done += 1
        else:
            assert isinstance(message, Failed) and path.name in message.message, (path.name, message)
            assert "unexpected" not in message.message, message.traceback
    assert COUNT // 4 < done < COUNT
