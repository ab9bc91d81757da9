"""Tests of deploy/kubernetes: kustomize builds both overlays, they are valid, and what they name is there.

There is no Kubernetes here, so no pod is started. API and executor are, with the settings of the overlays, and answer
what the probes ask.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from backend.chat.queue.rabbitmq_consumer import LEAVE_LIMIT
from backend.config import SAMPLE_SECRETS, Settings
from backend.rabbitmq import ANSWER_LIMIT
from executor.mcp import LEAVE_LIMIT as MCP_LEAVE_LIMIT
from executor.worker import STOP_LIMIT
from tests import ROOT
from tests.e2e.stack import Servers, open_stack
from tests.every_metric import every_metric
from tests.plain_http import http_client
from tests.servers.kubernetes_install import required
from tests.servers.prometheus import required as required_prometheus
from tests.speed import limit

HOME = ROOT / "deploy" / "kubernetes"
OVERLAYS = ("trial", "production")
OLDEST, NEWEST = "1.30.0", "1.37.0"
"""The versions of Kubernetes against whose schemas the objects are checked."""
WORKLOADS = ("Deployment", "StatefulSet", "Job")
STORES = {"postgres", "redis", "rabbitmq"}
OURS = {"copilot-api", "copilot-executor", "copilot-migrate"}
METRICS_KEY = "the-metrics-key-of-the-test-0123456789"
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
Object = dict[str, Any]


class Overlay:
    """What kustomize made of an overlay. `file` has it as YAML."""

    def __init__(self, name: str, file: Path) -> None:
        self.name = name
        self.file = file
        self.objects: list[Object] = list(yaml.safe_load_all(file.read_text()))

    def of_kind(self, *kinds: str) -> dict[str, Object]:
        return {one["metadata"]["name"]: one for one in self.objects if one["kind"] in kinds}

    def pods(self) -> dict[str, Object]:
        """Returns the pod template of each workload, by the workload's name."""
        return {name: one["spec"]["template"] for name, one in self.of_kind(*WORKLOADS).items()}

    def container(self, workload: str) -> Object:
        (container,) = self.pods()[workload]["spec"]["containers"]
        return dict(container)

    def settings(self) -> dict[str, str]:
        (found,) = [one["data"] for name, one in self.of_kind("ConfigMap").items() if name.startswith("copilot-")]
        return dict(found)


@pytest.fixture(scope="module", params=OVERLAYS)
def overlay(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Overlay:
    kubectl, _ = required()
    file = tmp_path_factory.mktemp("kubernetes") / f"{request.param}.yaml"
    built = _run(kubectl, "kustomize", HOME / "overlays" / request.param)
    assert (built.returncode, built.stderr) == (0, "")  # a warning is an error: it is about a deprecated field
    file.write_text(built.stdout)
    return Overlay(request.param, file)


@pytest.mark.parametrize("version", [OLDEST, NEWEST])
def test_every_object_is_valid(overlay: Overlay, version: str) -> None:
    assert _problems([overlay.file], version) == ""


def test_the_examples_are_valid() -> None:
    assert _problems([HOME / "ingress.example.yaml", HOME / "base" / "secret.example.yaml"], NEWEST) == ""


def test_the_validator_refuses_an_unknown_field_of_any_object(overlay: Overlay, tmp_path: Path) -> None:
    wrong = [*overlay.objects[:-1], {**overlay.objects[-1], "spek": {}}]
    (tmp_path / "wrong.yaml").write_text(yaml.safe_dump_all(wrong))
    assert "spek" in _problems([tmp_path / "wrong.yaml"], NEWEST)


def _problems(files: list[Path], version: str) -> str:
    _, validator = required()
    done = _run(validator, "--strict", "--quiet", "-k", version, *files)
    return "" if done.returncode == 0 else done.stdout + done.stderr


def _run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=limit(120))


def test_no_object_is_there_twice_and_all_are_in_one_namespace(overlay: Overlay) -> None:
    named = [(one["kind"], one["metadata"]["name"]) for one in overlay.objects]
    assert len(named) == len(set(named))
    assert {one["metadata"].get("namespace") for one in overlay.objects if one["kind"] != "Namespace"} == {"copilot"}
    wanted = OURS | (STORES if overlay.name == "trial" else set())
    assert set(overlay.pods()) == wanted


def test_an_upgrade_can_apply_the_settings_before_everything_that_runs(overlay: Overlay) -> None:
    """docs/kubernetes.md applies what has no name label first."""
    first = {
        one["kind"] for one in overlay.objects if "app.kubernetes.io/name" not in one["metadata"].get("labels", {})
    }
    assert {"ConfigMap", "Namespace", "ServiceAccount", "NetworkPolicy"} <= first
    assert not first & set(WORKLOADS)
    for name in OURS:
        assert overlay.of_kind(*WORKLOADS)[name]["metadata"]["labels"]["app.kubernetes.io/name"] == name


