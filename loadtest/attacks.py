"""The requests of `hostile.py`: small ones that claim much, silent connections, random bytes, and every door at its limit."""

import base64
import collections
import gzip
import itertools
import json
import os
import pathlib
import random
import socket
import struct
import subprocess
import tempfile
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from client import Address, post

MIB = 1 << 20


# ---- small requests that claim much ----


@dataclass
class Attack:
    """A request that curl sends."""

    arguments: list[str]
    size: int

    def start(self) -> "Asked":
        headers = tempfile.NamedTemporaryFile("r")
        command = ["curl", "-sS", "-o", "/dev/null", "-D", headers.name, "-w", "%{http_code} %{time_total}"]
        return Asked(subprocess.Popen([*command, *self.arguments], stdout=subprocess.PIPE, text=True), headers)


@dataclass
class Asked:
    process: subprocess.Popen
    headers: object

    def answer(self) -> tuple[str, float]:
        """HTTP's status, or gRPC's; and the seconds."""
        out, _ = self.process.communicate(timeout=120)
        status, seconds = out.split()
        for line in self.headers.read().splitlines():
            if line.lower().startswith("grpc-status:"):
                status = line.partition(":")[2].strip()
        return status, float(seconds)


def varint(number: int) -> bytes:
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    return bytes([*out, number])


def message(field: int, content: bytes) -> bytes:
    """A field of protobuf's wire format that holds bytes."""
    return varint(field << 3 | 2) + varint(len(content)) + content


def tiff(side: tuple[int, int], rows: int) -> bytes:
    """Zeros as 16-bit CMYK, deflated in strips of so many rows."""
    width, height = side
    strips = [min(rows, height - at) for at in range(0, height, rows)]
    packed = [zlib.compress(bytes(8 * width * count), 9) for count in dict.fromkeys(strips)]
    packed = [dict(zip(dict.fromkeys(strips), packed, strict=True))[count] for count in strips]
    offsets, at = [], 8
    for one in packed:
        offsets.append(at)
        at += len(one)
    tables = {273: offsets, 279: [len(one) for one in packed], 258: [16] * 4}
    values = {256: width, 257: height, 259: 8, 262: 5, 277: 4, 278: rows}
    data, entries = b"".join(packed), []
    for tag in sorted([*tables, *values]):
        kind, form = (3, "H") if tag == 258 else (4, "I")
        numbers = tables.get(tag, [values.get(tag)])
        raw = struct.pack(f"<{len(numbers)}{form}", *numbers)
        if len(raw) > 4:
            raw, data = struct.pack("<I", 8 + len(data)), data + raw
        entries.append(struct.pack("<HHI", tag, kind, len(numbers)) + raw.ljust(4, b"\0"))
    return (
        b"II*\0"
        + struct.pack("<I", 8 + len(data))
        + data
        + struct.pack("<H", len(entries))
        + b"".join(entries)
        + bytes(4)
    )


def elements() -> dict[str, bytes]:
    """Messages and bodies of 24 to 32 MiB, nearly all of it elements, that pack to some ten kilobytes."""
    number = "1," * (12 * MIB)
    one = '{"name":"image","shape":[1],"datatype":"BYTES","data":%s}'
    return {
        "gRPC, empty inputs": message(5, b"") * (12 * MIB),
        "gRPC, empty strings": message(5, message(5, message(8, b"") * (12 * MIB))),
        "gRPC, numbers": message(5, message(1, b"pixels") + message(5, message(4, b"\1" * (24 * MIB)))),
        "gRPC, empty parameters": message(4, b"") * (12 * MIB),
        "/v2, inputs": b'{"inputs":[' + b'{"name":"","shape":[],"datatype":""},' * (600 << 10) + b"{}]}",
        "/v2, strings": ('{"inputs":[' + one % ("[" + '"",' * (8 * MIB) + '""]') + "]}").encode(),
        "/v2, numbers": ('{"inputs":[' + one % f"[{number}1]" + "]}").encode(),
        "/v2, nested": ('{"inputs":[' + one % ("[" * (12 * MIB) + "]" * (12 * MIB)) + "]}").encode(),
        "/v2, parameters": b'{"parameters":{' + b'"":0,' * (5 * MIB) + b'"":0},"inputs":[]}',
        "/v1, nested arrays": b'{"image":' + b"[" * (24 * MIB),
        "/v1, nested objects": b'{"image":"' + b"A" * 64 + b'","x":' + b'{"a":' * (5 * MIB),
        "/v1, a text of escapes": b'{"image":"' + b"\\u0041" * (4 * MIB) + b'"}',
    }


