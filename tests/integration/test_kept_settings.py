"""Secrets and values kept on the Prefect server: used by runs, never shown, and clear errors when missing."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from prefect.blocks.system import Secret
from prefect.variables import Variable

from reflexion.testing import ScriptedEndpoint
from tests.redis_server import RedisServer
from tests.support.evals import cli, write_problems
from tests.support.prefect_server import PrefectServer
from tests.support.records import flow_run_of

KEY, PASSWORD = "sk-kept-in-a-block-41c7", "kept-password-9d02"

pytestmark = [
    pytest.mark.prefect,
    pytest.mark.filterwarnings("ignore:unclosed (<socket|transport):ResourceWarning"),
    pytest.mark.filterwarnings("ignore:Exception ignored in:pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture
def locked_redis() -> Iterator[RedisServer]:
    with RedisServer.start(PASSWORD) as server:
        yield server


def test_a_run_uses_what_the_server_keeps_and_shows_none_of_it(
    prefect_server: PrefectServer,
    locked_redis: RedisServer,
    endpoint: ScriptedEndpoint,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    isolated: Path,
) -> None:
    Secret(value=KEY).save("test-llm-key", overwrite=True)
    Secret(value=locked_redis.url).save("test-redis-url", overwrite=True)
    Variable.set("test_time_to_live", "2d", overwrite=True)
    endpoint.api_key = KEY
    monkeypatch.setenv("OPENAI_BASE_URL", endpoint.url)
    monkeypatch.setenv("OPENAI_API_KEY", "secret:test-llm-key")
    monkeypatch.setenv("REFLEXION_CACHE", "secret:test-redis-url")
    monkeypatch.setenv("REFLEXION_TTL", "variable:test_time_to_live")
    dataset = write_problems(tmp_path / "problems.jsonl", 2)

    code, out, err = cli("eval", dataset, "--llm", "mock", "--name", "kept", "--json", "--verbose")

    assert code == 0, err
    assert (json.loads(out)["solved"], json.loads(out)["errors"]) == (2, 0)
    shown = out + err + str(flow_run_of(prefect_server, dataset))
    code, out, err = cli("doctor", "--json")
    checks = {check["name"]: check for check in json.loads(out)["checks"]}
    assert checks["OPENAI_API_KEY"]["text"].endswith("'test-llm-key' (from environment): not shown")
    assert checks["REFLEXION_TTL"]["text"].endswith("'test_time_to_live' (from environment): 2d")
    assert checks["step cache"]["state"] == "ok"
    shown += out + err + cli("cache", "stats")[1]
    assert "hit rate" in shown, "the cache's commands look it up too"
    assert KEY not in shown and PASSWORD not in shown
    files = [p for folder in (tmp_path, isolated) for p in folder.rglob("*") if p.is_file()]
    assert [p for p in files if KEY.encode() in p.read_bytes() or PASSWORD.encode() in p.read_bytes()] == []

    import redis

    with redis.Redis.from_url(locked_redis.url) as client:
        ttls = [t for t in (client.ttl(name) for name in client.scan_iter()) if isinstance(t, int) and t > 0]
    assert max(ttls) <= 2 * 86_400, "the variable's time to live is the one that counts"


def test_a_missing_block_is_named_on_the_command_line_and_in_the_state(
    prefect_server: PrefectServer, endpoint: ScriptedEndpoint, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", endpoint.url)
    monkeypatch.setenv("OPENAI_API_KEY", "secret:no-such-block")
    said = "OPENAI_API_KEY stands for Prefect's Secret block 'no-such-block', which is not on the server"
    code, _, err = cli("eval", write_problems(tmp_path / "p.jsonl", 1), "--llm", "mock")
    assert code == 2 and f"error: {said}; make it in the UI under Blocks" in err and "Traceback" not in err

    from reflexion.errors import ConfigurationError
    from reflexion.flows.batch import batch_evaluation
    from reflexion.run.parameters import BatchParameters

    dataset = write_problems(tmp_path / "q.jsonl", 1)
    with pytest.raises(ConfigurationError, match="no-such-block"):
        batch_evaluation.run(BatchParameters(dataset=dataset, llm="mock"))
    assert said in flow_run_of(prefect_server, dataset)["state"]["message"]
    monkeypatch.setenv("REFLEXION_MEMORY", "variable:no_such_variable")
    code, out, _ = cli("doctor", "--json")
    broken = {c["name"]: c["mend"] for c in json.loads(out)["checks"] if c["state"] == "broken"}
    assert code == 1 and said in broken["OPENAI_API_KEY"] and "prefect variable set" in broken["REFLEXION_MEMORY"]
