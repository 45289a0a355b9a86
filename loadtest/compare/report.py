"""Summarises the figures of all rounds, and writes the summary as a page."""

from statistics import median, quantiles

from markdown import table
from measure import CLIENTS, EQUAL, LEAVERS
from systems import DEADLINE_MS, OURS

# A column's title, the location of its figure in a visit, its format, and whether more or less is better.
COLUMNS = [
    ("images/s, saturated", ("saturated", "scores_per_second"), "{:.1f}", "more"),
    ("p50 at 50 %, ms", ("half", "p50_ms"), "{:.1f}", "less"),
    ("p99 at 50 %, ms", ("half", "p99_ms"), "{:.1f}", "less"),
    ("p50 at 80 %, ms", ("most", "p50_ms"), "{:.1f}", "less"),
    ("p99 at 80 %, ms", ("most", "p99_ms"), "{:.1f}", "less"),
    ("p50 at 95 %, ms", ("nearly_all", "p50_ms"), "{:.1f}", "less"),
    ("p99 at 95 %, ms", ("nearly_all", "p99_ms"), "{:.1f}", "less"),
    ("goodput at 200 %, of capacity", ("double", "good_of_capacity"), "{:.2f}", "more"),
    ("p99 at 200 %, ms", ("double", "p99_ms"), "{:.0f}", "less"),
    ("run for clients that left", ("left", "run_share"), "{:.0%}", "less"),
    ("next client's wait, ms", ("left", "next_wait_ms"), "{:.0f}", "less"),
    ("memory, MiB", ("memory_mib",), "{:.0f}", "less"),
    ("idle, % of a core", ("idle_percent",), "{:.2f}", "less"),
    ("start to first score, s", ("start_seconds",), "{:.2f}", "less"),
]


def spread(values: list[float]) -> dict:
    """Median and quartiles."""
    q1, _, q3 = quantiles(values, n=4, method="inclusive") if len(values) > 1 else [values[0]] * 3
    return {"median": median(values), "q1": q1, "q3": q3, "rounds": len(values)}


def look_up(visit: dict, path: tuple[str, ...]) -> float:
    for name in path:
        visit = visit[name]
    return visit


def summarise(results: dict) -> dict:
    """One row per system and placement, in the order of their first measurement."""
    visits = [with_shares(visit) for visit in results["visits"]]
    rows = []
    for placement, system in dict.fromkeys((visit["placement"], visit["system"]) for visit in visits):
        own = [visit for visit in visits if (visit["placement"], visit["system"]) == (placement, system)]
        figures = {title: spread([look_up(visit, path) for visit in own]) for title, path, _, _ in COLUMNS}
        most_busy = max(visit[load]["client_share"] for visit in own for load in ("saturated", "double"))
        rows.append({
            "system": system,
            "placement": placement,
            "figures": figures,
            "scores": worst_scores([visit["scores"] for visit in own]),
            "client_share": most_busy,
        })  # fmt: skip
    limits = []
    for placement in dict.fromkeys(limit["placement"] for limit in results["limits"]):
        own = [limit for limit in results["limits"] if limit["placement"] == placement]
        kinds = ("session", "session_and_pillow", "own_session")
        limits.append({"placement": placement, **{kind: spread([limit[kind] for limit in own]) for kind in kinds}})
    return {"rows": rows, "limits": limits, "behind": behind(rows)}


def with_shares(visit: dict) -> dict:
    left = visit["left"]
    share = left["run"] / left["left"] if left["left"] else 0.0
    return {**visit, "left": {**left, "run_share": share}, "idle_percent": 100 * visit["idle_share"]}


def worst_scores(rounds: list[dict]) -> dict:
    """Over all rounds: a score that differed once counts as different."""
    return {
        "equal": min(scores["equal"] for scores in rounds),
        "other": sorted({name for scores in rounds for name in scores["other"]}),
        "refused": sorted({name for scores in rounds for name in scores["refused"]}),
        "worst": max(scores["worst"] or 0.0 for scores in rounds),
    }


