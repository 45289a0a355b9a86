"""The Kubernetes files against Kubernetes' schemas, the operators' models, and the program that they start."""

import copy
import re
import subprocess
import sys

import kubernetes_validate
import pytest
import yaml
from cloudcoil.models.keda.v1alpha1 import ScaledObject
from cloudcoil.models.prometheus_operator.v1 import PrometheusRule, ServiceMonitor
from conftest import (
    BINARY,
    DEPLOY,
    OVERLAYS,
    ROOT,
    TOOLS,
    VERSIONS,
    compose,
    containers,
    default_of,
    of_kind,
    rendered,
    run,
    seconds,
    serve_help,
)

FOLDERS = [f"kubernetes/overlays/{name}" for name in OVERLAYS]
# Kept in CRDs of other projects. These have models in a package; the others are rendered, and validated by nothing.
MODELS = {"ScaledObject": ScaledObject, "ServiceMonitor": ServiceMonitor, "PrometheusRule": PrometheusRule}
WITHOUT_SCHEMA = {"ServingRuntime", "InferenceService", "Gateway", "HTTPRoute"}
# The files that an overlay names in a comment only.
EXTRA = ["kubernetes/components/keys/secret.example.yaml", "kubernetes/overlays/gateway/body-size-nginx.yaml"]


def check(item, version):
    """Raises where an object is not what Kubernetes, or the operator that it is for, takes."""
    if model := MODELS.get(item["kind"]):
        item = copy.deepcopy(item)
        if item["kind"] == "ScaledObject":
            # Newer than the model: KEDA 2.17.
            assert item["spec"]["fallback"].pop("behavior") == "currentReplicasIfHigher"
        understood = model.model_validate(item).model_dump(mode="json", by_alias=True, exclude_unset=True)
        # The model drops fields that it does not know.
        assert understood == item
    elif item["kind"] in WITHOUT_SCHEMA:
        with pytest.raises(kubernetes_validate.SchemaNotFoundError):
            kubernetes_validate.validate(item, version, strict=True)
    else:
        kubernetes_validate.validate(item, version, strict=True)


@pytest.mark.parametrize("folder", [*FOLDERS, "kserve"])
@pytest.mark.parametrize("version", VERSIONS["kubernetes"].values())
def test_it_renders_and_validates(folder, version):
    for item in rendered(folder):
        check(item, version)


def test_the_secret_has_the_form_of_a_secret():
    kubernetes_validate.validate(yaml.safe_load((DEPLOY / EXTRA[0]).read_text()), VERSIONS["kubernetes"]["newest"], strict=True)


@pytest.mark.parametrize(
    ("folder", "kind", "path", "wrong"),
    [
        ("cpu", "Deployment", "spec.template.spec", "readOnlyRoot"),
        ("cpu", "ServiceMonitor", "spec", "intervall"),
        ("cpu", "PrometheusRule", "spec.groups.0.rules.0", "expression"),
        ("keda", "ScaledObject", "spec.triggers.0", "metricsType"),
    ],
)
def test_the_schemas_refuse_what_is_wrong(folder, kind, path, wrong):
    item = copy.deepcopy(of_kind(rendered(f"kubernetes/overlays/{folder}"), kind))
    place = item
    for name in path.split("."):
        place = place[int(name) if name.isdigit() else name]
    place[wrong] = "1"
    with pytest.raises((kubernetes_validate.ValidationError, AssertionError)):
        check(item, VERSIONS["kubernetes"]["newest"])


@pytest.mark.parametrize("folder", [*FOLDERS, "kserve"])
def test_it_runs_restricted_and_with_settings_that_exist(folder):
    objects = rendered(folder)
    for container in containers(objects):
        assert all(f"[env: {setting['name']}=" in serve_help() for setting in container["env"]), container["env"]
        context = container["securityContext"]
        assert context["readOnlyRootFilesystem"] and not context["allowPrivilegeEscalation"]
        assert context["capabilities"] == {"drop": ["ALL"]}
        pods = [item["spec"]["template"]["spec"]["securityContext"] for item in objects if item["kind"] == "Deployment"]
        for pod in pods or [context]:
            assert pod["runAsNonRoot"] and pod["seccompProfile"] == {"type": "RuntimeDefault"}
    assert list(containers(objects))


