"""The files of `deployments/`: valid by their own tools, pinned, closed to strangers, and of one mind."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import compose_spec
import pytest
import yaml

from reflexion.cli.commands.serve import SERVED, check_schedule, make_deployments, serve
from reflexion.errors import ConfigurationError
from reflexion.tasks.server_defaults import SERVER_SETTINGS

ROOT = Path(__file__).resolve().parents[2]
DEPLOYMENTS = ROOT / "deployments"
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]


def load(name: str) -> Any:
    return yaml.safe_load((DEPLOYMENTS / name).read_text())


COMPOSE = load("compose.yaml")
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
LONG_RUNNING = {name: s for name, s in SERVICES.items() if s["restart"] == "unless-stopped"}


# -- compose.yaml -------------------------------------------------------------------------------------------


def test_compose_follows_the_specification() -> None:
    # Merge keys are YAML's business: the specification is about what they come to.
    spec = compose_spec.PyCompose.from_json(json.dumps(COMPOSE)).to_spec()
    assert set(spec.services or ()) == {
        "postgres", "redis", "migrate", "server", "services", "deploy", "worker", "proxy",
    }  # fmt: skip
    wrong = json.loads(json.dumps(COMPOSE))
    wrong["services"]["redis"]["restart"] = "sometimes"
    with pytest.raises(ValueError, match="sometimes"):
        compose_spec.PyCompose.from_json(json.dumps(wrong))


def test_every_reference_of_compose_leads_somewhere() -> None:
    for name, service in SERVICES.items():
        assert set(service.get("networks", ())) <= set(COMPOSE["networks"]), name
        assert set(service.get("secrets", ())) <= set(COMPOSE["secrets"]), name
        assert {v.partition(":")[0] for v in service.get("volumes", ())} <= set(COMPOSE["volumes"]), name
        for other, condition in service.get("depends_on", {}).items():
            needs_health = condition["condition"] == "service_healthy"
            assert not needs_health or other in LONG_RUNNING, f"{name} waits for the health of {other}"
        for file in service.get("env_file", ()):
            assert (DEPLOYMENTS / file).is_file()
        files = [v for k, v in service.get("environment", {}).items() if k.endswith("_FILE")]
        assert {Path(f).name for f in files} <= set(service.get("secrets", ())), f"{name} may not read its secrets"


def test_containers_are_closed_pinned_and_looked_after() -> None:
    for name, service in SERVICES.items():
        image, _, tag = service["image"].partition(":")
        assert re.fullmatch(r"\d+(\.\d+){1,2}(-[a-z0-9.]+)?", tag), f"{name}: {image} is not pinned"
        assert service["cap_drop"] == ["ALL"] and service["read_only"] is True, name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert not service.get("privileged"), name
        # Reached from outside on loopback only, but for the proxy, which has TLS.
        ports = service.get("ports", [])
        assert all(p.startswith("127.0.0.1:") for p in ports) or (name, ports) == ("proxy", ["443:443"])
    assert SERVICES["postgres"]["networks"] == SERVICES["redis"]["networks"] == ["inside"]
    assert COMPOSE["networks"]["inside"] == {"internal": True}
    for name in ("postgres", "redis", "proxy"):
        assert LONG_RUNNING[name]["healthcheck"]["test"], name
    for name in ("server", "services", "worker"):
        assert LONG_RUNNING[name]["environment"]["REFLEXION_HEALTH_URL"], f"{name}: the image's health check asks this"


def test_no_secret_is_written_into_a_file() -> None:
    for path in DEPLOYMENTS.rglob("*"):
        if path.is_file() and path.suffix in (".yaml", ".env", ".sh"):
            for line in path.read_text().splitlines():
                assert not re.search(r"(?i)(password|auth_string|api_key)\w*[:=] *['\"]?[a-z0-9]{6,}", line), line
    server = SERVICES["server"]["environment"]
    assert server["PREFECT_SERVER_API_AUTH_STRING_FILE"] and server["PREFECT_SERVER_DATABASE_PASSWORD_FILE"]
    assert "requirepass" in SERVICES["redis"]["command"][-1]
    assert "scram-sha-256" in SERVICES["postgres"]["environment"]["POSTGRES_INITDB_ARGS"]


def test_the_script_makes_secrets_once(tmp_path: Path) -> None:
    script = tmp_path / "make-secrets.sh"
    script.write_text((DEPLOYMENTS / "make-secrets.sh").read_text())
    subprocess.run(["sh", str(script)], check=True, capture_output=True, timeout=30)
    made = {p.name: p.read_text() for p in (tmp_path / "secrets").iterdir()}
    assert set(made) == set(COMPOSE["secrets"])
    assert len(set(made.values())) == 3 and all(len(v) >= 48 for v in made.values())
    assert re.fullmatch(r"reflexion:[0-9a-f]{48}", made["prefect_auth"])
    subprocess.run(["sh", str(script)], check=True, capture_output=True, timeout=30)
    assert {p.name: p.read_text() for p in (tmp_path / "secrets").iterdir()} == made
    assert (tmp_path / "secrets").stat().st_mode & 0o077 == 0


# -- the image ----------------------------------------------------------------------------------------------


def test_the_dockerfile_satisfies_its_linter() -> None:
    linter = Path(sys.executable).with_name("hadolint")
    done = subprocess.run(
        [str(linter), "--failure-threshold", "style", str(DEPLOYMENTS / "Dockerfile")],
        check=False, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout


def test_the_image_is_built_in_stages_runs_as_nobody_special_and_tells_its_health() -> None:
    text = (DEPLOYMENTS / "Dockerfile").read_text()
    stages = [line for line in text.splitlines() if line.startswith("FROM ")]
    last = text[text.rindex("\nFROM ") :]
    assert len(stages) == 2 and "COPY --from=build" in last and "pip install" not in last
    assert re.search(r"^ARG PYTHON_IMAGE=python:\d+\.\d+\.\d+-slim-\w+$", text, re.MULTILINE)
    assert re.findall(r"^USER (.*)$", last, re.MULTILINE) == ["10001:10001"]
    assert "HEALTHCHECK" in last and "healthcheck.py" in last
    assert f'version="{VERSION}"' in last
    for source in re.findall(r"^COPY (?!--from)(?:--\S+ )*(.*) \S+$", text, re.MULTILINE):
        assert all((ROOT / path).exists() for path in source.split()), source
    ignored = (DEPLOYMENTS / "Dockerfile.dockerignore").read_text().splitlines()
    assert "*" in ignored and "deployments/secrets" in ignored


def test_scripts_are_valid_and_executable() -> None:
    for name in ("entrypoint.sh", "make-secrets.sh"):
        subprocess.run(["sh", "-n", str(DEPLOYMENTS / name)], check=True, timeout=30)
        assert (DEPLOYMENTS / name).stat().st_mode & 0o111


# -- one mind -----------------------------------------------------------------------------------------------


def test_images_have_the_version_of_the_package() -> None:
    for path in ("compose.yaml", "prefect.yaml", "Dockerfile"):
        tags = re.findall(r"reflexion-on-prefect:([0-9.]+)", (DEPLOYMENTS / path).read_text())
        assert tags and set(tags) == {VERSION}, path
    assert str(load("helm/server.yaml")["global"]["prefect"]["image"]["prefectTag"]) == VERSION


def test_the_chart_has_the_server_s_settings_and_no_secret() -> None:
    server, worker = load("helm/server.yaml"), load("helm/worker.yaml")["worker"]
    assert {e["name"]: e["value"] for e in server["global"]["prefect"]["env"]} == SERVER_SETTINGS
    assert server["server"]["basicAuth"] == {"enabled": True, "existingSecret": "prefect-auth"}
    assert worker["selfHostedServerApiConfig"]["basicAuth"] == server["server"]["basicAuth"]
    assert server["backgroundServices"]["messaging"]["broker"] == "prefect_redis.messaging"
    assert server["server"]["replicaCount"] > 1 and server["backgroundServices"]["runAsSeparateDeployment"]
    pins = (ROOT / "constraints.txt").read_text()
    assert f"prefect=={worker['image']['prefectTag'].partition('-')[0]}\n" in pins, (
        "the worker has the server's version"
    )
    assert worker["config"]["workPool"] in {d["work_pool"]["name"] for d in load("prefect.yaml")["deployments"]}


def test_deployments_are_named_described_limited_and_importable() -> None:
    from prefect.cli.deploy._models import PrefectYamlModel

    model = PrefectYamlModel.model_validate(load("prefect.yaml"))
    assert model.pull == []
    assert len({(d.entrypoint, d.name) for d in model.deployments}) == len(model.deployments)
    assert {d.work_pool.name for d in model.deployments if d.work_pool} == {"process", "docker", "kubernetes"}
    for deployment in load("prefect.yaml")["deployments"]:
        assert deployment["description"] and "reflexion" in deployment["tags"]
        assert deployment["concurrency_limit"]["limit"] >= 1
        assert deployment["concurrency_limit"]["collision_strategy"] in ("ENQUEUE", "CANCEL_NEW")
        for schedule in deployment.get("schedules", ()):
            check_schedule(schedule["cron"], schedule["timezone"])
        shards = deployment.get("parameters", {}).get("parameters", {}).get("deployment")
        assert shards is None or any(
            f"evaluation-shard/{d.name}" == shards for d in model.deployments if "shard" in str(d.entrypoint)
        )
    # What is served without workers is what workers are given, but for single shards.
    entrypoints = {str(d.entrypoint) for d in model.deployments}
    assert {s.entrypoint for s in SERVED} == entrypoints - {"reflexion.flows.sharded.evaluation_shard"}


def test_automations_are_what_prefect_understands() -> None:
    from prefect.server.events.schemas.automations import AutomationCreate

    automations = {a["name"]: AutomationCreate.model_validate(a) for a in load("automations.yaml")["automations"]}
    assert set(automations) == {"reflexion-target-missed", "reflexion-retry-crashed-batch"}
    from reflexion.flows.monitoring import TARGET_MISSED

    assert automations["reflexion-target-missed"].trigger.expect == {TARGET_MISSED}


# -- reflexion serve ------------------------------------------------------------------------------------------


def test_what_is_served_has_limits_schemas_and_module_paths() -> None:
    made = make_deployments(nightly="problems.jsonl", llm="mock", cron="0 3 * * *", timezone="Europe/Berlin")
    assert len({(d.flow_name, d.name) for d in made}) == len(SERVED) + 1
    assert all(d.concurrency_limit and d.concurrency_options and d.description and d.tags for d in made)
    assert {d.entrypoint for d in made} == {s.entrypoint for s in SERVED}
    nightly = made[-1]
    assert nightly.parameters == {"parameters": {"dataset": "problems.jsonl", "llm": "mock"}}
    (schedule,) = nightly.schedules or ()
    assert (schedule.schedule.cron, schedule.schedule.timezone) == ("0 3 * * *", "Europe/Berlin")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"limit": 0}, "--limit: 0"),
        ({"timezone": "Europe/Berln"}, "did you mean Europe/Berlin"),
        ({"timezone": "Mars/Olympus Mons"}, "no time zone"),
        ({"cron": "every night"}, "--cron: 'every night'"),
        ({"cron": "61 2 * * *"}, "minute hour day month weekday"),
    ],
)
def test_what_cannot_be_served_is_named(arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigurationError, match=re.escape(said)):
        serve(**arguments)
