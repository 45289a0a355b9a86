"""Waits by load: measured and predicted."""

from pathlib import Path

from drawing import OTHERS, OURS, plt, save


def draw(curves: list[dict], file: Path) -> None:
    figure, panels = plt.subplots(1, len(curves), figsize=(4.5 * len(curves), 3.2), layout="constrained", squeeze=False)
    for panel, curve in zip(panels.flat, curves, strict=True):
        shares = [100 * row["share"] for row in curve["rows"]]
        for quantile, colour in (("p50", OTHERS), ("p99", OURS)):
            panel.plot(
                shares,
                [1000 * row[quantile] for row in curve["rows"]],
                "o",
                color=colour,
                label=f"{quantile}, measured",
            )
            predicted = [1000 * row[f"predicted_{quantile}"] for row in curve["rows"]]
            panel.plot(shares, predicted, "-", color=colour, label=f"{quantile}, predicted")
        panel.set_title(f"{curve['cores']} cores" if curve["cores"] > 1 else "1 core")
        panel.set_xlabel("load, % of the model's capacity")
        panel.set_ylabel("wait, ms")
        panel.set_ylim(bottom=0)
        panel.spines[["top", "right"]].set_visible(False)
        panel.legend(fontsize=7)
    save(figure, file)