def test_every_variable_is_a_setting(overlay: Overlay) -> None:
    known = {name.upper() for name in Settings.model_fields}
    listed = set(re.findall(r"^([A-Z_]+)=", (ROOT / ".env.default").read_text(), re.MULTILINE))
    assert set(overlay.settings()) <= known & listed
    for name in OURS:
        assert "env" not in overlay.container(name)
        sources = [next(iter(one.values())) for one in overlay.container(name)["envFrom"]]
        assert next(iter(overlay.of_kind("ConfigMap"))) == sources[0]["name"]
    secret = yaml.safe_load((HOME / "base" / "secret.example.yaml").read_text())["stringData"]
    assert set(secret) <= known & listed
    assert set(secret.values()) <= SAMPLE_SECRETS
    makefile = re.search(r"for name in ([A-Z_ ]+); do", (ROOT / "Makefile").read_text())
    assert makefile is not None
    assert set(makefile[1].split()) <= set(secret)


def test_no_pod_gets_variables_of_services(overlay: Overlay) -> None:
    """Kubernetes would set REDIS_PORT and EXECUTOR_PORT to URLs, for Services with these names."""
    assert all(pod["spec"]["enableServiceLinks"] is False for pod in overlay.pods().values())


def test_no_password_is_in_an_object(overlay: Overlay) -> None:
    assert not overlay.of_kind("Secret")
    assert not [name for name in overlay.settings() if "PASS" in name or "SECRET" in name or name.endswith("_KEY")]


def test_every_pod_has_few_rights_and_limited_resources(overlay: Overlay) -> None:
    for name, pod in overlay.pods().items():
        spec, container = pod["spec"], overlay.container(name)
        assert spec["automountServiceAccountToken"] is False, name
        assert spec["securityContext"]["runAsNonRoot"] is True, name
        assert spec["securityContext"]["runAsUser"] > 0, name
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, name
        own = container["securityContext"]
        assert own["allowPrivilegeEscalation"] is False, name
        assert own["capabilities"] == {"drop": ["ALL"]}, name
        assert own.get("readOnlyRootFilesystem", False) is COMPOSE.get(name, {}).get("read_only", name in OURS), name
        assert {"memory"} <= set(container["resources"]["limits"]), name
        assert set(container["resources"]["requests"]) == {"cpu", "memory"}, name


def test_the_user_is_that_of_the_image(overlay: Overlay) -> None:
    user = re.search(r"\nUSER (\d+):(\d+)\n", (ROOT / "Dockerfile").read_text())
    assert user is not None
    for name in OURS:
        security = overlay.pods()[name]["spec"]["securityContext"]
        assert (security["runAsUser"], security["runAsGroup"]) == (int(user[1]), int(user[2]))


def test_the_commands_are_those_of_docker_compose(overlay: Overlay) -> None:
    for name in OURS:
        assert overlay.container(name)["command"] == COMPOSE[name.removeprefix("copilot-")]["command"]


def test_the_stores_of_the_trial_are_those_of_docker_compose(overlay: Overlay) -> None:
    if overlay.name != "trial":
        assert not overlay.of_kind("StatefulSet")
        return
    for name in STORES:
        container = overlay.container(name)
        assert container["image"] == COMPOSE[name]["image"]
        started = container.get("args", container.get("command"))
        wanted = COMPOSE[name].get("command")
        assert started == (None if wanted is None else [word.replace("$$", "$") for word in wanted])
        mounts = {one["mountPath"] for one in container["volumeMounts"] if one["name"] == "data"}
        assert mounts == {COMPOSE[name]["volumes"][0].split(":")[1]}
    copy = HOME / "overlays" / "trial" / "rabbitmq.conf"
    assert copy.read_bytes() == (ROOT / "deploy" / "rabbitmq.conf").read_bytes()
    assert (
        overlay.settings().items()
        >= {
            name: value
            for name, value in COMPOSE["api"]["environment"].items()
            if value and "$" not in value and name != "QUEUE"
        }.items()
    )


