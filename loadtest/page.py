"""A scenario's result as one HTML file with embedded plots."""

import io
from html import escape

from drawing import OURS, plt, save
from scenarios import REFUSED, Phase, Threshold

STYLE = "body{font:15px sans-serif;max-width:60em;margin:2em auto}td,th{padding:.2em .8em;text-align:right}th:first-child,td:first-child{text-align:left}.no{color:#b00020}"
COLUMNS = ["phase", "asked", "scores_per_second", "p50_ms", "p99_ms", "worst_ms", "statuses"]


def html(name: str, about: str, phases: list[Phase], rows: list[dict], thresholds: list[Threshold]) -> str:
    head = "".join(f"<th>{column.replace('_', ' ')}</th>" for column in COLUMNS)
    body = "".join("<tr>" + "".join(f"<td>{shown(row[column])}</td>" for column in COLUMNS) + "</tr>" for row in rows)
    held = "".join(
        f"<li class={'yes' if one.held else 'no'}>{'held' if one.held else 'NOT HELD'}: {escape(one.what)}: {escape(one.figure)}</li>"
        for one in thresholds
    )
    plots = "".join(plot(phase) for phase in phases if phase.answers)
    return (
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{escape(name)}</title><style>{STYLE}</style>"
        f"<h1>{escape(name)}</h1><p>{escape(about)}</p><ul>{held}</ul><table><tr>{head}</tr>{body}</table>{plots}</html>"
    )


def shown(value) -> str:
    if isinstance(value, dict):
        value = ", ".join(f"{status}: {count}" for status, count in value.items())
    return f"{value:.1f}" if isinstance(value, float) else escape(str(value))


def plot(phase: Phase) -> str:
    """Waits and answers per second, by intended time of sending."""
    began = min(answer.intended for answer in phase.answers)
    kinds = {
        "scored": (OURS, lambda status: status == 200),
        "refused": ("#c98b2b", lambda status: status in REFUSED),
        "other": ("#b00020", lambda status: status != 200 and status not in REFUSED),
    }
    figure, (waits, rates) = plt.subplots(2, 1, figsize=(9, 3.6), sharex=True, layout="constrained")
    sent = []
    for colour, belongs in kinds.values():
        own = [answer for answer in phase.answers if belongs(answer.status)]
        sent.append([answer.intended - began for answer in own])
        # Rasterised: many points as a bitmap are smaller than as shapes.
        waits.scatter(sent[-1], [1000 * answer.seconds for answer in own], s=3, color=colour, rasterized=True)
    last = max(answer.intended for answer in phase.answers) - began
    rates.hist(
        sent, bins=max(1, round(last)), stacked=True, color=[colour for colour, _ in kinds.values()], label=list(kinds)
    )
    waits.set_ylabel("wait, ms")
    waits.set_ylim(bottom=0)
    rates.set_ylabel("images a second")
    rates.set_xlabel("seconds")
    rates.legend(loc="upper left", fontsize=7)
    figure.suptitle(phase.name)
    file = io.StringIO()
    save(figure, file)
    drawn = file.getvalue()
    return drawn[drawn.index("<svg") :]  # without the XML declaration, which is not allowed in HTML
