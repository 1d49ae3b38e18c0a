"""The distribution of the unseen share of masks over the angle of their moves, for the manifest and for people."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

# Degrees; the last bin has all that is farther.
ANGLE_STEP, ANGLE_BINS = 15, 7
_QUANTILES = (0.1, 0.5, 0.9)


def unseen_distribution(masks: Iterable[tuple[str, float, float]]) -> dict[str, Any]:
    """The distribution as plain values.

    Args:
        masks: kind, angle in degrees, and mean unseen share of each.

    Returns:
        "rendered": a row for each bin of angles with masks: from and to in degrees, count, mean, and the quantiles 0.1,
        0.5 and 0.9 of the unseen share; "tracked": the same without angles.
    """
    by_bin: dict[int, list[float]] = {}
    tracked = []
    for kind, angle, share in masks:
        if kind == "rendered":
            by_bin.setdefault(min(ANGLE_BINS - 1, int(angle // ANGLE_STEP)), []).append(share)
        else:
            tracked.append(share)
    rows = []
    for number, shares in sorted(by_bin.items()):
        end = (number + 1) * ANGLE_STEP if number < ANGLE_BINS - 1 else 180
        rows.append({"from": number * ANGLE_STEP, "to": end, **_row(shares)})
    return {"rendered": rows, "tracked": [_row(tracked)] if tracked else []}


def distribution_rows(distribution: dict[str, Any]) -> list[tuple[str, str, str, str]]:
    """The distribution as a table's rows: masks, count, mean, and quantiles of the unseen share."""
    rows = []
    for kind, parts in distribution.items():
        for part in parts:
            angle = f", {part['from']} to {part['to']} degrees" if "from" in part else ""
            quantiles = " / ".join(f"{value:.0%}" for value in part["quantiles"])
            rows.append((f"{kind}{angle}", str(part["count"]), f"{part['mean']:.0%}", quantiles))
    return rows


def _row(shares: list[float]) -> dict[str, Any]:
    quantiles = [round(float(value), 4) for value in np.quantile(shares, _QUANTILES)]
    return {"count": len(shares), "mean": round(float(np.mean(shares)), 4), "quantiles": quantiles}
