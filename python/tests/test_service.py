"""The module's answers are the service's."""

import http.client
import json
import urllib.parse

import pytest

import lfm_serve
from conftest import HOSTILE, IMAGES, PHOTO


def posted(server, path, route="/v1/score"):
    """Status and JSON of the server's answer."""
    place = urllib.parse.urlsplit(server)
    connection = http.client.HTTPConnection(place.hostname, place.port, timeout=120)
    connection.request("POST", route, path.read_bytes())
    answer = connection.getresponse()
    return answer.status, json.loads(answer.read())


def without_request(answer):
    """What does not belong to the request alone."""
    return {k: v for k, v in answer.items() if k not in ("id", "external_id", "timings_ms")}


@pytest.mark.parametrize("path", IMAGES, ids=lambda path: path.name)
def test_its_answer_is_the_service_s_to_the_last_bit(scorer, server, path):
    status, answer = posted(server, path)
    if status == 200:
        # JSON has the shortest digits of the very float: equality is that of bits.
        assert scorer.score(path).to_dict() == without_request(answer)
        assert scorer.score(path.read_bytes()).to_dict() == without_request(answer)
    else:
        with pytest.raises(lfm_serve.ScoreError) as refused:
            scorer.score(path)
        assert (refused.value.code, refused.value.detail) == (answer["code"], answer["detail"])


@pytest.mark.parametrize("path", HOSTILE, ids=lambda path: path.name)
def test_what_the_service_refuses_is_an_error_with_its_code(scorer, server, path):
    status, answer = posted(server, path)
    result = next(scorer.score_many([path], progress=False))
    if status == 200:
        assert result.to_dict() == without_request(answer)
    else:
        assert isinstance(result, lfm_serve.ScoreError)
        assert result.code == answer["code"]
        # Of a request without a body the service speaks otherwise.
        assert result.detail == answer["detail"] or result.code == "empty_body"


@pytest.mark.parametrize("regions", [1, 5, 9, 16])
def test_regions_are_those_of_the_service(server, regions):
    with lfm_serve.Scorer(regions=regions) as scorer:
        result = scorer.score(PHOTO)
    _, answer = posted(server, PHOTO, f"/v1/score?regions={regions}")
    assert result.to_dict()["judged"] == answer["judged"] and result.logit == answer["logit"]


@pytest.mark.parametrize("name", ["orig_rocket.jpg", "chelsea_exif6.jpg", "x_flat.png"])
def test_an_explanation_is_the_service_s(scorer, server, name):
    path = PHOTO.with_name(name)
    why = scorer.explain(path, overlay=True)
    _, answer = posted(server, path, "/v1/explain")
    assert why.to_dict() == without_request(answer)
    place = urllib.parse.urlsplit(server)
    connection = http.client.HTTPConnection(place.hostname, place.port, timeout=120)
    connection.request("POST", "/v1/explain", path.read_bytes(), {"Accept": "image/png"})
    assert why.overlay == connection.getresponse().read()
