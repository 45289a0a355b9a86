"""What a rollout, a crash and a slow start cost the clients behind a load balancer."""

import re
import signal

from conftest import CLIENTS, IMAGE, LONG, ROOT, Load, eventually
import pytest
import requests
import yaml


def test_a_rolling_restart_loses_nothing(envoy, replicas):
    with Load(envoy.url) as load:
        for replica in replicas:
            replica.terminate()
            load.go_on()
            replica.start()
            eventually(lambda replica=replica: str(replica) in envoy.healthy(), f"{replica} is back")
            load.go_on()
    assert not load.failures()
    went = {line["upstream"] for line in envoy.logged({answer[1] for answer in load.answers})}
    assert went == {str(replica) for replica in replicas}


def test_a_killed_replica_loses_at_most_what_it_was_working_on(envoy, replicas):
    dead = replicas[1]
    with Load(envoy.url) as load:
        dead.kill()
        load.go_on(100)
        eventually(lambda: str(dead) not in envoy.healthy(), f"{dead} is out")
    lost = load.failures()
    assert all(status == 503 for _, _, status, _ in lost), lost
    # What was in flight: Envoy holds at most a connection a client, a connection carries one request, and each of the
    # lost ones went out on a connection that died under it (UC). The kernel closes a dead process's connections one by
    # one, so a client that loses a request on the first can lose another on the last.
    assert len(lost) <= CLIENTS, lost
    lines = envoy.logged({request_id for _, request_id, *_ in lost})
    assert {(line["upstream"], line["flags"], line["attempts"]) for line in lines} <= {(str(dead), "UC", 1)}, lines


def test_a_slow_start_gets_nothing_before_it_is_ready(envoy, replicas):
    slow = replicas[2]
    with Load(envoy.url) as load:
        slow.terminate()
        before = envoy.sent_to(slow)
        # Many sessions to warm up, and then it gets no further.
        slow.spawn(sessions=8)
        eventually(slow.is_starting, f"{slow} is starting")
        slow.process.send_signal(signal.SIGSTOP)
        load.go_on(100)
        assert envoy.sent_to(slow) == before
        slow.process.send_signal(signal.SIGCONT)
        eventually(lambda: str(slow) in envoy.healthy(), f"{slow} is taken in")
        load.go_on()
    assert not load.failures()


def test_a_body_at_the_limit_passes_and_one_above_gets_the_servers_answer(envoy):
    limit = 32 << 20
    headers = {"Content-Type": "image/jpeg"}
    at_limit = requests.post(f"{envoy.url}/v1/score", data=IMAGE.ljust(limit, b"\0"), headers=headers, timeout=LONG)
    assert at_limit.status_code == 200, at_limit.text
    above = requests.post(f"{envoy.url}/v1/score", data=IMAGE.ljust(limit + 1, b"\0"), headers=headers, timeout=LONG)
    assert (above.status_code, above.json()["code"]) == (413, "body_too_large")


def weighted_by_load_reports(config):
    """The change that docs/deploy.md shows."""
    text = (ROOT / "docs/deploy.md").read_text()
    [change] = re.findall(r"```yaml\n(# envoy:.*?)```", text, re.S)
    change = yaml.safe_load(change)
    cluster = config["static_resources"]["clusters"][0]
    del cluster["lb_policy"]
    cluster["load_balancing_policy"] = change["load_balancing_policy"]
    chain = config["static_resources"]["listeners"][0]["filter_chains"][0]
    manager = chain["filters"][0]["typed_config"]
    manager["route_config"]["virtual_hosts"][0] |= change["virtual_host"]


@pytest.mark.parametrize("envoy", [weighted_by_load_reports], indirect=True)
def test_envoy_weighs_replicas_by_their_load_reports(envoy, replicas):
    with Load(envoy.url) as load:
        load.go_on(100)
    assert not load.failures()
    assert {line["upstream"] for line in envoy.logged({answer[1] for answer in load.answers})} == set(map(str, replicas))
    asked = {"Content-Type": "image/jpeg", "Endpoint-Load-Metrics-Format": "text"}
    direct = requests.post(f"http://{replicas[0]}/v1/score", data=IMAGE, headers=asked, timeout=LONG)
    assert direct.headers["Endpoint-Load-Metrics"].startswith("TEXT application_utilization=")
    # Between the balancer and its replicas, nobody else's.
    outside = requests.post(f"{envoy.url}/v1/score", data=IMAGE, headers=asked, timeout=LONG)
    assert outside.status_code == 200 and "Endpoint-Load-Metrics" not in outside.headers


def test_metrics_stay_inside(envoy):
    assert requests.get(f"{envoy.url}/metrics", timeout=LONG).status_code == 404
