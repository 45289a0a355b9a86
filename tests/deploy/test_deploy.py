"""What deploy/ ships, held against the real tools, the Kubernetes schemas, and the program that it starts."""

import pathlib
import re
import subprocess
import sys
import tomllib

import kubernetes_validate
import pytest
import yaml

ROOT = pathlib.Path(__file__).parents[2]
TOOLS = pathlib.Path(sys.executable).parent
VERSION = tomllib.loads((ROOT / "Cargo.toml").read_text())["package"]["version"]
FOLDERS = ["kubernetes/overlays/cpu", "kubernetes/overlays/gpu", "kubernetes/overlays/hpa", "kubernetes/overlays/keda", "kserve"]
# Their schemas are their operators' own and in no package: rendered, but validated by nothing.
UNKNOWN_TO_KUBERNETES = {"ServiceMonitor", "ScaledObject", "ServingRuntime", "InferenceService"}


def run(*command):
    ended = subprocess.run(list(map(str, command)), cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


def rendered(folder):
    return list(yaml.safe_load_all(run(TOOLS / "kubectl", "kustomize", ROOT / "deploy" / folder)))


def of_kind(objects, kind):
    [found] = [item for item in objects if item["kind"] == kind]
    return found


def containers(objects):
    """Every container of Deployments and ServingRuntimes."""
    for item in objects:
        spec = item.get("spec", {})
        yield from spec.get("template", {}).get("spec", {}).get("containers", [])
        yield from spec.get("containers", [])


def compose():
    return yaml.safe_load((ROOT / "deploy/compose.yaml").read_text())


def seconds(text):
    return int(re.fullmatch(r"(\d+)s", text).group(1))


def default_of(flag):
    """A flag's default, from the program's own help."""
    text = run(ROOT / "target/release/lfm-serve", "serve", "--help")
    return re.search(rf"--{flag} <.*?\[default: (.*?)\]", text, re.S).group(1)


def test_the_dockerfile_is_clean():
    run(TOOLS / "hadolint", "Dockerfile")


def test_compose_takes_its_file():
    run("docker-compose", "-f", "deploy/compose.yaml", "config", "-q")


def test_prometheus_takes_the_configuration_for_compose():
    run("promtool", "check", "config", "deploy/prometheus/compose.yml")
    [job] = yaml.safe_load((ROOT / "deploy/prometheus/compose.yml").read_text())["scrape_configs"]
    [targets] = job["static_configs"]
    assert {target.split(":")[0] for target in targets["targets"]} <= compose()["services"].keys()


@pytest.mark.parametrize("folder", FOLDERS)
def test_it_renders_and_validates(folder):
    for item in rendered(folder):
        if item["kind"] in UNKNOWN_TO_KUBERNETES:
            with pytest.raises(kubernetes_validate.SchemaNotFoundError):
                kubernetes_validate.validate(item, "1.37", strict=True)
        else:
            kubernetes_validate.validate(item, "1.37", strict=True)


def test_the_schemas_refuse_what_is_wrong():
    deployment = of_kind(rendered("kubernetes/overlays/cpu"), "Deployment")
    deployment["spec"]["template"]["spec"]["containers"][0]["readOnlyRoot"] = True
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(deployment, "1.37", strict=True)


@pytest.mark.parametrize("folder", FOLDERS)
def test_it_runs_this_version_restricted_and_with_settings_that_exist(folder):
    options = run(ROOT / "target/release/lfm-serve", "serve", "--help")
    objects = rendered(folder)
    for container in containers(objects):
        assert re.fullmatch(rf"lfm-serve:{re.escape(VERSION)}(-cuda)?", container["image"])
        assert all(f"[env: {setting['name']}=" in options for setting in container["env"]), container["env"]
        context = container["securityContext"]
        assert context["readOnlyRootFilesystem"] and not context["allowPrivilegeEscalation"]
        assert context["capabilities"] == {"drop": ["ALL"]}
        pods = [item["spec"]["template"]["spec"]["securityContext"] for item in objects if item["kind"] == "Deployment"]
        for pod in pods or [context]:
            assert pod["runAsNonRoot"] and pod["seccompProfile"] == {"type": "RuntimeDefault"}
    assert list(containers(objects))


@pytest.mark.parametrize("folder", FOLDERS[:4])
def test_everything_means_the_same_pods(folder):
    objects = rendered(folder)
    pod = of_kind(objects, "Deployment")["spec"]["template"]
    labels = pod["metadata"]["labels"].items()
    for kind, select in [
        ("Deployment", lambda spec: spec["selector"]["matchLabels"]),
        ("Service", lambda spec: spec["selector"]),
        ("PodDisruptionBudget", lambda spec: spec["selector"]["matchLabels"]),
        ("NetworkPolicy", lambda spec: spec["podSelector"]["matchLabels"]),
    ]:
        selected = select(of_kind(objects, kind)["spec"])
        assert selected and selected.items() <= labels, kind
    ports = {port["name"] for port in pod["spec"]["containers"][0]["ports"]}
    service = of_kind(objects, "Service")
    assert {port["targetPort"] for port in service["spec"]["ports"]} <= ports
    monitor = of_kind(objects, "ServiceMonitor")["spec"]
    assert {endpoint["port"] for endpoint in monitor["endpoints"]} <= {port["name"] for port in service["spec"]["ports"]}
    assert monitor["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()


def test_every_orchestrator_waits_for_the_drain():
    drain = seconds(default_of("drain-timeout"))
    for folder in FOLDERS[:4]:
        assert of_kind(rendered(folder), "Deployment")["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] > drain
    assert of_kind(rendered("kserve"), "InferenceService")["spec"]["predictor"]["terminationGracePeriodSeconds"] > drain
    for replica in ("lfm-1", "lfm-2"):
        assert seconds(compose()["services"][replica]["stop_grace_period"]) > drain


def test_autoscalers_ask_for_metrics_that_are_there(tmp_path):
    exported = (ROOT / "src/metrics.rs").read_text()
    adapter = yaml.safe_load((ROOT / "deploy/kubernetes/overlays/hpa/prometheus-adapter.yaml").read_text())["rules"]["custom"]
    scaler = of_kind(rendered("kubernetes/overlays/hpa"), "HorizontalPodAutoscaler")["spec"]
    assert {metric["pods"]["metric"]["name"] for metric in scaler["metrics"]} == {rule["name"]["as"] for rule in adapter}
    queries = [rule["metricsQuery"].replace("<<.GroupBy>>", "pod").replace("<<.LabelMatchers>>", 'pod="a"') for rule in adapter]
    triggers = of_kind(rendered("kubernetes/overlays/keda"), "ScaledObject")["spec"]["triggers"]
    queries += [trigger["metadata"]["query"] for trigger in triggers]
    for query in queries:
        for name in re.findall(r"lfm_\w+?(?=_sum|_count|\W)", query):
            assert f'"{name}"' in exported, name
    rules = [{"record": "parses", "expr": query} for query in queries]
    file = tmp_path / "rules.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "queries", "rules": rules}]}))
    assert "SUCCESS: 4 rules found" in run("promtool", "check", "rules", "--lint=none", file)


def test_the_images_of_compose_are_this_version():
    assert compose()["services"]["lfm-1"]["image"] == f"lfm-serve:{VERSION}"
    assert f"lfm-serve:{VERSION} ." in (ROOT / "Dockerfile").read_text()