@pytest.mark.parametrize("folder", FOLDERS)
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
    for spread in pod["spec"]["topologySpreadConstraints"]:
        assert spread["labelSelector"]["matchLabels"].items() <= labels
    ports = {port["name"] for port in pod["spec"]["containers"][0]["ports"]}
    service = of_kind(objects, "Service")
    assert {port["targetPort"] for port in service["spec"]["ports"]} <= ports
    monitor = of_kind(objects, "ServiceMonitor")["spec"]
    assert {endpoint["port"] for endpoint in monitor["endpoints"]} <= {port["name"] for port in service["spec"]["ports"]}
    assert monitor["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    # The job that the rules and the dashboard ask for.
    assert service["metadata"]["labels"][monitor["jobLabel"]] == "lfm-serve"
    policy = of_kind(objects, "NetworkPolicy")["spec"]
    assert {port["port"] for rule in policy["ingress"] for port in rule["ports"]} == ports


@pytest.mark.parametrize("folder", FOLDERS)
def test_metrics_and_probes_are_where_callers_do_not_come(folder):
    objects = rendered(folder)
    [container] = containers(objects)
    probes = [container[f"{name}Probe"]["httpGet"]["port"] for name in ("startup", "readiness", "liveness")]
    assert probes == ["admin"] * 3
    callers, prometheus = of_kind(objects, "NetworkPolicy")["spec"]["ingress"]
    assert "admin" not in {port["port"] for port in callers["ports"]}
    assert prometheus["ports"] == [{"port": "admin"}]


@pytest.mark.parametrize("folder", FOLDERS)
def test_kube_prometheus_stack_takes_what_is_for_it(folder):
    objects = rendered(folder)
    # Its Prometheus selects by the name of its Helm release, its Grafana's sidecar by the presence of this label.
    for kind in ("ServiceMonitor", "PrometheusRule"):
        assert of_kind(objects, kind)["metadata"]["labels"]["release"] == "kube-prometheus-stack"
    assert of_kind(objects, "ConfigMap")["metadata"]["labels"]["grafana_dashboard"] == "1"


def test_rules_and_dashboard_are_the_ones_that_are_tested():
    objects = rendered("kubernetes/overlays/cpu")
    assert of_kind(objects, "PrometheusRule")["spec"] == yaml.safe_load((DEPLOY / "prometheus/rules.yml").read_text())
    assert of_kind(objects, "ConfigMap")["data"] == {"lfm-serve.json": (DEPLOY / "grafana/lfm-serve.json").read_text()}


def test_the_rule_file_is_what_its_program_writes():
    script = "import prometheusrule; print(prometheusrule.prometheusrule(), end='')"
    command = [sys.executable, "-c", script]
    written = subprocess.run(command, cwd=DEPLOY / "kubernetes", capture_output=True, text=True, check=True).stdout
    assert (DEPLOY / "kubernetes/monitoring/prometheusrule.yaml").read_text() == written, "make prometheusrule"


def test_every_orchestrator_waits_for_the_drain():
    drain = seconds(default_of("drain-timeout"))
    for folder in FOLDERS:
        assert of_kind(rendered(folder), "Deployment")["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] > drain
    assert of_kind(rendered("kserve"), "InferenceService")["spec"]["predictor"]["terminationGracePeriodSeconds"] > drain
    for replica in ("lfm-1", "lfm-2"):
        assert seconds(compose()["services"][replica]["stop_grace_period"]) > drain


def test_bodies_and_waits_of_the_servers_limits_pass_the_edge():
    assert default_of("max-body-bytes") == "32MiB"
    request, body = seconds(default_of("request-timeout")), seconds(default_of("body-timeout"))
    annotations = of_kind(rendered("kubernetes/overlays/ingress"), "Ingress")["metadata"]["annotations"]
    edge = {name.rpartition("/")[2]: value for name, value in annotations.items()}
    assert int(edge["proxy-body-size"].removesuffix("m")) > 32
    assert int(edge["proxy-read-timeout"]) > request and int(edge["proxy-send-timeout"]) > body
    [rule] = of_kind(rendered("kubernetes/overlays/gateway"), "HTTPRoute")["spec"]["rules"]
    assert seconds(rule["timeouts"]["request"]) > request + body
    nginx = yaml.safe_load((DEPLOY / EXTRA[1]).read_text())["spec"]["body"]
    assert int(nginx["maxSize"].removesuffix("m")) > 32 and seconds(nginx["timeout"]) > body


def test_the_edge_ends_tls_and_shows_neither_probes_nor_metrics():
    ingress = of_kind(rendered("kubernetes/overlays/ingress"), "Ingress")["spec"]
    [tls], [rule] = ingress["tls"], ingress["rules"]
    assert tls["hosts"] == [rule["host"]] and tls["secretName"]
    by_ingress = {(path["path"], path["pathType"]) for path in rule["http"]["paths"]}
    objects = rendered("kubernetes/overlays/gateway")
    [listener] = of_kind(objects, "Gateway")["spec"]["listeners"]
    route = of_kind(objects, "HTTPRoute")["spec"]
    assert listener["protocol"] == "HTTPS" and listener["tls"]["certificateRefs"]
    assert route["parentRefs"] == [{"name": "lfm-serve", "sectionName": listener["name"]}]
    assert route["hostnames"] == [listener["hostname"]]
    kinds = {"Exact": "Exact", "PathPrefix": "Prefix"}
    by_gateway = {(match["path"]["value"], kinds[match["path"]["type"]]) for match in route["rules"][0]["matches"]}
    assert by_ingress == by_gateway
    assert ("/", "Exact") in by_ingress and not {path for path, _ in by_ingress} & {"/metrics", "/livez", "/readyz"}


def test_autoscalers_ask_for_metrics_that_are_there(tmp_path):
    exported = "".join(file.read_text() for file in ROOT.glob("src/**/*.rs"))
    adapter = yaml.safe_load((DEPLOY / "kubernetes/overlays/hpa/prometheus-adapter.yaml").read_text())["rules"]["custom"]
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


def test_without_prometheus_the_autoscaler_does_not_shrink_the_service():
    spec = of_kind(rendered("kubernetes/overlays/keda"), "ScaledObject")["spec"]
    assert spec["fallback"]["behavior"] == "currentReplicasIfHigher"
    assert spec["fallback"]["replicas"] >= spec["minReplicaCount"]
    assert spec["triggers"][0]["metadata"]["ignoreNullValues"] == "false"


def test_the_documents_secret_is_the_one_that_the_component_mounts(tmp_path):
    """docs/deploy.md's command as it stands, without a cluster."""
    text = " ".join((ROOT / "docs/deploy.md").read_text().split())
    [command] = re.findall(r"`kubectl (create secret [^`]+)`", text)
    keys = tmp_path / "FILE"
    keys.write_text(subprocess.run([BINARY, "key", "caller"], capture_output=True, text=True, check=True).stdout)
    arguments = [str(part).replace("=FILE", f"={keys}") for part in command.split()]
    secret = yaml.safe_load(run(TOOLS / "kubectl", *arguments, "--dry-run=client", "--output=yaml"))
    pod = of_kind(rendered("kubernetes/overlays/gateway"), "Deployment")["spec"]["template"]["spec"]
    [volume] = pod["volumes"]
    assert volume["secret"]["secretName"] == secret["metadata"]["name"]
    [mount] = pod["containers"][0]["volumeMounts"]
    [setting] = [one["value"] for one in pod["containers"][0]["env"] if one["name"] == "LFM_API_KEYS_FILE"]
    assert {setting} == {f"{mount['mountPath']}/{name}" for name in secret["data"]}
    assert int(oct(volume["secret"]["defaultMode"])[2:]) == 440 and pod["securityContext"]["fsGroup"]
