"""Three servers behind Envoy, with the configuration that deploy/compose.yaml ships."""

import json
import pathlib
import signal
import subprocess
import sys
import threading
import time
import uuid

import pytest
import requests
import yaml

ROOT = pathlib.Path(__file__).parents[2]
IMAGE = (ROOT / "tests/golden/images/orig_rocket.jpg").read_bytes()
CLIENTS = 6
# What nothing but a fault outlasts, on two busy cores.
LONG = 120


def eventually(holds, what):
    """Waits for a condition that another process brings about, and gives it back."""
    end = time.monotonic() + LONG
    while time.monotonic() < end:
        if found := holds():
            return found
        time.sleep(0.05)  # neither Envoy nor a server in another process can call back: it is asked again
    pytest.fail(f"{what}: not within {LONG} s")


class Replica:
    """One server on an address of its own, which it keeps when it is started again."""

    def __init__(self, ip):
        self.ip, self.port, self.process = ip, 0, None

    def spawn(self, sessions=1):
        command = [ROOT / "target/release/lfm-serve", "serve", "--listen", f"{self.ip}:{self.port}",
                   "--sessions", str(sessions), "--log-level", "warn"]  # fmt: skip
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)

    def start(self):
        self.spawn()
        first = self.process.stdout.readline()
        assert first.startswith("listening on "), first
        self.port = int(first.rsplit(":", 1)[1])

    def is_starting(self):
        """Whether it listens, and is not ready."""
        try:
            return requests.get(f"http://{self}/startupz", timeout=LONG).status_code == 503
        except requests.ConnectionError:
            return False

    def terminate(self):
        self.process.terminate()
        assert self.process.wait(LONG) == 0

    def is_running(self):
        return self.process is not None and self.process.poll() is None

    def kill(self):
        self.process.send_signal(signal.SIGCONT)
        self.process.kill()
        self.process.wait()

    def __str__(self):
        return f"{self.ip}:{self.port}"


class Envoy:
    """The balancer, on free ports."""

    def __init__(self, folder, replicas, change=lambda config: None):
        config = yaml.safe_load((ROOT / "deploy/envoy/envoy.yaml").read_text())
        config["admin"]["address"]["socket_address"]["port_value"] = 0
        listener = config["static_resources"]["listeners"][0]
        listener["address"]["socket_address"] = {"address": "127.0.0.1", "port_value": 0}
        cluster = config["static_resources"]["clusters"][0]
        cluster["load_assignment"]["endpoints"][0]["lb_endpoints"] = [
            {"endpoint": {"address": {"socket_address": {"address": replica.ip, "port_value": replica.port}}}}
            for replica in replicas
        ]
        change(config)
        file, admin, self.log = folder / "envoy.json", folder / "admin", folder / "access.log"
        file.write_text(json.dumps(config))
        command = [pathlib.Path(sys.executable).with_name("envoy"), "--config-path", file, "--admin-address-path", admin,
                   "--use-dynamic-base-id", "--concurrency", "1", "--log-level", "warn",
                   "--file-flush-interval-msec", "50"]  # fmt: skip
        self.process = subprocess.Popen(command, stdout=self.log.open("wb"))
        eventually(lambda: admin.exists() and admin.read_text(), "Envoy's admin address")
        self.admin = f"http://{admin.read_text()}"
        self.url = f"http://{eventually(self.listeners, 'Envoy listens')[0].split('::')[1]}"
        eventually(lambda: len(self.healthy()) == len(replicas), "Envoy finds every replica healthy")

    def listeners(self):
        return requests.get(f"{self.admin}/listeners", timeout=LONG).text.split()

    def healthy(self):
        """Replicas that it sends requests to."""
        lines = requests.get(f"{self.admin}/clusters", timeout=LONG).text.splitlines()
        return {line.split("::")[1] for line in lines if line.endswith("::health_flags::healthy")}

    def sent_to(self, replica):
        """How many requests it has sent there."""
        lines = requests.get(f"{self.admin}/clusters", timeout=LONG).text.splitlines()
        return next(line for line in lines if f"::{replica}::rq_total::" in line)

    def logged(self, ids):
        """The access log's line of each of these requests: where it went last, and how."""

        def read():
            lines = map(json.loads, self.log.read_text().rpartition("\n")[0].splitlines())
            seen = {line["request_id"]: line for line in lines if line["request_id"] in ids}
            return list(seen.values()) if len(seen) == len(ids) else None

        return eventually(read, "the access log has the requests") if ids else []

    def stop(self):
        self.process.terminate()
        self.process.wait(LONG)


class Load:
    """Clients that score one image after the other, and what they were answered."""

    def __init__(self, url):
        self.url, self.answers, self.stopping = url, [], threading.Event()
        self.clients = [threading.Thread(target=self.run, args=(client,)) for client in range(CLIENTS)]

    def run(self, client):
        with requests.Session() as session:
            while not self.stopping.is_set():
                request_id = str(uuid.uuid4())
                try:
                    headers = {"Content-Type": "image/jpeg", "X-Request-Id": request_id}
                    answer = session.post(f"{self.url}/v1/score", data=IMAGE, headers=headers, timeout=LONG)
                    status, retry_after = answer.status_code, answer.headers.get("Retry-After")
                except requests.RequestException as error:
                    status, retry_after = repr(error), None
                self.answers.append((client, request_id, status, retry_after))
                if status == 429:
                    self.stopping.wait(float(retry_after or 1))

    def failures(self):
        """What was neither scored nor honestly refused: 429 says when to come back."""
        return [answer for answer in self.answers if answer[2] != 200 and not (answer[2] == 429 and answer[3])]

    def go_on(self, answers=30):
        """Lets this many more requests be answered."""
        enough = len(self.answers) + answers
        eventually(lambda: len(self.answers) >= enough, f"{answers} more answers")

    def __enter__(self):
        for client in self.clients:
            client.start()
        self.go_on()
        return self

    def __exit__(self, *_):
        self.stopping.set()
        for client in self.clients:
            client.join()


@pytest.fixture(scope="session")
def replicas():
    # Addresses of their own: no connection's own port can take a port while its server is away.
    replicas = [Replica(f"127.0.0.{host}") for host in (11, 12, 13)]
    try:
        for replica in replicas:
            replica.start()
        yield replicas
    finally:
        for replica in replicas:
            replica.kill()


@pytest.fixture
def envoy(tmp_path, replicas, request):
    # A test that fails in the middle leaves one down.
    for replica in replicas:
        if not replica.is_running():
            replica.start()
    envoy = Envoy(tmp_path, replicas, getattr(request, "param", lambda config: None))
    yield envoy
    envoy.stop()
