"""Screening: every row differs in what it says, and a stop loses nothing."""

import json

import pytest
from PIL import Image

from lfm import screen
from lfm.data import LABELS


def test_trials_differ_in_what_they_say():
    made = screen.trials(["gan"], {"web": "w", "zoo": "z"})
    settings = {t.name: t.settings({"data": "d", "val": "v"}, "o", 0, 1000) for t in made}
    assert len(settings) == len(made)
    assert all(s.steps == 32 for s in settings.values())
    assert all((s.web, s.zoo) == ("w", "z") for name, s in settings.items() if "all data" in name)
    plain = settings.pop("no regulariser")
    assert (plain.drop_most, plain.rks_weight, plain.pooling) == ("none", 0, "topk")
    assert all(s != plain for s in settings.values())
    assert settings["without gan"].leave_out == "gan"


def test_a_stopped_screening_goes_on(monkeypatch, tmp_path, capsys):
    for label in LABELS:
        (tmp_path / "data/gan" / label).mkdir(parents=True)
        Image.new("L", (4, 2)).save(tmp_path / "data/gan" / label / "a.png")
    ran = []

    def run(settings):
        ran.append((settings.leave_out, settings.seed))
        if len(ran) == 3:
            raise KeyboardInterrupt
        figures = {"average_precision": 0.5 + settings.seed / 10}
        return {f"val_fit_{q}": figures for q in screen.QUALITIES}

    monkeypatch.setattr(screen, "run", run)
    data, out = str(tmp_path / "data"), tmp_path / "out"
    arguments = ["--data", data, "--val", "none", "--out", str(out)]
    with pytest.raises(KeyboardInterrupt):
        screen.main(arguments)
    assert len((out / "results.jsonl").read_text().splitlines()) == 2
    assert screen.main(arguments) == 0
    results = [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]
    expected = [(t.name, seed) for t in screen.trials(["gan"]) for seed in t.seeds]
    assert [(r["trial"], r["seed"]) for r in results] == expected
    assert "| no regulariser | 3 | 0.600 (0.500-0.700) |" in capsys.readouterr().out
