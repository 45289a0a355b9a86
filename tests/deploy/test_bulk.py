"""The Job that scores an archive, against Kubernetes' schemas and the program that it starts."""

import kubernetes_validate
import pytest
from conftest import BINARY, VERSION, VERSIONS, containers, of_kind, rendered, run

FOLDER = "kubernetes/bulk"


@pytest.mark.parametrize("version", [VERSIONS["bulk"]["kubernetes"], VERSIONS["kubernetes"]["newest"]])
def test_it_renders_and_validates(version):
    for item in rendered(FOLDER):
        kubernetes_validate.validate(item, version, strict=True)


def test_each_pod_has_a_share_and_they_are_all():
    job = of_kind(rendered(FOLDER), "Job")["spec"]
    [container] = containers(rendered(FOLDER))
    settings = {setting["name"]: setting["value"] for setting in container["env"]}
    assert job["completionMode"] == "Indexed" and settings["LFM_SHARDS"] == str(job["completions"])
    assert container["image"] == f"lfm-serve:{VERSION}"
    said = run(BINARY, *container["args"], "--help")
    assert all(f"[env: {name}=" in said for name in settings)


def test_it_runs_restricted():
    pod = of_kind(rendered(FOLDER), "Job")["spec"]["template"]["spec"]
    [container] = pod["containers"]
    assert pod["securityContext"]["runAsNonRoot"] and pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    context = container["securityContext"]
    assert context["readOnlyRootFilesystem"] and not context["allowPrivilegeEscalation"]
    assert context["capabilities"] == {"drop": ["ALL"]}


def test_the_services_network_policy_does_not_hold_it():
    labels = of_kind(rendered(FOLDER), "Job")["spec"]["template"]["metadata"]["labels"]
    policy = of_kind(rendered("kubernetes/overlays/cpu"), "NetworkPolicy")["spec"]["podSelector"]["matchLabels"]
    assert not policy.items() <= labels.items()
