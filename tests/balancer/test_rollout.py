"""What a rollout, a crash and a slow start cost the clients behind a load balancer."""

import signal

from conftest import IMAGE, LONG, Load, eventually
import requests


def test_a_rolling_restart_loses_nothing(envoy, replicas):
    with Load(envoy.url) as load:
        for replica in replicas:
            replica.terminate()
            load.go_on()
            replica.start()
            eventually(lambda replica=replica: str(replica) in envoy.healthy(), f"{replica} is back")
            load.go_on()
    assert not load.failures()
    assert set(envoy.upstreams({answer[1] for answer in load.answers}).values()) == {str(replica) for replica in replicas}


def test_a_killed_replica_loses_at_most_what_it_was_working_on(envoy, replicas):
    dead = replicas[1]
    with Load(envoy.url) as load:
        dead.kill()
        load.go_on(100)
        eventually(lambda: str(dead) not in envoy.healthy(), f"{dead} is out")
    lost = load.failures()
    # A client has one request in flight: it can have lost that one, and only on the replica that died.
    clients = [client for client, *_ in lost]
    assert len(clients) == len(set(clients)), lost
    went = envoy.upstreams({request_id for _, request_id, *_ in lost})
    assert {went[request_id] for _, request_id, *_ in lost} <= {str(dead)}, lost
    dead.start()


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


def test_metrics_stay_inside(envoy):
    assert requests.get(f"{envoy.url}/metrics", timeout=LONG).status_code == 404
