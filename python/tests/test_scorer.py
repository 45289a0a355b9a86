"""What a program sees of a scorer besides the answers."""

import copy
import dataclasses
import gc
import importlib.metadata
import itertools
import os
import pathlib
import pickle
import pty
import shutil
import subprocess
import sys
import threading

import pytest

import lfm_serve
from conftest import IMAGES, PHOTO, ROOT

NAMES = ["orig_rocket.jpg", "coffee_rgb.png", "astro_420_q95.jpg", "x_coffee_64.png"]
SOME = [PHOTO.with_name(name) for name in NAMES]


def test_results_come_in_order_with_errors_in_their_places(scorer):
    images = [
        *SOME,
        b"",
        "no such file",
        SOME[0].read_bytes(),
        bytearray(b"no picture"),
        str(SOME[1]),
    ]
    results = list(scorer.score_many(images, progress=False))
    expected = [scorer.score(path) for path in SOME]
    assert results[:4] == expected and results[6] == expected[0] and results[8] == expected[1]
    errors = [result for result in results if isinstance(result, lfm_serve.ScoreError)]
    assert [error.code for error in errors] == ["empty_body", "unreadable", "unsupported_format"]


def test_a_source_without_end_is_read_as_results_are_taken(scorer):
    taken = itertools.count()

    def source():
        while True:
            next(taken)
            yield SOME[3]

    results = scorer.score_many(source(), progress=False)
    assert len({next(results) for _ in range(10)}) == 1
    results.close()
    assert next(taken) <= 10 + 2 * scorer.threads


def test_an_exception_of_the_source_comes_after_the_results_before_it(scorer):
    def source():
        yield from SOME[:3]
        raise LookupError("the database has gone")

    results = scorer.score_many(source(), progress=False)
    assert [next(results).verdict for _ in range(3)] and pytest.raises(LookupError, next, results)


