"""PyTorch against the graph built from its state dict."""

import numpy as np
import onnxruntime
import pytest

torch = pytest.importorskip("torch")

from lfm import graph
from lfm.checkpoint import read_checkpoint
from lfm.network import LFM, normalise
from lfm.weights import canonical, digest


def network(weights: dict, k: int = 16) -> LFM:
    net = LFM(k)
    state = {**net.state_dict(), **{n: torch.from_numpy(t) for n, t in weights.items()}}
    net.load_state_dict(state)
    return net.eval()


def test_the_graph_computes_what_the_network_computes(weights, images):
    net = network(weights)
    session = onnxruntime.InferenceSession(
        graph.build(weights, standard=True), providers=["CPUExecutionProvider"]
    )
    images = images[::3]
    logit, values, indices = session.run(None, {"pixels": images})
    with torch.inference_mode():
        x = normalise(torch.from_numpy(images))
        expected = net(x)[0].numpy()
        want_values, want_indices = (t.numpy() for t in net.pool_adapter(net.maps(x)))
    assert np.ptp(expected) > 5  # a comparison of equal logits would show nothing
    assert np.abs(logit - expected).max() <= 5e-4
    assert np.abs(values - want_values).max() <= 5e-4
    distinct = np.ptp(images.reshape(len(images), -1), axis=1) > 0  # flat: all places tie
    assert (indices == want_indices)[distinct].mean() > 0.99


def test_the_residue_is_exact_in_bfloat16(weights, images):
    """One grey level is less than the rounding of a pixel in bfloat16."""
    net, seen = network(weights), []
    net.cnn.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    x = normalise(torch.from_numpy(images[::3]))
    with torch.inference_mode():
        net(x)
        with torch.autocast("cpu", torch.bfloat16):
            net(x)
    assert torch.equal(*seen) and not seen[0][..., ::2, ::2].any() and seen[0].any()


def test_a_saved_network_is_imported_bit_for_bit(weights, tmp_path):
    net = network(weights)
    torch.save({"model": net.state_dict(), "settings": {"seed": 1}}, tmp_path / "w.pth")
    tensors, facts = read_checkpoint(tmp_path / "w.pth")
    assert digest(canonical(tensors)) == digest(weights)
    assert facts == {"settings": {"seed": 1}}


def test_views_of_a_storage_are_read_by_their_strides(tmp_path):
    base = torch.arange(60.0).reshape(3, 4, 5)
    views = {"t": base.transpose(0, 2), "o": base[1:, 2], "cl": base[None].expand(2, -1, -1, -1)}
    torch.save(views, tmp_path / "w.pth")
    tensors, _ = read_checkpoint(tmp_path / "w.pth")
    for name, view in views.items():
        np.testing.assert_array_equal(tensors[name], view.numpy())


def test_the_published_weights_load_strictly(shared):
    """Every official name, and none besides: also for checkpoints of ours in the official code."""
    path = shared / "reference/weights/lfm_bmvc2025.pth"
    state = torch.load(path, map_location="cpu", weights_only=True)
    net = LFM()
    net.load_state_dict(state, strict=True)
    for name in ("downsample_conv.weight", "upsample_conv.weight"):
        assert torch.equal(LFM().state_dict()[name], state[name])


def test_npr_is_not_learnt():
    net = LFM().train()
    pixels = torch.randint(0, 256, (2, 64, 64, 3), dtype=torch.uint8)
    logit, random_logit = net(normalise(pixels))
    (logit.sum() + random_logit.sum()).backward()
    without = {name for name, p in net.named_parameters() if p.grad is None}
    assert without == {"downsample_conv.weight", "upsample_conv.weight"}
