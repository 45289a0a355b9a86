"""`score --from s3://`: against an S3 server that is busy, slow, gone, refuses, and whose objects change."""

import collections
import itertools
import json
import re
import subprocess
import time

import boto3
import pyarrow.parquet
import pytest
import requests
from conftest import ROOT, picture, reset, slow_down

GOLDEN = ROOT / "tests/golden/images"
# As docs/bulk.md calls what PyArrow calls so.
TYPES = {"list<element: string not null>": "list<string>", "extension<arrow.json>": "json"}


def key_of(environ):
    return environ["PATH_INFO"].split("/", 2)[-1]


def is_read(environ):
    return environ["REQUEST_METHOD"] == "GET" and key_of(environ).startswith("in/")


def fill(bucket, count):
    for number in range(count):
        bucket.put(f"in/{number:03}.png", picture(number))


def assert_complete(bucket, rows, count):
    assert collections.Counter(row["path"] for row in rows) == {
        bucket.at(f"in/{number:03}.png"): 1 for number in range(count)
    }


def test_a_bucket_gives_the_rows_of_a_folder(bucket, tmp_path):
    folder = tmp_path / "in"
    names = ["orig_rocket.jpg", "x_coffee_64.png", "chelsea_portrait_q92.webp"]
    files = {name: (GOLDEN / name).read_bytes() for name in names}
    files |= {"a b#c%20é+.png": picture(1), "deeper/cut.jpg": files["orig_rocket.jpg"][:4000], "notes.txt": b"text"}
    etags = {}
    for name, body in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(body)
        etags[name] = bucket.put(f"in/{name}", body)
    for hidden in ["in/.hidden.png", "in/__MACOSX/a.png", "in/.git/b.png", "in2/other.png"]:
        bucket.put(hidden, picture(0))
    local = bucket.score(str(folder), str(tmp_path / "out.jsonl"))
    remote = bucket.score(bucket.at("in"), bucket.at("out.jsonl"))
    assert local[0] == remote[0] == 2 and local[1] == remote[1]
    assert remote[1]["failed"] == remote[1]["no_pictures"] == 1
    [part] = (tmp_path / "out.jsonl").glob("part-*")
    here = {row.pop("path").removeprefix(f"{folder}/"): row for row in map(json.loads, part.read_text().splitlines())}
    there = {row.pop("path").removeprefix(bucket.at("in/")): row for row in bucket.rows("out.jsonl")}
    assert here.keys() == there.keys() == files.keys()
    for name, row in there.items():
        assert row.pop("etag") == etags[name] and here[name].pop("etag") is None
        assert row == here[name]

    # The same by a list, into Parquet in a folder.
    (tmp_path / "list").write_text("".join(f"{bucket.at('in/' + name)}\n" for name in files))
    assert bucket.score(str(tmp_path / "list"), str(tmp_path / "out.parquet"), "--allow-errors")[0] == 0
    table = pyarrow.parquet.read_table(tmp_path / "out.parquet")
    columns = {row["path"].removeprefix(bucket.at("in/")): row for row in table.to_pylist()}
    assert columns.keys() == there.keys()
    for name, row in there.items():
        assert columns[name]["etag"] == etags[name]
        assert columns[name]["score"] == row.get("score")
        assert columns[name]["logit_raw"] == pytest.approx(row.get("logit_raw"))
        assert columns[name]["warnings"] == row.get("warnings", [])
        assert columns[name]["error_code"] == row.get("error", {}).get("code")
    described = re.findall(r"^\| `(\w+)` \| ([\w<>]+) \|", (ROOT / "docs/bulk.md").read_text(), re.M)
    assert [(field.name, TYPES.get(str(field.type), str(field.type))) for field in table.schema] == described