def test_every_selector_matches_exactly_the_pods_that_it_means(overlay: Overlay) -> None:
    labels = {name: pod["metadata"]["labels"] for name, pod in overlay.pods().items()}
    for name, one in overlay.of_kind("Deployment", "StatefulSet").items():
        assert _matched(labels, one["spec"]["selector"]) == {name}
    for name, service in overlay.of_kind("Service").items():
        assert _matched(labels, {"matchLabels": service["spec"]["selector"]}) == {name}
    for name, budget in overlay.of_kind("PodDisruptionBudget").items():
        assert _matched(labels, budget["spec"]["selector"]) == {name}
    for name, scaler in overlay.of_kind("HorizontalPodAutoscaler").items():
        assert scaler["spec"]["scaleTargetRef"]["name"] == name
        assert name in overlay.of_kind("Deployment")
        assert "replicas" not in overlay.of_kind("Deployment")[name]["spec"]  # an apply would reset them
    for policy in overlay.of_kind("NetworkPolicy").values():
        assert _matched(labels, policy["spec"]["podSelector"])


def _matched(pods: dict[str, dict[str, str]], selector: Object) -> set[str]:
    wanted = selector.get("matchLabels", {}).items()
    among = {one["key"]: one["values"] for one in selector.get("matchExpressions", ())}
    return {
        name
        for name, labels in pods.items()
        if wanted <= labels.items() and all(labels.get(key) in values for key, values in among.items())
    }


def test_every_named_port_is_one_of_its_pod(overlay: Overlay) -> None:
    ports = {name: {one["name"]: one["containerPort"] for one in overlay.container(name).get("ports", ())}
             for name in overlay.pods()}  # fmt: skip
    for name, service in overlay.of_kind("Service").items():
        for port in service["spec"]["ports"]:
            assert ports[name][port["targetPort"]] == port["port"]
    for name in ports:
        for _, probe in _probes(overlay, name):
            assert probe.get("httpGet", probe.get("tcpSocket", {})).get("port", "") in {*ports[name], ""}
    settings = overlay.settings()
    assert ports["copilot-api"] == {"http": int(settings["PORT"])}
    assert ports["copilot-executor"] == {"health": int(settings["EXECUTOR_PORT"])}
    assert settings["PLATFORM_BASE_URL"] == f"http://copilot-api:{settings['PORT']}"
    rule = yaml.safe_load((HOME / "ingress.example.yaml").read_text())["spec"]["rules"][0]["http"]["paths"][0]
    assert rule["backend"]["service"] == {"name": "copilot-api", "port": {"name": "http"}}


def _probes(overlay: Overlay, workload: str) -> Iterator[tuple[str, Object]]:
    for name, value in overlay.container(workload).items():
        if name.endswith("Probe"):
            yield name, value


def test_every_mounted_volume_and_every_folder_that_is_written_is_there(overlay: Overlay) -> None:
    for name, pod in overlay.pods().items():
        claims = overlay.of_kind("StatefulSet").get(name, {}).get("spec", {}).get("volumeClaimTemplates", ())
        volumes = {one["name"] for one in pod["spec"].get("volumes", ())}
        volumes |= {one["metadata"]["name"] for one in claims}
        assert {one["name"] for one in overlay.container(name)["volumeMounts"]} == volumes
    for name in OURS:  # what docker-compose.yml mounts there
        assert "/tmp" in {one["mountPath"] for one in overlay.container(name)["volumeMounts"]}
    files = overlay.settings()["FILES_URL"]
    if files.startswith("file://"):
        for name in ("copilot-api", "copilot-executor"):
            assert files.removeprefix("file://") in {
                one["mountPath"] for one in overlay.container(name)["volumeMounts"]
            }


def test_pods_have_the_time_that_they_need_to_stop(overlay: Overlay) -> None:
    grace = float(overlay.settings()["SHUTDOWN_GRACE"])
    handed_back = 2 * STOP_LIMIT + LEAVE_LIMIT + MCP_LEAVE_LIMIT
    closed = 2 * ANSWER_LIMIT  # connections, and the port of the health checks
    pods = overlay.pods()
    assert pods["copilot-executor"]["spec"]["terminationGracePeriodSeconds"] > grace + handed_back + closed
    command, seconds = overlay.container("copilot-api")["lifecycle"]["preStop"]["exec"]["command"]
    assert command == "sleep"
    jobs = 2 * STOP_LIMIT
    assert pods["copilot-api"]["spec"]["terminationGracePeriodSeconds"] >= int(seconds) + grace + jobs + closed


