"""What the client tests share: servers of their own, a browser."""

import contextlib
import pathlib
import subprocess

import pytest
from selenium import webdriver

ROOT = pathlib.Path(__file__).parents[2]


@contextlib.contextmanager
def serving(*flags):
    """A server on a free port; yields its address."""
    command = [ROOT / "target/release/lfm-serve", "serve", "--listen", "127.0.0.1:0", "--sessions", "1",
               "--drain-delay", "0s", "--log-level", "warn", *flags]  # fmt: skip
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    try:
        first = process.stdout.readline()
        assert first.startswith("listening on "), first
        yield first.removeprefix("listening on ").strip()
    finally:
        process.terminate()
        ended = process.wait(60)
    assert ended == 0


@pytest.fixture(scope="module")
def browser():
    options = webdriver.ChromeOptions()
    options.binary_location = "/usr/bin/chromium"
    for flag in ["headless", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run", "disable-background-networking",
                 "disable-component-update", "disable-sync", "disable-dev-shm-usage"]:  # fmt: skip
        options.add_argument(f"--{flag}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options, webdriver.ChromeService("/usr/bin/chromedriver"))
    driver.set_script_timeout(60)
    yield driver
    driver.quit()