def behind(rows: list[dict]) -> list[dict]:
    """Where another system's median is better than ours."""
    found = []
    ours = {row["placement"]: row["figures"] for row in rows if row["system"] == OURS}
    for row in rows:
        for title, _, form, better in COLUMNS:
            if row["system"] == OURS or row["placement"] not in ours:
                continue
            theirs, own = row["figures"][title], ours[row["placement"]][title]
            sign = 1 if better == "more" else -1
            if sign * theirs["median"] > sign * own["median"]:
                apart = theirs["q1"] > own["q3"] or theirs["q3"] < own["q1"]
                found.append({
                    "placement": row["placement"], "system": row["system"], "row": title,
                    "theirs": form.format(theirs["median"]), "ours": form.format(own["median"]), "apart": apart,
                })  # fmt: skip
    return found


def cell(figures: dict, form: str) -> str:
    low, high = form.format(figures["q1"]), form.format(figures["q3"])
    middle = form.format(figures["median"])
    return middle if low == high else f"{middle} ({low}-{high})"


def scores_cell(scores: dict) -> str:
    """How many scores are equal, and which are not."""
    text = f"{scores['equal']}"
    if scores["other"]:
        text += f", {len(scores['other'])} differ (by up to {scores['worst']:.1e})"
    if scores["refused"]:
        text += f", {len(scores['refused'])} refused"
    return text


def placement_table(placement: str, summary: dict) -> str:
    """A line per figure and a column per system."""
    rows = [row for row in summary["rows"] if row["placement"] == placement]
    lines = [[title, *(cell(row["figures"][title], form) for row in rows)] for title, _, form, _ in COLUMNS]
    lines.append(["scores equal to the reference's", *(scores_cell(row["scores"]) for row in rows)])
    lines.append(["the client took, % of a core", *(f"{100 * row['client_share']:.0f}" for row in rows)])
    return table(["", *(row["system"] for row in rows)], lines)


def limits_table(summary: dict) -> str:
    header = ["images/s without a server", "ONNX Runtime, standard graph", "with Pillow before it", "our session"]
    kinds = ("session", "session_and_pillow", "own_session")
    return table(
        header, [[row["placement"], *(cell(row[kind], "{:.1f}") for kind in kinds)] for row in summary["limits"]]
    )


EXPLANATION = f"""\
Medians over the rounds, quartiles in brackets. Every system got the same files over HTTP in the same rounds, one
after the other on the same cores, and ran alone. The peers run the standard graph in ONNX Runtime with one single-threaded session a
core behind the reference's own preprocessing (Pillow); ours runs what it runs by default, with `--regions 1`: all judge
the crop at the centre.

- saturated: a closed loop with {CLIENTS} clients. 50 %, 80 %, 95 %, 200 %: open loops at that share of the images/s that the
  same system gave in the same round just before; arrivals are independent of each other (Poisson), the same for all, and a wait counts
  from the intended time.
- good: a score within {DEADLINE_MS / 1000:g} s, the clients' deadline. p99 at 200 % is that of all scores, late ones too.
- run for clients that left: {LEAVERS} ask at once and hang up when the first is answered; how many of those
  that left were run all the same, and how long the next client waited. Images are counted where the model runs.
- memory: of all processes after the overload, shared pages counted once (PSS). idle: after that, all processes.
- scores: the golden images whose logit is within {EQUAL:g} of the reference's."""

OTHERWISE = {
    "openvino": "mosec, with OpenVINO in place of ONNX Runtime.",
    "furnace": "ONNX Runtime as the others, our own decoders in place of Pillow.",
}


def differing(rows: list[dict]) -> list[str]:
    """The systems that do not run the same as the peers."""
    systems = {row["system"] for row in rows}
    return [f"- {name}: {what}" for name, what in OTHERWISE.items() if name in systems]