def test_what_fails_for_a_while_is_not_seen(bucket):
    fill(bucket, 30)
    turns = itertools.count()
    seen = collections.Counter()

    def fault(environ, start):
        with bucket.faulty.lock:
            turn = next(turns)
        if environ["REQUEST_METHOD"] == "PUT" and "part-" in environ["PATH_INFO"]:
            seen[environ["PATH_INFO"]] += 1
            if seen[environ["PATH_INFO"]] == 1:
                # It is stored, and the answer lost: sent again, it is there already.
                bucket.faulty.whole(environ)
                reset(environ)
            return None
        kind = turn % 6
        if kind == 0:
            return slow_down(environ, start)
        if kind == 1:
            reset(environ)
        if kind in (2, 3) and is_read(environ):
            status, headers, body = bucket.faulty.whole(environ)
            start(status, headers)
            return cut(environ, body) if kind == 2 else slow(body)
        return None

    def cut(environ, body):
        yield body[: len(body) // 2]
        reset(environ)

    def slow(body):
        for at in range(0, len(body), 4096):
            time.sleep(0.01)  # the fault that is injected: a slow body
            yield body[at : at + 4096]

    with bucket.failing(fault):
        code, figures, log = bucket.score(bucket.at("in"), bucket.at("out.jsonl"))
    assert code == 0 and figures["scored"] == 30, log
    assert seen and all(times == 2 for times in seen.values()), seen
    assert not bucket.keys("out.jsonl/failed")
    assert_complete(bucket, bucket.rows("out.jsonl"), 30)


def test_what_fails_for_long_is_tried_again_by_the_next_run(bucket):
    fill(bucket, 12)
    with bucket.failing(lambda environ, start: slow_down(environ, start) if is_read(environ) else None):
        code, figures, log = bucket.score(
            bucket.at("in"), bucket.at("out.parquet"), "--retry-timeout", "1s", "--allow-errors"
        )
    assert code == 2 and figures["images"] == 0, log
    assert "12 images could not be read: run it again" in log
    failed = bucket.rows("out.parquet", "failed")
    assert_complete(bucket, failed, 12)
    assert {row["error_code"] for row in failed} == {"unreadable"}
    code, figures, log = bucket.score(bucket.at("in"), bucket.at("out.parquet"))
    assert code == 0 and figures["scored"] == 12, log
    assert not bucket.keys("out.parquet/failed")
    assert_complete(bucket, bucket.rows("out.parquet"), 12)


def test_a_store_that_answers_nothing_any_more_ends_the_run(bucket, tmp_path):
    (tmp_path / "list").write_text("".join(bucket.at(f"in/{number}.png\n") for number in range(300)))
    code, _, log = bucket.score(str(tmp_path / "list"), bucket.at("out.jsonl"))
    assert code == 1 and "100 files one after another are unreadable (the object is not there)" in log, log


def test_wrong_credentials_end_the_run_before_it_begins(bucket):
    fill(bucket, 2)
    iam = boto3.client(
        "iam", endpoint_url=bucket.url, region_name="us-east-1", aws_access_key_id="k", aws_secret_access_key="s"
    )
    iam.create_user(UserName="scorer")
    allow = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "s3:*", "Resource": "*"}]}
    iam.put_user_policy(UserName="scorer", PolicyName="all", PolicyDocument=json.dumps(allow))
    key = iam.create_access_key(UserName="scorer")["AccessKey"]
    right = {"AWS_ACCESS_KEY_ID": key["AccessKeyId"], "AWS_SECRET_ACCESS_KEY": key["SecretAccessKey"]}
    requests.post(f"{bucket.url}/moto-api/reset-auth", data="0", timeout=60)
    try:
        code, _, log = bucket.score(
            bucket.at("in"), bucket.at("out.jsonl"), **right | {"AWS_SECRET_ACCESS_KEY": "wrong"}
        )
        assert code == 1 and "cannot list" in log and "SignatureDoesNotMatch" in log, log
        code, figures, log = bucket.score(bucket.at("in"), bucket.at("out.jsonl"), **right)
        assert code == 0 and figures["scored"] == 2, log
    finally:
        requests.post(f"{bucket.url}/moto-api/reset-auth", data="inf", timeout=60)


def test_an_object_that_changes_is_said_to(bucket):
    fill(bucket, 5)
    changed = set()

    def fault(environ, start):
        if not is_read(environ):
            return None
        name = key_of(environ).removeprefix("in/")
        if name == "001.png" and name not in changed:
            # Between listing and reading.
            changed.add(name)
            bucket.put(f"in/{name}", picture(101))
        if name == "003.png" and name not in changed:
            # In the middle of reading: the end that is asked for again would be another picture's.
            changed.add(name)
            status, headers, body = bucket.faulty.whole(environ)
            start(status, headers)
            return cut(environ, body)
        return None

    def cut(environ, body):
        yield body[: len(body) // 2]
        bucket.put("in/003.png", picture(103))
        reset(environ)

    with bucket.failing(fault):
        code, figures, log = bucket.score(bucket.at("in"), bucket.at("out.jsonl"))
    assert code == 2 and figures["scored"] == 3, log
    codes = {row["path"]: row["error"]["code"] for row in bucket.rows("out.jsonl", "failed")}
    assert codes == {bucket.at("in/001.png"): "changed", bucket.at("in/003.png"): "unreadable"}
    # As they are now.
    code, figures, log = bucket.score(bucket.at("in"), bucket.at("out.jsonl"))
    assert code == 0 and figures["scored"] == 5, log
    assert_complete(bucket, bucket.rows("out.jsonl"), 5)
    # And since.
    etag = bucket.put("in/001.png", picture(201))
    code, figures, log = bucket.score(bucket.at("in"), bucket.at("out.jsonl"))
    assert code == 0 and figures["images"] == 5
    assert "1 objects have changed since they were scored" in log
    assert etag not in {row["etag"] for row in bucket.rows("out.jsonl")}


@pytest.mark.parametrize("ending", ["jsonl", "parquet"])
def test_a_run_that_is_killed_goes_on_where_it_was(bucket, ending):
    fill(bucket, 80)
    command = bucket.command(bucket.at("in"), bucket.at(f"out.{ending}"))
    for _ in range(3):
        process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=bucket.environment, cwd=ROOT
        )
        assert "part-" in process.stderr.readline()
        process.kill()
        process.wait(60)
        process.stderr.close()
    assert 21 <= len(bucket.rows(f"out.{ending}")) < 80
    code, figures, log = bucket.score(bucket.at("in"), bucket.at(f"out.{ending}"))
    assert code == 0 and figures["scored"] == 80, log
    assert_complete(bucket, bucket.rows(f"out.{ending}"), 80)
