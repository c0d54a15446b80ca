"""What the deployment files promise: no root, nothing writable but /data, no network outwards."""

import importlib.util
import re
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[3]
DOCKER = ROOT / "docker"


def load(name: str) -> Any:
    return yaml.safe_load((DOCKER / name).read_text())


def instructions() -> list[list[str]]:
    text = (DOCKER / "Dockerfile").read_text().replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return [line.split() for line in lines]


def test_trust_images_dockerfile_runs_as_nobody_from_pinned_packages() -> None:
    lines = instructions()
    stages = {line[3]: line[1] for line in lines if line[0] == "FROM"}
    assert stages["party"] == stages["server"] == "base"
    assert set(stages.values()) <= {"${BASE_IMAGE}", "build", "base"}
    assert [line[1] for line in lines if line[0] == "USER"] == ["10001:10001"]
    assert not [line for line in lines if line[0] in ("ADD", "HEALTHCHECK")]
    installs = re.findall(r"pip install ([^&]+)", (DOCKER / "Dockerfile").read_text())
    assert len(installs) == 4
    for arguments in installs:
        # Everything from an index by hash; our own wheel without looking at an index.
        assert "--require-hashes" in arguments or "--no-deps /wheels/" in arguments


def test_trust_images_nothing_secret_or_foreign_is_sent_to_a_build() -> None:
    for name in ("Dockerfile.dockerignore", ".dockerignore"):
        rules = [
            line
            for line in (DOCKER / name).read_text().splitlines()
            if line and not line.startswith("#")
        ]
        assert rules[0] == "*", "everything is left out unless it is named"
        copied = {word for line in instructions() if line[0] == "COPY" for word in line[1:-1]}
        sources = {word.partition("=")[0] for word in copied if not word.startswith("/opt")}
        for source in sources - {"--from"}:
            assert f"!{source}" in rules, source


def test_trust_images_compose_services_are_confined() -> None:
    compose = load("compose.yaml")
    for name, service in compose["services"].items():
        assert service["cap_drop"] == ["ALL"], name
        assert "no-new-privileges:true" in service["security_opt"], name
        assert "mem_limit" in service, name
        assert "healthcheck" in service, name
        assert "privileged" not in service, name
        for variable in service.get("environment", {}):
            secret = re.search("PASSWORD|SECRET|TOKEN|KEY|DATABASE_URL", variable)
            assert not secret or variable.endswith("_FILE"), "secrets are files"
    api, worker = compose["services"]["api"], compose["services"]["worker"]
    assert api["read_only"] is worker["read_only"] is True
    # The workers, who handle hostile bytes, see neither keys nor the outside.
    assert worker["networks"] == ["back"]
    assert worker["volumes"] == ["blobs:/data/server/blobs"]
    assert "ports" not in worker
    assert worker["cpu_shares"] < 1024, "the default, and the server's"
    assert "cpu_shares" not in api
    assert "--workers 0" in api["command"][0]
    assert "clearinghouse worker" in worker["command"][0]
    assert all(port.startswith("127.0.0.1:") for port in api["ports"])
    # Who takes calls cannot sign the log's heads, and who signs them takes no calls.
    sequencer = compose["services"]["sequencer"]
    assert sequencer["read_only"] is True
    assert "clearinghouse sequencer" in sequencer["command"][0]
    assert "--no-sequencer" in api["command"][0]
    assert sequencer["volumes"] == ["log:/data"]
    assert not any(volume.startswith("log:") for volume in (*api["volumes"], *worker["volumes"]))
    assert sequencer["networks"] == ["back"]
    assert "ports" not in sequencer
    assert compose["networks"]["back"]["internal"] is True
    assert compose["services"]["postgres"]["networks"] == ["back"]


def test_trust_images_kubernetes_pod_is_restricted_and_calls_nobody() -> None:
    documents = list(yaml.safe_load_all((DOCKER / "kubernetes.yaml").read_text()))
    found = {(item["kind"], item["metadata"]["name"]): item for item in documents}
    pods = {
        name: item["spec"]["template"]["spec"]
        for (kind, name), item in found.items()
        if kind in ("StatefulSet", "Deployment")
    }
    assert set(pods) == {"clearinghouse", "sequencer", "worker"}
    mounts = {}
    for name, pod in pods.items():
        check_pod(pod)
        mounts[name] = {mount["name"] for mount in pod["containers"][0]["volumeMounts"]}
    assert found["StatefulSet", "clearinghouse"]["spec"]["replicas"] == 1
    assert mounts["worker"] == {"blobs", "tmp"}, "a worker sees no key"
    assert mounts["sequencer"] == {"log", "tmp"}
    assert "log" not in mounts["clearinghouse"], "who takes calls cannot sign the log's heads"
    assert "--no-sequencer" in pods["clearinghouse"]["containers"][0]["args"]
    policy = found["NetworkPolicy", "server-calls-nobody"]["spec"]
    (out,) = policy["egress"]
    assert out["ports"] == [{"port": 5432, "protocol": "TCP"}]
    assert all("/32" in to["ipBlock"]["cidr"] for to in out["to"])
    assert set(policy["policyTypes"]) == {"Ingress", "Egress"}


def check_pod(pod: dict[str, Any]) -> None:
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] == 10001
    assert pod["automountServiceAccountToken"] is False
    for container in pod["containers"]:
        context = container["securityContext"]
        assert context["readOnlyRootFilesystem"] is True
        assert context["allowPrivilegeEscalation"] is False
        assert context["capabilities"] == {"drop": ["ALL"]}
        assert "memory" in container["resources"]["limits"]
        assert "@sha256:" in container["image"]


def test_trust_images_party_gets_the_base_packages_and_no_server() -> None:
    spec = importlib.util.spec_from_file_location("closure", DOCKER / "closure.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    pinned = module.blocks((ROOT / "requirements" / "server.txt").read_text())
    needed = module.closure("eval-clearinghouse")
    assert {"numpy", "tenseal", "httpx", "pydantic", "cryptography", "h11"} <= needed
    assert not needed & {"fastapi", "uvicorn", "sqlalchemy", "sqlmodel", "alembic", "matplotlib"}
    assert needed <= set(pinned)
    assert "obstore" in set(pinned) - needed, "the server's image can use a bucket, as it is"
    for name in needed:
        assert re.match(rf"(?i)[{name[0]}{name[0].upper()}].*==.*\\\n", pinned[name]), name
        assert "--hash=sha256:" in pinned[name]