def test_the_executors_may_reach_no_private_network_but_the_stores(overlay: Overlay) -> None:
    """A web page that a model reads must not lead it to the cloud's metadata server or into the cluster."""
    (web,) = [
        peers
        for rule in overlay.of_kind("NetworkPolicy")["copilot-egress"]["spec"]["egress"]
        if (peers := [peer["ipBlock"] for peer in rule["to"] if "ipBlock" in peer])
    ]
    assert {"169.254.0.0/16", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"} <= set(web[0]["except"])
    assert {"fc00::/7", "fe80::/10"} <= set(web[1]["except"])
    policies = overlay.of_kind("NetworkPolicy")
    assert policies["copilot-closed"]["spec"] == {"podSelector": {}, "policyTypes": ["Ingress"]}
    reached = policies["copilot-stores-egress"]["spec"]["egress"][0]["ports"]
    assert {one["port"] for one in reached} >= {5432, 6379}


async def test_the_programs_take_the_settings_and_answer_the_probes(
    overlay: Overlay, postgres_dsn: str, redis_dsn: str, tmp_path: Path
) -> None:
    settings = {
        name: value
        for name, value in overlay.settings().items()
        if not name.startswith(("DB_", "REDIS_", "RABBITMQ_")) and name not in {"PORT", "EXECUTOR_PORT", "FILES_URL"}
    }
    settings |= {"QUEUE": "redis", "METRICS_KEY": METRICS_KEY}
    async with (
        open_stack(Servers(postgres_dsn, redis_dsn), tmp_path, **settings) as stack,
        http_client(timeout=limit(20)) as http,
    ):
        for name, child in (("copilot-api", stack.apis[0]), ("copilot-executor", stack.executors[0])):
            asked = [(kind, probe["httpGet"]["path"]) for kind, probe in _probes(overlay, name)]
            assert {kind for kind, _ in asked} == {"startupProbe", "readinessProbe", "livenessProbe"}
            for kind, path in asked:
                # the kubelet asks the pod's address, without a token
                answer = await http.get(child.url + path, headers={"host": "10.244.0.7:8006"})
                assert (kind, answer.status_code) == (kind, 200)
            assert (await http.get(child.url + "/metrics")).status_code == 401
            scraped = await http.get(child.url + "/metrics", headers={"authorization": f"Bearer {METRICS_KEY}"})
            assert scraped.status_code == 200


def test_the_metric_of_the_autoscaler_is_made_from_metrics_of_the_product(overlay: Overlay, tmp_path: Path) -> None:
    (rule,) = yaml.safe_load((HOME / "monitoring" / "adapter-rules.yaml").read_text())["externalRules"]
    query = rule["metricsQuery"].replace("<<.LabelMatchers>>", 'namespace="copilot"')
    assert set(re.findall(r"(\w+)\{", query)) <= {name for name, _, _ in every_metric()}
    for scaler in overlay.of_kind("HorizontalPodAutoscaler").values():
        for metric in scaler["spec"]["metrics"]:
            assert metric["type"] == "Resource" or metric["external"]["metric"]["name"] == rule["name"]["as"]
    groups = [{"name": "kubernetes", "rules": [{"record": rule["name"]["as"], "expr": query}]}]
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump({"groups": groups}))
    inputs = [
        {"series": f'turns_running{{namespace="copilot",pod="{pod}"}}', "values": str(turns)}
        for pod, turns in (("a", 60), ("b", 64))
    ]
    inputs.append({"series": 'turns_waiting{namespace="copilot",pod="b",waits_for="executor"}', "values": "30"})
    inputs.append({"series": 'turns_waiting{namespace="copilot",pod="b",waits_for="turn"}', "values": "500"})
    test = {"expr": query, "eval_time": "0m", "exp_samples": [{"value": 154}]}
    unit = {
        "rule_files": ["rules.yaml"],
        "tests": [{"interval": "1m", "input_series": inputs, "promql_expr_test": [test]}],
    }
    (tmp_path / "test.yaml").write_text(yaml.safe_dump(unit))
    _promtool("test", "rules", tmp_path / "test.yaml")


def test_the_scrape_jobs_are_valid_and_named_as_the_alerts_know_them(tmp_path: Path) -> None:
    """Debian's Prometheus is built without the discovery of pods, so that alone is not checked."""
    (tmp_path / "key").write_text(METRICS_KEY)
    text = (HOME / "monitoring" / "prometheus.yaml").read_text()
    scraped = yaml.safe_load(text.replace("/etc/prometheus/copilot-metrics-key", str(tmp_path / "key")))
    for job in scraped["scrape_configs"]:
        assert job.pop("kubernetes_sd_configs") == [{"role": "pod", "namespaces": {"names": ["copilot"]}}]
        assert job["relabel_configs"][0]["regex"] in OURS
    (tmp_path / "prometheus.yaml").write_text(yaml.safe_dump(scraped))
    _promtool("check", "config", tmp_path / "prometheus.yaml")
    example = yaml.safe_load((ROOT / "deploy" / "prometheus" / "prometheus.yml").read_text())
    assert {one["job_name"] for one in scraped["scrape_configs"]} == {
        one["job_name"] for one in example["scrape_configs"]
    }


def _promtool(*arguments: str | Path) -> None:
    done = _run(required_prometheus() / "promtool", *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
