"""The systemd unit: valid, closed, in time with the program, and able to run it."""

import configparser
import re
import subprocess

import pytest
from conftest import BINARY, DEPLOY, ROOT, default_of, run, seconds, serve_help

UNIT = DEPLOY / "systemd/lfm-serve.service"
SOCKET = DEPLOY / "systemd/lfm-serve.socket"
# prctl(2): no memory is writable and executable; MemoryDenyWriteExecute= in the unit.
PR_SET_MDWE, PR_MDWE_REFUSE_EXEC_GAIN = 65, 1
# systemd-analyze's scale from 0 to 10; what it still finds is that the service has a network and the host's /usr.
EXPOSURE = 1.5


@pytest.fixture
def unit(tmp_path):
    """The unit, starting the program of this checkout."""
    text = UNIT.read_text()
    assert text.count("ExecStart=/opt/lfm-serve/bin/lfm-serve ") == 1
    file = tmp_path / UNIT.name
    file.write_text(text.replace("/opt/lfm-serve/bin/lfm-serve", str(BINARY)))
    return file


@pytest.fixture
def socket(unit):
    """The socket, beside the service that it starts: systemd looks for it by its name."""
    file = unit.with_name(SOCKET.name)
    file.write_text(SOCKET.read_text())
    return file


def section(name):
    parser = configparser.RawConfigParser(strict=False, interpolation=None)
    parser.optionxform = str
    parser.read_string(UNIT.read_text())
    return parser[name]


def verify(*files):
    command = ["systemd-analyze", "verify", "--man=no", *files]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def test_systemd_takes_the_unit(unit):
    ended = verify(unit)
    assert ended.returncode == 0 and UNIT.name not in ended.stderr, ended.stderr


def test_systemd_takes_the_socket_with_its_service(unit, socket):
    ended = verify(socket, unit)
    assert ended.returncode == 0 and "lfm-serve." not in ended.stderr, ended.stderr


@pytest.mark.parametrize("wrong", ["ListenStream=nowhere:port", "FileDescriptorNames=http", "Backlog=some"])
def test_systemd_does_not_take_a_wrong_socket(unit, socket, wrong):
    socket.write_text(socket.read_text().replace("[Socket]\n", f"[Socket]\n{wrong}\n"))
    ended = verify(socket, unit)
    assert ended.returncode != 0 or SOCKET.name in ended.stderr


def test_the_socket_is_what_the_program_listens_on_by_default():
    text = SOCKET.read_text()
    assert f"ListenStream={default_of('listen')}\n" in text
    assert "FileDescriptorName=http\n" in text


@pytest.mark.parametrize("wrong", ["ProtectSystem=stricter", "MemoryMaximum=3G", "ExecStartPost=/nowhere/program"])
def test_systemd_does_not_take_a_wrong_one(unit, wrong):
    unit.write_text(unit.read_text().replace("[Service]\n", f"[Service]\n{wrong}\n"))
    ended = verify(unit)
    assert ended.returncode != 0 or UNIT.name in ended.stderr


def test_it_is_closed(unit):
    said = run("systemd-analyze", "security", "--offline=true", "--no-pager", unit)
    assert float(re.search(r"Overall exposure level for \S+: ([\d.]+)", said).group(1)) <= EXPOSURE, said


def test_it_waits_for_the_drain():
    assert int(section("Service")["TimeoutStopSec"]) > seconds(default_of("drain-timeout"))


def test_its_settings_exist():
    for setting in set(re.findall(r"\bLFM_\w+", UNIT.read_text())):
        assert f"[env: {setting}=" in serve_help(), setting


def test_the_program_needs_no_writable_code():
    assert section("Service")["MemoryDenyWriteExecute"] == "yes"
    script = f"""
import ctypes, os, sys
if ctypes.CDLL(None).prctl({PR_SET_MDWE}, {PR_MDWE_REFUSE_EXEC_GAIN}, 0, 0, 0):
    sys.exit(77)
os.execv(sys.argv[1], sys.argv[1:])
"""
    picture = ROOT / "tests/golden/images/orig_rocket.jpg"
    command = ["python3", "-c", script, BINARY, "score", "--json", picture]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    if ended.returncode == 77:
        pytest.skip("the kernel is older than 6.3 and has no PR_SET_MDWE")
    assert ended.returncode == 0 and '"verdict"' in ended.stdout, ended.stderr
