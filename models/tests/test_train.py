"""A training from folders to a model folder, in miniature."""

import json

import numpy as np
import pytest
from PIL import Image

torch = pytest.importorskip("torch")

from lfm import data, evaluate, evidence, export, generators, graph, judge, train
from lfm.checkpoint import read_checkpoint
from lfm.weights import canonical


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Two sources of four pairs; the fakes are doubled by nearest neighbour and have no residue."""
    root = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    for source in ("a", "b"):
        for label in ("0_real", "1_fake"):
            (root / source / label).mkdir(parents=True)
            for i in range(4):
                side = 256 if label == "0_real" else 128
                pixels = rng.integers(0, 256, (side, side, 3), np.uint8)
                pixels = pixels.repeat(256 // side, 0).repeat(256 // side, 1)
                Image.fromarray(pixels).save(root / source / label / f"{i}.png")
    return root


def arguments(images, out, *more) -> list[str]:
    return ["--data", images, "--val", images, "--out", out, "--steps", 4, "--batch", 4,
            "--crop", 64, "--large-crop", 96, "--large", 0.3, "--mine-minutes", 0,
            "--val-minutes", 0, *more]  # fmt: skip


@pytest.fixture(scope="module")
def trained(images, tmp_path_factory):
    out = tmp_path_factory.mktemp("run")
    assert train.main([str(a) for a in arguments(images, out)]) == 0
    return out


def test_a_stopped_run_goes_on_to_the_same_weights(images, trained, tmp_path, monkeypatch):
    argv = [str(a) for a in arguments(images, tmp_path)]
    update = train.Trainer.update

    def stop(self, *batch):
        if self.step == 2:
            raise KeyboardInterrupt
        return update(self, *batch)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(train.Trainer, "update", stop)
        train.main(argv)
    train.main(argv)
    whole, resumed = (
        torch.load(out / "last.pth", map_location="cpu") for out in (trained, tmp_path)
    )
    assert whole["step"] == resumed["step"] == 4
    for name, tensor in whole["model"].items():
        assert torch.equal(tensor, resumed["model"][name]), name
    log = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in log] == [1, 2, 3, 4]
    assert not list(tmp_path.glob("*.tmp"))


def test_some_steps_see_fewer_and_larger_crops(images):
    settings = train.Settings(data=str(images), batch=16, crop=64, large_crop=128, large=0.5)
    batches = train.Batches(settings.feed(), settings)
    shapes = {tuple(batches[step][0].shape[:2]) for step in range(20)}
    assert shapes == {(16, 64), (4, 128)}
    pixels, labels, ids = batches[3]
    again = batches[3]
    assert torch.equal(pixels, again[0]) and len(ids) == len(labels) // 2


def test_couples_of_the_zoo_are_made_before_the_training(images, tmp_path):
    zoo, out = tmp_path / "zoo", tmp_path / "run"
    zoo.mkdir()
    decoder = generators.Autoencoder(generators.ZOO["nearest_k3_x2"])
    torch.save(decoder.state_dict(), zoo / "nearest_k3_x2.pth")
    flags = ["--zoo", zoo, "--zoo-pairs", 3, "--zoo-share", 1, "--web-share", 0, "--workers", 1]
    trainer = train.Trainer(train.parse([str(a) for a in arguments(images, out, *flags)]))
    feed = trainer.settings.feed()
    trainer.make(feed)
    assert len(feed.made) == 3 and all(real.shape == fake.shape for _, real, fake in feed.made)
    trainer.run()
    assert trainer.step == 4 and trainer.crops == 4 * 4


def test_a_run_starts_from_a_checkpoint(images, trained, tmp_path):
    flags = ["--start", trained / "last.pth"]
    argv = [str(a) for a in arguments(images, tmp_path, *flags)]
    trainer = train.Trainer(train.parse(argv))
    state, _ = read_checkpoint(trained / "last.pth")
    assert all(np.array_equal(t, state[name]) for name, t in trainer.model.state_dict().items())
    crops = trainer.crops
    assert crops > 4 and train.main(argv) == 0
    _, facts = read_checkpoint(tmp_path / "last.pth")
    assert facts["crops"] > crops  # of both runs
    assert str(images) not in json.dumps(export.training_facts(facts))


def test_training_moves_every_learnt_tensor_and_no_other(trained):
    state, facts = read_checkpoint(trained / "last.pth")
    assert facts["settings"]["crop"] == 64 and facts["step"] == 4
    torch.manual_seed(0)
    start = train.LFM().state_dict()
    same = {name for name, tensor in state.items() if np.array_equal(tensor, start[name])}
    assert same == {"downsample_conv.weight", "upsample_conv.weight"}


def test_the_running_mean_lies_between_old_and_new_weights(images, tmp_path):
    trainer = train.Trainer(train.parse([str(a) for a in arguments(images, tmp_path)]))
    trainer.step, name = 10**6, "covn1_1.weight"
    before = trainer.mean.state_dict()[name].clone()
    with torch.no_grad():
        trainer.model.covn1_1.weight += 1
    trainer.average()
    moved = trainer.mean.state_dict()[name] - before
    assert torch.allclose(moved, torch.full_like(moved, 1 - 0.998), atol=1e-5)


def test_the_rate_stays_or_falls():
    constant, falling = train.Settings(lr=1.0), train.Settings(lr=1.0, final_lr=0.1)
    assert [constant.rate(p, 1000) for p in (0, 0.5, 1, 2)] == [1, 1, 1, 1]
    assert [round(falling.rate(p, 1000), 6) for p in (0, 0.5, 1, 2)] == [1, 0.55, 0.1, 0.1]
    assert constant.rate(0, 0) < 0.1


def test_export_writes_the_whole_manifest(images, trained, tmp_path, capsys, monkeypatch):
    """From pictures of a few kinds; that they are judged well is not asked of four steps."""
    rng = np.random.default_rng(0)
    monkeypatch.setattr(evidence, "gather", lambda *folders: pictures())
    monkeypatch.setattr(export.web, "val2", lambda root: data.load(images))
    monkeypatch.setattr(evaluate, "make_scorer", lambda *_: lambda p: rng.normal(size=len(p)))
    target, shots = tmp_path / "model", tmp_path / "shots.json"
    (tmp_path / "MANIFEST.tsv").write_text("path\nKolors/a.webp\n")
    argv = [str(a) for a in (trained / "best.pth", target, "--val", images, "--web", tmp_path,
            "--pool", "pool", "--shots", shots)]  # fmt: skip
    assert export.main(argv) == 0
    said = capsys.readouterr().err
    assert "narrower" in said and "x-flux" in said and "Kolors" not in said
    text = (target / "manifest.json").read_text()
    manifest = json.loads(text)
    assert manifest["format_version"] == 2 and manifest["calibration"] == {"a": 1.0, "b": 0.0}
    assert manifest["licence_class"] == "research-only" and manifest["voiding"] == ["no_signal"]
    assert manifest["provenance"]["training"]["steps"] == 4 and str(images) not in text
    assert list(manifest["evidence"]["classes"]) == list(judge.CLASSES)
    for found in manifest["evidence"]["classes"].values():
        table = found["regions"]["1"]
        assert table["a"] >= 0 and table["n_real"] > 0 and table["n_fake"] > 0
        for label in ("real", "fake"):
            assert 0 < len(table[label]) <= 256 and table[label] == sorted(table[label])
    counts = manifest["val_score_histogram"]
    assert len(counts["edges"]) == 21 and sum(counts["real"]) == sum(counts["fake"]) == 6
    for part in ("as_stored", "jpeg_90"):
        low, high = manifest["metrics"][part]["val"]["mean_95"]
        assert low <= manifest["metrics"][part]["val"]["mean"] <= high
    weights = canonical(read_checkpoint(trained / "best.pth")[0])
    assert graph.build(weights, standard=True) == (target / "lfm.std.onnx").read_bytes()

    monkeypatch.setattr(evidence, "shoot", None)  # the scores were kept
    again = [*argv[:1], str(tmp_path / "again"), *argv[2:]]
    assert export.main(again) == 0
    kept = json.loads((tmp_path / "again/manifest.json").read_text())
    assert kept["evidence"] == manifest["evidence"]


def pictures() -> list[evidence.Picture]:
    rng = np.random.default_rng(1)
    return [
        evidence.Picture(f"{source}{label}", "g", label, "lossless",
                         rng.integers(0, 256, (300, 280, 3), np.uint8))
        for label in (0, 1) for source in "abc" for _ in range(2)
    ]  # fmt: skip