def page(results: dict, summary: dict) -> str:
    lines = ["# Comparison", ""]
    if results["quick"]:
        lines += ["**A quick run to test the harness: none of these figures means anything.**", ""]
    lines += [f"`{results['command']}`, {results['minutes']:.0f} minutes.", "", EXPLANATION]
    lines += [*differing(summary["rows"]), ""]
    for placement in dict.fromkeys(row["placement"] for row in summary["rows"]):
        lines += [f"## {placement.capitalize()}", "", placement_table(placement, summary), ""]
        lines += [f"![{placement}]({figure_name(placement)})", ""]
    lines += ["## The limit", "", limits_table(summary), ""]
    lines += ["## Where another system is ahead", ""]
    lines += [
        f"- {one['system']}, {one['row']}: {one['theirs']} against {one['ours']} ({one['placement']}"
        + ("" if one["apart"] else "; within the spread") + ")"
        for one in summary["behind"]
    ] or ["Nowhere."]  # fmt: skip
    if results["errors"]:
        lines += ["", "## What did not run", "", *(f"- {name}: {error}" for name, error in results["errors"].items())]
    lines += ["", "## Where", ""]
    lines += [table(["", "machine"], [[name, value] for name, value in results["machine"].items()])]
    lines += ["", table(["", "versions"], [
        [name, ", ".join(f"{package} {version}" for package, version in versions.items())]
        for name, versions in results["versions"].items()
    ])]  # fmt: skip
    lines += ["", "Files: " + ", ".join(results["files"]) + " (tests/golden/images)."]
    return "\n".join(lines) + "\n"


IN_README = [
    "images/s, saturated",
    "p50 at 50 %, ms",
    "p99 at 80 %, ms",
    "p99 at 95 %, ms",
    "goodput at 200 %, of capacity",
    "run for clients that left",
    "next client's wait, ms",
    "memory, MiB",
    "idle, % of a core",
    "start to first score, s",
]


def readme_block(results: dict, summary: dict, date: str, link: str, systems: list[str]) -> str:
    """The medians of the first placement, for README."""
    rows = [row for row in first_placement(summary) if row["system"] in systems]
    placement, rounds = rows[0]["placement"], rows[0]["figures"][IN_README[0]]["rounds"]
    limit = next((limit for limit in summary["limits"] if limit["placement"] == placement), None)
    bare = f"{limit['session']['median']:.1f}" if limit else "unknown"
    return "\n".join([
        f"{placement.capitalize()} of {results['machine']['Model name']}; medians of {rounds} rounds in turns, {date}. A bare session of",
        f"ONNX Runtime with the peers' graph gives {bare} images/s there without decoding. Spread, the other",
        f"placement, what each figure means: [results]({link}).",
        "",
        medians(rows),
        "",
        ahead(summary, rows),
    ])  # fmt: skip


def readme_others(results: dict, summary: dict, date: str, link: str, above: list[str]) -> str:
    """The same for the systems that `readme_block` omits, and ours. The other block may be from a later run."""
    rows = [row for row in first_placement(summary) if row["system"] == OURS or row["system"] not in above]
    where = f"`{results['command']}` on {results['machine']['Model name']}, {date}, on one core as well ([results]({link})):"
    return "\n".join([where, "", medians(rows), "", *differing(rows), "", ahead(summary, rows)])


def first_placement(summary: dict) -> list[dict]:
    return [row for row in summary["rows"] if row["placement"] == summary["rows"][0]["placement"]]


def medians(rows: list[dict]) -> str:
    forms = {title: form for title, _, form, _ in COLUMNS}
    lines = [[title, *(forms[title].format(row["figures"][title]["median"]) for row in rows)] for title in IN_README]
    return table(["", *(row["system"] for row in rows)], lines)


def ahead(summary: dict, rows: list[dict]) -> str:
    """Which of these rows are better than ours beyond the spread, and in which figure."""
    found = [
        f"{one['system']}, {one['row']}"
        for one in summary["behind"]
        if one["apart"] and any((row["system"], row["placement"]) == (one["system"], one["placement"]) for row in rows)
    ]
    return "Where another is ahead here, beyond the spread: " + ("; ".join(found) or "nowhere") + "."


def figure_name(placement: str) -> str:
    return placement.replace(" ", "-") + ".svg"
