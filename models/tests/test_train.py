"""A training from folders to a model folder, in miniature."""

import json

import numpy as np
import pytest
from PIL import Image

torch = pytest.importorskip("torch")

from lfm import data, evaluate, export, train
from lfm.checkpoint import read_checkpoint


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
            "--crop", 64, "--fine-crop", 96, "--fine-from", 0.7, "--lossy-from", 0.2,
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


def test_both_folders_give_half_of_every_batch():
    def source(value: int) -> data.Source:
        images = [np.full((256, 256, 3), value, np.uint8)]
        return data.Source(str(value), (images, images))

    folders = [[source(1), source(2)], [source(9)]]
    settings = train.Settings(batch=16, crop=64, fine_crop=128, fine_from=0.5, lossy_from=1.0)
    batches = train.Batches(folders, settings)
    for progress, size in ((0.0, 16), (0.9, 4)):  # the larger crops are fewer
        batches.progress.fill_(progress)
        pixels, labels = batches[3]
        assert len(labels) == size and (pixels == 9).all(dim=(1, 2, 3)).sum() == size // 2


def test_a_run_starts_from_a_checkpoint(images, trained, tmp_path):
    flags = ["--start", trained / "last.pth", "--more", images]
    argv = [str(a) for a in arguments(images, tmp_path, *flags)]
    trainer = train.Trainer(train.parse(argv))
    state, _ = read_checkpoint(trained / "last.pth")
    assert all(np.array_equal(t, state[name]) for name, t in trainer.model.state_dict().items())
    assert train.main(argv) == 0
    _, facts = read_checkpoint(tmp_path / "last.pth")
    assert str(images) not in json.dumps(export.training_facts(facts))


def test_training_moves_every_learnt_tensor_and_no_other(trained):
    state, facts = read_checkpoint(trained / "last.pth")
    assert facts["settings"]["crop"] == 64 and facts["step"] == 4
    torch.manual_seed(0)
    start = train.LFM().state_dict()
    same = {name for name, tensor in state.items() if np.array_equal(tensor, start[name])}
    assert same == {"downsample_conv.weight", "upsample_conv.weight"}


def test_export_writes_the_whole_manifest(images, trained, tmp_path, capsys, monkeypatch):
    # Four steps teach nothing; what the calibration needs is a network that ranks at all.
    monkeypatch.setattr(export, "platt", lambda scored: {"a": 0.5, "b": 0.1})
    checkpoint = str(trained / "best.pth")
    target = tmp_path / "model"
    assert export.main([checkpoint, str(target), "--val", str(images), "--final"]) == 0
    manifest = json.loads((target / "manifest.json").read_text())
    assert manifest["calibration"] == {"a": 0.5, "b": 0.1}
    assert manifest["licence_class"] == "research-only" and manifest["voiding"] == ["no_signal"]
    assert manifest["provenance"]["training"]["steps"] == 4
    assert str(images) not in json.dumps(manifest)
    counts = manifest["val_score_histogram"]
    assert len(counts["edges"]) == 21 and sum(counts["real"]) == sum(counts["fake"]) == 4
    assert manifest["metrics"]["split"] == "report"
    for part in ("as_stored", "jpeg_90"):
        assert {f["n"] for f in manifest["metrics"][part]["sources"].values()} == {4}
        low, high = manifest["metrics"][part]["mean_average_precision_95"]
        assert low <= manifest["metrics"][part]["mean"]["average_precision"] <= high


def test_platt_recovers_a_scale():
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 3, 4000)
    labels = (rng.random(4000) < 1 / (1 + np.exp(-(0.5 * logits + 1)))).astype(int)
    fitted = export.platt({"s": (logits, labels)})
    assert abs(fitted["a"] - 0.5) < 0.05
    with pytest.raises(ValueError, match="chance"):
        export.platt({"s": (-logits, labels)})


def test_the_band_is_the_narrowest_that_leaves_good_verdicts():
    logits = np.array([-4, -3, -2, -1, 1, 2, 3, 4.0])
    labels = np.array([0, 0, 1, 0, 1, 1, 1, 1])
    low, high = export.uncertain({"s": (logits, labels)})
    assert low == pytest.approx(1 - high) and high == pytest.approx(
        1 / (1 + np.exp(-2.5)), abs=1e-4
    )
    assert export.uncertain({"s": (logits, (logits > 0) * 1)}) is None
    assert export.uncertain({"s": (logits, labels)}, right=0.75) is None
    with pytest.raises(ValueError, match="band"):
        export.uncertain({"s": (-logits, (logits > 0) * 1)})


def test_calibration_error_is_the_weighted_gap():
    logits = np.log(np.array([0.25, 0.25, 0.25, 0.75]) / np.array([0.75, 0.75, 0.75, 0.25]))
    error = evaluate.calibration_error({"s": (logits, np.array([0, 0, 1, 1]))})
    assert error == pytest.approx((abs(3 * 0.25 - 1) + abs(0.75 - 1)) / 4)
