"""Plots of the summary, one per placement."""

import math
from pathlib import Path

import drawing
import systems
from drawing import plt
from report import COLUMNS, figure_name


def draw(summary: dict, out: Path) -> None:
    for placement in dict.fromkeys(row["placement"] for row in summary["rows"]):
        rows = [row for row in summary["rows"] if row["placement"] == placement][::-1]
        figure, panels = plt.subplots(
            math.ceil(len(COLUMNS) / 3), 3, figsize=(10, 1.6 + 1.1 * len(rows)), layout="constrained"
        )
        for panel in panels.flat[len(COLUMNS) :]:
            panel.axis("off")
        for panel, (title, _, _, better) in zip(panels.flat[: len(COLUMNS)], COLUMNS, strict=True):
            bars(panel, title, better, rows)
        figure.suptitle(f"{placement}: medians, quartiles")
        drawing.save(figure, out / figure_name(placement))


def bars(panel, title: str, better: str, rows: list[dict]) -> None:
    figures = [row["figures"][title] for row in rows]
    middle = [one["median"] for one in figures]
    error = [[one["median"] - one["q1"] for one in figures], [one["q3"] - one["median"] for one in figures]]
    colours = [drawing.OURS if row["system"] == systems.OURS else drawing.OTHERS for row in rows]
    panel.barh([row["system"] for row in rows], middle, xerr=error, color=colours, ecolor="#444444", capsize=2)
    panel.set_title(f"{title} ({better} is better)", fontsize=8)
    panel.spines[["top", "right"]].set_visible(False)
    panel.set_xlim(left=0)