def test_many_threads_may_use_one_scorer(scorer):
    expected = [scorer.score(path) for path in SOME]
    found = {}

    def score(number):
        found[number] = [scorer.score(path) for path in SOME]

    threads = [threading.Thread(target=score, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert list(found.values()) == [expected] * 8


def test_the_gil_is_released(scorer, fifo):
    """The image comes from this process's other thread: with the GIL held it never would."""
    found = []
    thread = threading.Thread(target=lambda: found.append(scorer.score(fifo)))
    thread.start()
    fifo.write_bytes(SOME[0].read_bytes())
    thread.join()
    assert found == [scorer.score(SOME[0])]


INTERRUPTED = """
import signal, sys, lfm_serve
# A shell starts what it runs in the background with this signal ignored.
signal.signal(signal.SIGINT, signal.default_int_handler)
scorer = lfm_serve.Scorer(threads=1)
try:
    {call}
except KeyboardInterrupt:
    print("interrupted")
    # Its only thread still waits for the file.
    print(next(lfm_serve.Scorer().score_many([sys.argv[2]], progress=False)).verdict)
"""


@pytest.mark.parametrize(
    "call", ["scorer.score(sys.argv[1])", "list(scorer.score_many([sys.argv[1]] * 3))"]
)
def test_ctrl_c_ends_the_wait_and_then_the_process(fifo, call):
    program = INTERRUPTED.format(call=call)
    command = [sys.executable, "-c", program, fifo, PHOTO]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    # Opens when the reader is there.
    with fifo.open("wb"):
        process.send_signal(2)
        out, _ = process.communicate(timeout=300)
    assert (process.returncode, out.split()) == (0, ["interrupted", "real"])


def test_a_program_may_end_while_images_are_scored():
    program = "import sys, lfm_serve; next(lfm_serve.Scorer().score_many(sys.argv[1:] * 50, progress=False))"
    for _ in range(3):
        subprocess.run([sys.executable, "-c", program, PHOTO], check=True, timeout=300)


def test_what_does_not_fit_is_an_ordinary_exception(scorer, tmp_path):
    for wrong in ({"threads": 0}, {"regions": 2}, {"regions": "many"}):
        with pytest.raises(ValueError, match="threads|regions"):
            lfm_serve.Scorer(**wrong)
    with pytest.raises(OSError, match=r"manifest\.json"):
        lfm_serve.Scorer(tmp_path)
    with pytest.raises(TypeError, match="this is a int"):
        scorer.score(3)
    with pytest.raises(TypeError, match="this is a NoneType"):
        list(scorer.score_many([None], progress=False))


def test_a_damaged_model_is_no_image_s_error(tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(ROOT / "models", folder, ignore=lambda *_: ["tests", "screening", "lfm"])
    (folder / "lfm.cpu.onnx").write_bytes(b"damaged")
    with pytest.raises(RuntimeError, match=r"lfm\.cpu\.onnx"):
        list(lfm_serve.Scorer(folder).score_many([PHOTO], progress=False))


def test_limits_have_the_service_s_codes():
    small = lfm_serve.Scorer(max_file_bytes=1000, max_pixels=1000)
    with pytest.raises(lfm_serve.ScoreError, match="body_too_large"):
        small.score(PHOTO)
    with pytest.raises(lfm_serve.ScoreError, match="image_too_large"):
        small.score(PHOTO.read_bytes())


def test_a_closed_scorer_says_so():
    scorer = lfm_serve.Scorer()
    with scorer:
        results = scorer.score_many([PHOTO] * 20, progress=False)
        next(results)
    with pytest.raises(RuntimeError, match="the scorer is closed"):
        scorer.score(PHOTO)
    with pytest.raises(RuntimeError, match="the scorer is closed"):
        list(results)


def test_scorers_leave_no_threads():
    def threads():
        return len(os.listdir("/proc/self/task"))

    before = threads()
    for _ in range(3):
        lfm_serve.Scorer().score(PHOTO)
    gc.collect()
    while threads() > before:
        pass


def test_a_result_is_frozen_compares_and_can_be_pickled(scorer):
    result, again = scorer.score(PHOTO), scorer.score(PHOTO)
    with pytest.raises(dataclasses.FrozenInstanceError):
        result.verdict = "fake"
    assert result == again and hash(result) == hash(again) and len({result, again}) == 1
    assert pickle.loads(pickle.dumps(result)) == copy.deepcopy(result) == result
    error = lfm_serve.ScoreError("code", "detail")
    assert pickle.loads(pickle.dumps(error)).args == error.args


def test_memory_does_not_grow(scorer):
    """Of results and inputs of many images."""

    def resident():
        return int(pathlib.Path("/proc/self/statm").read_text().split()[1]) * os.sysconf(
            "SC_PAGE_SIZE"
        )

    photo = SOME[3].read_bytes() + bytes(4 << 20)
    list(scorer.score_many([photo] * 20, progress=False))
    before = resident()
    for _ in scorer.score_many((bytes(bytearray(photo)) for _ in range(60)), progress=False):
        pass
    assert resident() - before < 60 << 20


def test_the_bar_is_shown_on_a_terminal_alone():
    program = "import sys, lfm_serve; list(lfm_serve.Scorer().score_many([sys.argv[1]] * 8))"
    piped = subprocess.run([sys.executable, "-c", program, PHOTO], capture_output=True, check=True)
    assert piped.stdout == piped.stderr == b""
    master, slave = pty.openpty()
    subprocess.run([sys.executable, "-c", program, PHOTO], stderr=slave, check=True)
    assert b"/8 images" in os.read(master, 100_000)


def test_versions_agree():
    program = subprocess.run(
        ["lfm-serve", "--version"], capture_output=True, text=True, check=True, env=with_scripts()
    )
    assert (
        lfm_serve.__version__
        == importlib.metadata.version("lfm-serve")
        == program.stdout.split()[1]
    )


def with_scripts():
    return os.environ | {"PATH": os.path.dirname(sys.executable) + os.pathsep + os.environ["PATH"]}


def test_the_types_of_the_native_part_are_its_own():
    checked = subprocess.run(
        [sys.executable, "-m", "mypy.stubtest", "lfm_serve._native", "--ignore-disjoint-bases"],
        capture_output=True, text=True, cwd="/", check=False,
    )  # fmt: skip
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_there_is_something_to_test():
    assert len(IMAGES) > 30


def test_heic_is_read_where_it_is_switched_on(scorer):
    photo = PHOTO.parents[1] / "heic" / "phone.heic"
    with pytest.raises(lfm_serve.ScoreError, match="--heif on"):
        scorer.score(photo)
    try:
        with_heif = lfm_serve.Scorer(threads=1, heif=True)
    except RuntimeError as missing:
        pytest.skip(str(missing))
    with with_heif:
        assert with_heif.score(photo).image.format == "heic"


def test_an_avif_is_decoded_by_the_wheel_s_own_program(scorer):
    result = scorer.score(PHOTO.parents[1] / "variants" / "avif_tiles.avif")
    assert (result.image.format, result.image.width, result.image.height) == ("avif", 300, 140)