def small_and_huge(http: str, grpc: str, folder: str) -> Iterator[tuple[str, set[str], Attack]]:
    """Name, the answers that are right, and the request."""
    kinds = {
        "gRPC": [f"http://{grpc}/inference.GRPCInferenceService/ModelInfer", "--http2-prior-knowledge", "-H",
                 "content-type: application/grpc", "-H", "te: trailers", "-H", "grpc-encoding: gzip"],
        "/v2": [f"http://{http}/v2/models/lfm/infer", "-H", "content-encoding: gzip"],
        "/v1": [f"http://{http}/v1/score", "-H", "content-encoding: gzip", "-H", "content-type: application/json"],
    }  # fmt: skip
    for name, body in elements().items():
        kind = name.partition(",")[0]
        packed = gzip.compress(body, 9)
        if kind == "gRPC":
            packed = b"\1" + struct.pack(">I", len(packed)) + packed
        file = pathlib.Path(folder) / name.replace("/", "_")
        file.write_bytes(packed)
        # The numbers are those of a model without a name, the text is that of a file that is no picture.
        expected = {"3", "5"} if kind == "gRPC" else {"400", "415"}
        yield name, expected, Attack([*kinds[kind], "--data-binary", f"@{file}"], len(packed))
    for name, side, rows in (("strips", (4000, 3000), 64), ("one strip", (4000, 3000), 3000)):
        file = pathlib.Path(folder) / f"cmyk_{rows}.tif"
        file.write_bytes(tiff(side, rows))
        request = [f"http://{http}/v1/score", "-H", "content-type: image/tiff", "--data-binary", f"@{file}"]
        yield f"12 MP of 16-bit CMYK TIFF, {name}", {"200"}, Attack(request, file.stat().st_size)


# ---- connections ----


def connections(address: Address, count: int, first: bytes = b"") -> list[socket.socket]:
    """So many connections that have said `first`."""
    opened = []
    for _ in range(count):
        one = socket.create_connection(address, timeout=30)
        if first:
            # The server may have closed it.
            with_error(one.sendall, first)
        opened.append(one)
    return opened


def with_error(call: Callable, *arguments) -> bool:
    try:
        call(*arguments)
        return True
    except OSError:
        return False


def announce(length: int) -> bytes:
    return f"POST /v1/score HTTP/1.1\r\nhost: lfm\r\ncontent-length: {length}\r\n\r\n".encode()


def exchange(address: Address, request: bytes, patience: float) -> bytes:
    """All that comes back before the server closes the connection, is silent for that long, or has sent a short answer."""
    answer = b""
    try:
        with socket.create_connection(address, timeout=patience) as one:
            with_error(one.sendall, request)
            while data := one.recv(1 << 16):
                answer = (answer + data)[: 1 << 20]
    except OSError:
        pass
    return answer


# ---- random requests ----


