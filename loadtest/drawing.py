"""Common settings of all plots: matplotlib, as SVG, reproducible for equal figures."""

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt  # noqa: E402

matplotlib.rcParams.update({"svg.hashsalt": "lfm-serve", "svg.fonttype": "none", "font.size": 8})

OURS, OTHERS = "#1f6f8b", "#b9c4c9"


def save(figure, file) -> None:
    """Saves to a path or an open file."""
    figure.savefig(file, format="svg", metadata={"Date": None})
    plt.close(figure)
