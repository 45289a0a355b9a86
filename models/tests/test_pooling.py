"""TKP, RBLD and RKS against what their definitions promise."""

import pytest

torch = pytest.importorskip("torch")

from lfm.pooling import TopKPooling, random_k

K, DRAWS = 16, 4000


@pytest.fixture
def maps() -> torch.Tensor:
    torch.manual_seed(0)
    return torch.rand(1, 2, 6, 7) + 1  # positive, so that a dropped value shows as 0


def test_tkp_is_the_head_of_a_sort(maps):
    values, indices = TopKPooling(K).eval()(maps)
    ordered, places = maps.flatten(2).sort(dim=-1, descending=True)
    assert torch.equal(values, ordered[..., :K]) and torch.equal(indices, places[..., :K])


@pytest.mark.parametrize("drop_most", ["strongest", "weakest", "none"])
def test_rbld_drops_linearly_in_the_rank_and_keeps_the_expectation(maps, drop_most):
    pool = TopKPooling(K, drop_most).train()
    clean = TopKPooling(K).eval()(maps)[0]  # (1, 2, K)
    torch.manual_seed(1)
    dropped = pool(maps.expand(DRAWS, -1, -1, -1))[0]  # (DRAWS, 2, K)
    rate = (dropped == 0).float().mean((0, 1))  # by rank
    p = {"strongest": torch.linspace(0.3, 0.1, K), "weakest": torch.linspace(0.1, 0.3, K),
         "none": torch.zeros(K)}[drop_most]  # fmt: skip
    sigma = (p * (1 - p) / (2 * DRAWS)).sqrt()
    assert ((rate - p).abs() <= 4.5 * sigma).all()
    spread = clean[0] * (p / (1 - p) / DRAWS).sqrt()
    assert ((dropped.mean(0) - clean[0]).abs() <= 4.5 * spread + 1e-5).all()


def test_rbld_is_off_outside_training(maps):
    assert torch.equal(TopKPooling(K, "none").eval()(maps)[0], TopKPooling(K).eval()(maps)[0])


def test_rks_takes_every_place_alike_and_none_twice():
    places = 42
    torch.manual_seed(2)
    maps = torch.arange(float(places)).view(1, 1, 6, 7).expand(DRAWS, -1, -1, -1)
    taken = random_k(maps, K)  # (DRAWS, 1, K), the values name the places
    assert (taken.diff(dim=-1) < 0).all()  # descending, so none twice
    rate = torch.bincount(taken.long().flatten(), minlength=places) / DRAWS
    sigma = (K / places * (1 - K / places) / DRAWS) ** 0.5
    assert ((rate - K / places).abs() <= 4.5 * sigma).all()


def test_gradients_reach_the_chosen_places_alone(maps):
    for pool in (lambda m: TopKPooling(K).eval()(m)[0], lambda m: random_k(m, K)):
        leaf = maps.clone().requires_grad_()
        chosen = pool(leaf)
        chosen.sum().backward()
        assert leaf.grad.flatten(2).sum(-1).eq(K).all()
        assert torch.equal(leaf[leaf.grad > 0].sort().values, chosen.flatten().sort().values)
