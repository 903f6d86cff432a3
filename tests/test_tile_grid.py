"""The grid of patches: what of a patch is computed."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from nuclix.engine.contracts import PatchShape
from nuclix.engine.geometry import Box
from nuclix.engine.inference.tiling import PART_STEP, TileGrid


@given(st.data())
def test_a_part_holds_what_is_needed_and_begins_and_ends_at_few_places(data: st.DataObject) -> None:
    multiple = data.draw(st.sampled_from([1, 16, 32, 48, 96]))
    valid = multiple * data.draw(st.integers(1, 12))
    grid = TileGrid(*(data.draw(st.integers(1, 2000)) for _ in range(2)), PatchShape(valid, 0, multiple), 100)
    core = data.draw(st.sampled_from(list(grid.patches_of(0, 0))))
    bounds = (min(core.height, grid.height - core.row), min(core.width, grid.width - core.col))  # on the slide
    row, col = (data.draw(st.integers(0, bound - 1)) for bound in bounds)
    height, width = data.draw(st.integers(1, bounds[0] - row)), data.draw(st.integers(1, bounds[1] - col))
    near = Box(core.row + row, core.col + col, height, width)
    part = grid.part(core, near)
    assert part.intersect(core) == part and part.intersect(near) == near
    step = {48: 96, 96: 96}.get(multiple, PART_STEP)
    for edge in (part.row - core.row, part.col - core.col):
        assert edge % step == 0
    for edge in (part.row_end - core.row, part.col_end - core.col):
        assert edge % step == 0 or edge == valid
    assert part.height - near.height < 2 * step and part.width - near.width < 2 * step
