"""`make_sheets.py` lays pictures of moves before and after beside their masks."""

from __future__ import annotations

import numpy as np
import pytest

import make_sheets
from ex4d.media import read_png


def test_a_sheet_has_a_row_for_each_move_with_both_pictures_and_the_mask(tmp_path) -> None:
    make_sheets.main(["--only", "courtyard", "--moves", "30", "-o", str(tmp_path)])

    picture = read_png(tmp_path / "courtyard.png").astype(int)
    width, gap = make_sheets.CELL_WIDTH, 4
    height = width * 180 // 240
    assert picture.shape == (height + 2 * gap, 6 * (width + gap) + gap, 3)
    cells = [picture[gap:-gap, left : left + width] for left in range(gap, picture.shape[1] - gap, width + gap)]
    assert all((cells[k] > 200).all(-1).mean() > 0.5 for k in (2, 5)), "most was seen"
    assert np.abs(cells[3] - cells[4]).mean() > 3, "before and after differ"
    blue = np.all(np.abs(cells[5] - make_sheets.REMEMBERED_COLOR) < 9, -1).mean()
    assert 0.02 < blue < 0.5, "what the clip remembers"


def test_footage_needs_its_depth() -> None:
    with pytest.raises(SystemExit):
        make_sheets.main(["--footage", "clip.mp4"])
