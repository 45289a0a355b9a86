"""Forked and spawned processes."""

import multiprocessing
import os
import subprocess
import sys
import threading

import pytest

import lfm_serve
from conftest import PHOTO, TRAIN

NAMES = ["orig_rocket.jpg", "coffee_rgb.png", "astro_420_q95.jpg", "x_coffee_64.png"]
SOME = [PHOTO.with_name(name) for name in NAMES]


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
@pytest.mark.parametrize("used", [False, True])
def test_a_scorer_works_in_the_processes_of_multiprocessing(method, used):
    scorer = lfm_serve.Scorer(threads=1)
    expected = [lfm_serve.Scorer().score(path) for path in SOME]
    if used:
        assert scorer.score(SOME[0]) == expected[0]
    with multiprocessing.get_context(method).Pool(2) as pool:
        assert pool.map(scorer.score, SOME) == expected
    # The parent's goes on.
    assert scorer.score(SOME[0]) == expected[0]


def test_a_process_may_fork_while_its_threads_score():
    scorer = lfm_serve.Scorer()
    expected = scorer.score(SOME[0])
    ended = threading.Event()

    def work():
        while not ended.is_set():
            assert all(
                result == expected for result in scorer.score_many([SOME[0]] * 20, progress=False)
            )

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for _ in range(8):
        child = os.fork()
        if child == 0:
            # Whatever happens, pytest must not go on in here.
            os._exit(0 if scorer.score(SOME[0]) == expected else 1)
        assert os.waitpid(child, 0)[1] == 0
    ended.set()
    for thread in threads:
        thread.join()


def test_results_of_the_parent_s_images_are_the_parent_s():
    scorer = lfm_serve.Scorer()
    results = scorer.score_many([SOME[0]] * 6, progress=False)
    first = next(results)
    child = os.fork()
    if child == 0:
        try:
            list(results)
        except RuntimeError as error:
            os._exit(0 if "forked" in str(error) else 1)
        os._exit(2)
    assert os.waitpid(child, 0)[1] == 0
    assert list(results) == [first] * 5


LOADER = """
import sys
import lfm_serve
from torch.utils.data import DataLoader, Dataset


class Scored(Dataset):
    def __init__(self, paths):
        self.paths, self.scorer = paths, lfm_serve.Scorer(threads=1)

    def __len__(self):
        return len(self.paths)

    def __getitem__(self, index):
        return self.scorer.score(self.paths[index]).logit_raw


if __name__ == "__main__":
    data = Scored(sys.argv[2:])
    own = [data[index] for index in range(len(data))]
    loaded = DataLoader(data, num_workers=2, multiprocessing_context=sys.argv[1])
    assert [float(batch) for batch in loaded] == own, own
"""


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_it_works_in_a_data_loader_of_pytorch(method, wheel, tmp_path):
    if not TRAIN.exists():
        pytest.skip("SKIPPED: .venv-train, which has PyTorch, is absent")
    site = tmp_path / "site"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "--no-index", "--no-deps", "--target", site, wheel], check=True)
    program = tmp_path / "loader.py"
    program.write_text(LOADER)
    environment = os.environ | {"PYTHONPATH": str(site)}
    subprocess.run([TRAIN, program, method, *SOME], env=environment, check=True, timeout=300)