class Corpus:
    """What the fuzzers begin with and have found, as requests on kept connections."""

    MULTIPART, JSON = "multipart/form-data; boundary=X", "application/json"
    # Those that read the body: an answer before it closes the connection.
    FORMS = (
        ("/v1/score", MULTIPART), ("/v1/score", JSON), ("/v1/score", "image/png"), ("/v1/explain", MULTIPART),
        ("/v1/score/batch", MULTIPART), ("/v1/score/batch", JSON), ("/v2/models/lfm/infer", JSON),
    )  # fmt: skip
    CLIENTS = 8
    BATCH = 32

    def __init__(self, fuzz: pathlib.Path, image: bytes):
        def files(*targets: str) -> list[bytes]:
            folders = [fuzz / kind / target for target in targets for kind in ("seeds", "corpus")]
            found = [file for folder in folders if folder.is_dir() for file in sorted(folder.iterdir())]
            return [data for file in found if len(data := file.read_bytes()) < 8192]

        self.wild = files("http")
        # The first three bytes choose the form.
        self.bodies = [data[3:] for data in files("forms", "oip")]
        self.image = image

    def changed(self, draw: random.Random, data: bytes) -> bytes:
        data = bytearray(data)
        for _ in range(draw.choice((0, 1, 1, 2, 8))):
            if data:
                at = draw.randrange(len(data))
                match draw.randrange(4):
                    case 0:
                        data[at] = draw.randrange(256)
                    case 1:
                        del data[at : at + draw.randrange(1, 16)]
                    case 2:
                        data[at:at] = data[at : at + 32]
                    case 3:
                        data[at:at] = draw.choice(self.bodies)[:64]
        return bytes(data)

    def request(self, draw: random.Random) -> bytes:
        turn = draw.random()
        if turn < 0.3:
            path = draw.choice(
                ("/livez", "/readyz", "/v1/model", "/openapi.json?x=%ff", "/v2", "/docs", "/nowhere", "/v2/models/x")
            )
            return f"GET {path} HTTP/1.1\r\nhost: lfm\r\n\r\n".encode()
        # Few images: what is random must be most of the work.
        body = self.image if turn < 0.302 else self.changed(draw, draw.choice(self.bodies))
        path, kind = draw.choice(self.FORMS)
        headers = [f"content-type: {kind}"]
        if draw.random() < 0.1:
            headers.append(
                draw.choice(("content-encoding: gzip", "expect: 100-continue", "inference-header-content-length: 9"))
            )
        return post(path, body, *headers)

    def run(self, address: Address, count: int, seconds: float) -> tuple[int, int]:
        """Sends so many, as far as the time allows: how many, and how many answers came."""
        end = time.monotonic() + seconds
        totals = [0, 0]
        lock = threading.Lock()

        def client(seed: int):
            draw = random.Random(seed)
            last = b"GET /livez HTTP/1.1\r\nhost: lfm\r\nconnection: close\r\n\r\n"
            while time.monotonic() < end and totals[0] < count:
                if draw.random() < 0.05:
                    batch = [self.changed(draw, draw.choice(self.wild))]
                    answer = exchange(address, batch[0], 0.02)
                else:
                    batch = [self.request(draw) for _ in range(self.BATCH - 1)] + [last]
                    answer = exchange(address, b"".join(batch), 20)
                with lock:
                    totals[0] += len(batch)
                    totals[1] += answer.count(b"HTTP/1.1 ")

        run_all([lambda seed=seed: client(seed) for seed in range(self.CLIENTS)])
        return totals[0], totals[1]


def run_all(calls: list[Callable[[], None]]) -> None:
    threads = [threading.Thread(target=call, daemon=True) for call in calls]
    for one in threads:
        one.start()
    for one in threads:
        one.join()


# ---- all doors ----


class ControlGroup:
    """A control group with a limit on memory, of version 1 or 2; root alone can make one."""

    def __init__(self, limit: int):
        own = [line.split(":", 2) for line in pathlib.Path("/proc/self/cgroup").read_text().splitlines()]
        old = next((path for _, controllers, path in own if "memory" in controllers.split(",")), None)
        self.old = old is not None
        self.path = pathlib.Path("/sys/fs/cgroup", "memory" if self.old else "", f"lfm-hostile-{os.getpid()}")
        self.limit = limit

    def __enter__(self):
        self.path.mkdir()
        (self.path / ("memory.limit_in_bytes" if self.old else "memory.max")).write_text(str(self.limit))
        return self

    def enter(self):
        (self.path / "cgroup.procs").write_text(str(os.getpid()))

    def peak(self) -> int:
        return int((self.path / ("memory.max_usage_in_bytes" if self.old else "memory.peak")).read_text())

    def killed(self) -> int:
        text = (self.path / ("memory.oom_control" if self.old else "memory.events")).read_text()
        return int(text.split("oom_kill ")[1].split()[0])

    def __exit__(self, *_):
        for _ in range(50):
            if with_error(self.path.rmdir):
                return
            time.sleep(0.1)  # polling: the kernel empties a control group after its last process has ended


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """Of HTTP/2 (RFC 9113 section 4.1)."""
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


def literal(index: int, value: str, name: str = "") -> bytes:
    """A header of HPACK, not indexed, without Huffman's code (RFC 7541 section 6.2.2)."""
    named = bytes([0, len(name)]) + name.encode() if name else bytes([index])
    return named + bytes([len(value)]) + value.encode()


def takes_nothing() -> bytes:
    """An HTTP/2 client with a window of zero that asks for the API document 256 times."""
    head = b"\x82\x86" + literal(4, "/openapi.json") + literal(1, "x")
    asked = b"".join(frame(1, 5, 2 * i + 1, head) for i in range(256))
    return PREFACE + frame(4, 0, 0, struct.pack(">HI", 4, 0)) + asked


def call(packed: bytes) -> bytes:
    """An inference call over gRPC."""
    head = b"\x83\x86" + literal(4, "/inference.GRPCInferenceService/ModelInfer") + literal(1, "x")
    for name, value in (("content-type", "application/grpc"), ("te", "trailers"), ("grpc-encoding", "gzip")):
        head += literal(0, value, name)
    body = b"\1" + struct.pack(">I", len(packed)) + packed
    parts = [body[at : at + 16384] for at in range(0, len(body), 16384)]
    data = [frame(0, at + 1 == len(parts), 1, part) for at, part in enumerate(parts)]
    return PREFACE + frame(4, 0, 0) + frame(1, 4, 1, head) + b"".join(data)


def pictures() -> list[bytes]:
    """The largest that the limits let in, in every format, most of them small as files."""
    import io

    from PIL import Image

    from images import PHOTO

    made = [tiff((8000, 8000), 64), tiff((4000, 3000), 3000)]
    with Image.open(PHOTO) as photo:
        large = photo.convert("RGB").resize((8000, 8000), Image.Resampling.NEAREST)
    for mode, form, options in (
        ("RGB", "JPEG", {"quality": 75}),
        ("CMYK", "JPEG", {"quality": 60, "progressive": True}),
        ("RGB", "PNG", {"compress_level": 1}),
        ("RGB", "WEBP", {"quality": 50, "method": 0}),
        ("P", "GIF", {}),
    ):
        file = io.BytesIO()
        large.convert(mode).save(file, form, **options)
        if len(file.getvalue()) < 32 * MIB:
            made.append(file.getvalue())
    return made


def all_doors(server, grpc: str, seconds: float, alive: Callable[[], bool]):
    """Attacks every door for so long: how often /livez answered, of how often it was asked, and the answers by status."""
    host, port = grpc.rsplit(":", 1)
    grpc = (host, int(port))
    codes, lives, lock = collections.Counter(), [0, 0], threading.Lock()
    noise = random.Random(1).randbytes(31 * MIB)
    text = base64.b64encode(noise[: 23 * MIB])
    packed = {name: gzip.compress(body, 9) for name, body in elements().items()}
    part = b'--X\r\nContent-Disposition: form-data; name="images"; filename="a"\r\n\r\n%s\r\n'
    batch = b"".join(part % noise[at * 400_000 :][:400_000] for at in range(64)) + b"--X--\r\n"
    close, typed = "connection: close", "content-type: application/json"
    large = pictures()
    requests = [
        [post("/v1/score", noise, close)],
        [post("/v1/score", b'{"image":"' + text + b'"}', close, typed)],
        [post("/v1/score/batch", batch, close, "content-type: multipart/form-data; boundary=X")],
        [
            post("/v1/score", body, close, typed, "content-encoding: gzip")
            for name, body in packed.items()
            if "/v1" in name
        ],
        [
            post("/v2/models/lfm/infer", body, close, "content-encoding: gzip")
            for name, body in packed.items()
            if "/v2" in name
        ],
        [post("/v1/score", gzip.compress(bytes(32 * MIB - 1)), close, "content-encoding: gzip")],
        *([post(path, image, close)] for image in large for path in ("/v1/score?regions=16", "/v1/explain")),
        [post("/v1/score", json.dumps({"image": "A" * 100, "x": "y" * 10_000}).encode(), close, typed)],
    ]
    calls = [call(body) for name, body in packed.items() if "gRPC" in name]
    sockets = connections(server.address, 3000)
    # A head without an end, just below the limit on heads.
    sockets += connections(server.address, 3000, b"GET / HTTP/1.1\r\nhost: x\r\nx: " + b"a" * 31_000)
    sockets += connections(server.address, 16, announce(32 * MIB))
    end = time.monotonic() + seconds

    def ask(address: Address, turns: list[bytes]):
        for request in itertools.cycle(turns):
            if time.monotonic() > end:
                return
            answer = exchange(address, request, 20)
            status = answer[9:12].decode() if answer.startswith(b"HTTP/1.1 ") else "HTTP/2" if answer else "none"
            with lock:
                codes[status] += 1

    def silent():
        while time.monotonic() < end:
            time.sleep(5)  # the attack's pace: the server closes silent connections, new ones replace them
            sockets.extend(connections(server.address, 200))

    def watch():
        while time.monotonic() < end:
            lives[1] += 1
            lives[0] += alive()
            time.sleep(0.2)  # a probe's pace

    threads = [lambda turns=turns: ask(server.address, turns) for turns in requests for _ in range(2)]
    threads += [lambda: ask(grpc, calls) for _ in range(4)]
    threads += [lambda: ask(server.address, [takes_nothing()]) for _ in range(8)]
    run_all([*threads, silent, watch])
    for one in sockets:
        one.close()
    return lives, codes
