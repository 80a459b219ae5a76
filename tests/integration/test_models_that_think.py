"""Runs with models as people have them: they think before they speak, and their endpoints fail in ways of their own."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from reflexion import ReflexionAgent
from reflexion.errors import RunFailedError
from reflexion.run.batch_run import BatchResult, execute_batch
from reflexion.run.parameters import BatchParameters
from reflexion.run.run_folder import RunFolder
from reflexion.telemetry.empty_replies import ReplyCounter
from reflexion.types import Episode, Outcome
from tests.support.dialects import Speaking, completion, refused, strangers
from tests.support.evals import cli

HIDDEN = 900
"""Tokens the model thinks before it says a word."""


@pytest.fixture(autouse=True)
def unknown_models(monkeypatch: pytest.MonkeyPatch) -> None:
    strangers(monkeypatch)


def puzzles(path: Path, count: int, **fields: Any) -> str:
    rows = [
        {"id": f"p{i}", "prompt": f"RIDDLE-{i}: which number is it?", "answer": "42", **fields} for i in range(count)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def say(body: dict[str, Any]) -> str:
    """Knows the answer to a riddle once its own lesson names it; passes as a judge."""
    text = "\n".join(m["content"] for m in body["messages"])
    if "judge" in text.lower():
        return '{"reason": "it is right", "score": 10, "passed": true}'
    riddle = re.findall(r"RIDDLE-(\d+)", text)[-1]
    if re.search(r"\breflect", text, re.IGNORECASE):
        return f"HINT-{riddle}: count once more."
    return "42" if f"HINT-{riddle}" in text else "41"


def thinking(body: dict[str, Any], n: int) -> Any:
    """Refuses a temperature, calls its limit by another name, and thinks out of sight."""
    if body.get("temperature") is not None:
        return refused(422, "no temperature may be chosen here")
    if "max_tokens" in body:
        return refused(400, "say max_completion_tokens, not max_tokens")
    limit, prompt = body["max_completion_tokens"], 50
    spent = min(limit, HIDDEN + 5)
    usage = {"prompt_tokens": prompt, "completion_tokens": 0, "total_tokens": prompt + spent}
    if limit <= HIDDEN:
        return 200, completion("", "length", usage=usage)
    return 200, completion(say(body), usage=usage, message={"reasoning": "count them"})


@contextmanager
def endpoint(monkeypatch: pytest.MonkeyPatch, script: Any, **options: Any) -> Iterator[Speaking]:
    with Speaking(script, **options) as speaking:
        monkeypatch.setenv("OPENAI_BASE_URL", speaking.url)
        monkeypatch.setenv("OPENAI_API_KEY", "a-secret-key")
        yield speaking


def run(tmp_path: Path, dataset: str, **parameters: Any) -> BatchResult:
    given = {"llm": "thinker", "runs": str(tmp_path / "runs"), "cache": str(tmp_path / "cache")} | parameters
    return asyncio.run(execute_batch(BatchParameters(dataset=dataset, **given)))


def record(result: BatchResult) -> list[Episode]:
    return list(RunFolder.open(result.folder).episodes())


def test_a_thinking_model_solves_what_a_chat_model_solves(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with endpoint(monkeypatch, thinking, latency=0.01) as speaking:
        result = run(tmp_path, puzzles(tmp_path / "p.jsonl", 24), max_tokens=10**6)
    episodes = record(result)
    assert result.summary.solved == 24 and all(len(e.trials) == 2 for e in episodes)
    reflections = [r for e in episodes for r in e.reflections]
    assert len(reflections) == 24 and all(r.text.startswith("HINT") and r.error is None for r in reflections)
    # Two refusals and one reply that thinking used up, each once for the model.
    assert len(speaking.bodies) == 72 + 3
    assert episodes[0].trials[0].thought == "count them" and "count them" not in episodes[0].trials[0].answer
    assert not any("count them" in str(body["messages"]) for body in speaking.bodies)
    counter = ReplyCounter()
    for episode in episodes:
        counter.add(episode)
    assert counter.total.lines() == [
        (
            "Reasoning",
            "used up 1 reply (trials 1); all were answered with more room; raise --max-completion-tokens",
        )
    ]
    spent = sum(
        min(b["max_completion_tokens"], HIDDEN + 5) + 50
        for b in speaking.bodies
        if "max_completion_tokens" in b and "temperature" not in b
    )
    assert result.summary.tokens.prompt + result.summary.tokens.completion == spent


def test_a_thinking_judge_is_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with endpoint(monkeypatch, thinking) as speaking:
        result = run(tmp_path, puzzles(tmp_path / "p.jsonl", 4, answer=None, evaluator="judge"), judge_max_tokens=300)
    assert result.summary.solved == 4
    asked = [
        b["max_completion_tokens"]
        for b in speaking.bodies
        if "max_completion_tokens" in b and "strict" in str(b["messages"])
    ]
    assert asked and all(limit >= 300 + 1000 for limit in asked)


@pytest.mark.parametrize(
    ("script", "words"),
    [
        (lambda body, n: refused(402, "the purse is empty"), "the purse is empty"),
        (lambda body, n: refused(429, "pay first", kind="billing_stopped"), "pay first"),
        (
            lambda body, n: (400, [{"error": {"message": "which key?", "details": [{"reason": "KEY_REVOKED"}]}}]),
            "which key",
        ),
        (lambda body, n: (200, {"error": {"code": "invalid_api_key", "message": "what key?"}}), "what key"),
    ],
)
def test_an_endpoint_that_refuses_everybody_is_asked_little(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, script: Any, words: str
) -> None:
    with endpoint(monkeypatch, script, latency=0.02) as speaking:
        code, _, err = cli(
            "eval", puzzles(tmp_path / "p.jsonl", 40), "--direct", "--llm", "m", "--runs", str(tmp_path / "runs")
        )
    assert code == 1
    assert len(speaking.bodies) <= 20
    assert err.count(words) == 1


def test_a_run_of_which_nothing_came_ends_with_1_in_the_endpoints_words(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    script = lambda body, n: refused(400, "the moon is in the wrong house")  # noqa: E731
    with endpoint(monkeypatch, script):
        given = ("--direct", "--llm", "m", "--runs", str(tmp_path / "runs"), "--name", "r")
        code, _, err = cli("eval", puzzles(tmp_path / "p.jsonl", 3), *given)
    assert code == 1
    assert err.count("wrong house") == 1 and "every one of its 3 episodes" in err
    assert [e.outcome for e in RunFolder.open(tmp_path / "runs" / "r").episodes()] == [Outcome.ERROR] * 3


def test_a_run_of_which_something_came_is_no_failure(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def script(body: dict[str, Any], n: int) -> Any:
        return refused(400, "not this one") if "RIDDLE-1" in str(body) else (200, completion("42"))

    with endpoint(monkeypatch, script):
        result = run(tmp_path, puzzles(tmp_path / "p.jsonl", 3), llm="m")
    assert (result.summary.solved, result.summary.errors) == (2, 1)


def test_nothing_of_a_bad_hour_is_cached(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    bad = True

    def script(body: dict[str, Any], n: int) -> Any:
        if bad:
            return 200, completion("4", "the_line_went_dead", choice={"error": {"message": "gone"}})
        return 200, completion("42")

    monkeypatch.setenv("REFLEXION_MAX_ATTEMPTS", "2")
    with endpoint(monkeypatch, script) as speaking:
        dataset = puzzles(tmp_path / "p.jsonl", 3)
        with pytest.raises(RunFailedError, match="gone"):
            run(tmp_path, dataset, llm="m")
        bad, before = False, len(speaking.bodies)
        result = run(tmp_path, dataset, llm="m")
        assert len(speaking.bodies) - before == 3
    assert result.summary.solved == 3


def test_an_empty_reflection_is_told_and_never_replaced(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def script(body: dict[str, Any], n: int) -> Any:
        return 200, completion("" if "reflect" in str(body["messages"]) else "41")

    with endpoint(monkeypatch, script) as speaking:
        result = run(tmp_path, puzzles(tmp_path / "p.jsonl", 2), llm="m", max_trials=2)
    reflections = [r for e in record(result) for r in e.reflections]
    assert [(r.text, r.error) for r in reflections] == [("", "EmptyReply: the model answered with nothing")] * 2
    assert not any("Lessons" in str(body["messages"]) for body in speaking.bodies)
    counter = ReplyCounter()
    for episode in record(result):
        counter.add(episode)
    assert counter.total.lines() == [("Empty reflections", "2 of 2")]


@pytest.mark.parametrize(
    "nothing",
    [completion(None), completion(None, message={"reasoning": "hm"}), completion("", message={"refusal": "no"})],
)
def test_a_reflection_that_did_not_come_is_asked_for_again_by_the_next_run(
    nothing: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    well: list[bool] = []

    def script(body: dict[str, Any], n: int) -> Any:
        return 200, completion(say(body)) if well or "reflect" not in str(body["messages"]) else nothing

    dataset = puzzles(tmp_path / "p.jsonl", 1)
    with endpoint(monkeypatch, script):
        first = run(tmp_path, dataset, llm="m", max_trials=2, name="first")
        well.append(True)
        second = run(tmp_path, dataset, llm="m", max_trials=2, name="second")
    assert (first.summary.solved, second.summary.solved) == (0, 1)
    (episode,) = record(second)
    assert episode.trials[0].cached and not episode.reflections[0].cached


def test_options_of_a_provider_reach_every_request_and_no_record(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    given = (
        "--extra-body", '{"top_k": 3}', "--extra-header", "X-Tenant=blue-secret", "--extra-header=X-Team=red-secret",
        "--reasoning-effort", "low", "--max-completion-tokens", "300", "--reflection-max-tokens", "40",
        "--direct", "--llm", "m", "--runs", str(tmp_path / "runs"), "--name", "r",
    )  # fmt: skip
    with endpoint(monkeypatch, lambda body, n: (200, completion(say(body)))) as speaking:
        code, out, err = cli("eval", puzzles(tmp_path / "p.jsonl", 2), *given)
    assert code == 0, err
    assert all(b["top_k"] == 3 and b["reasoning_effort"] == "low" for b in speaking.bodies)
    assert {b["max_tokens"] for b in speaking.bodies} == {300, 40}
    assert {(h["x-tenant"], h["x-team"]) for h in speaking.headers} == {("blue-secret", "red-secret")}
    shown = out + err
    files = [p.read_text(errors="replace") for p in (tmp_path / "runs").rglob("*") if p.is_file()]
    assert not any("-secret" in text for text in [shown, *files])


def test_an_extra_body_that_is_no_json_is_one_clear_error(tmp_path: Path) -> None:
    code, _, err = cli("eval", puzzles(tmp_path / "p.jsonl", 1), "--direct", "--llm", "m", "--extra-body", "{top_k: 3}")
    assert code == 2
    assert err.startswith("reflexion: error: --extra-body: not JSON") and err.count("\n") == 1


def test_what_is_sent_along_is_part_of_the_cache_key(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    dataset, calls = puzzles(tmp_path / "p.jsonl", 1), []
    with endpoint(monkeypatch, lambda body, n: (200, completion("42"))) as speaking:
        for extra, headers in ((None, None), ({"top_k": 3}, None), ({"top_k": 3}, None), ({"top_k": 3}, "X-A=b")):
            if headers:
                monkeypatch.setenv("REFLEXION_EXTRA_HEADERS", headers)
            run(tmp_path, dataset, llm="m", extra_body=extra)
            calls.append(len(speaking.bodies))
    assert calls == [1, 2, 2, 3]


def test_an_agent_takes_the_same_options(monkeypatch: pytest.MonkeyPatch) -> None:
    with endpoint(monkeypatch, lambda body, n: (200, completion(say(body)))) as speaking:
        agent = ReflexionAgent(
            llm="m", max_trials=2, evaluator="judge", judge_max_tokens=70, reasoning_effort="high",
            extra_body={"top_k": 3}, extra_headers={"X-A": "b"}, cache=False,
        )  # fmt: skip
        assert agent.run("RIDDLE-1: which number is it?").solved
        agent.close()
    assert [b["max_tokens"] for b in speaking.bodies] == [512, 70]
    assert all(b["top_k"] == 3 and b["reasoning_effort"] == "high" for b in speaking.bodies)
    assert {h["x-a"] for h in speaking.headers} == {"b"}


def test_prompts_follow_a_window_that_is_told_in_the_midst_of_a_run(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    window = 700

    def script(body: dict[str, Any], n: int) -> Any:
        prompt = sum(len(m["content"]) for m in body["messages"]) // 4
        if prompt + body["max_tokens"] > window:
            return refused(400, f"{prompt + body['max_tokens']} tokens do not fit into the {window} of the window")
        lesson = "reflect" in str(body["messages"])
        return 200, completion(
            "HINT " + "so it is " * 300 if lesson else "41 " * 600,
            usage={"prompt_tokens": prompt, "completion_tokens": 9},
        )

    with endpoint(monkeypatch, script) as speaking:
        given = {"llm": "m", "max_trials": 4, "strategy": "last_attempt_and_reflexion"}
        result = run(tmp_path, puzzles(tmp_path / "p.jsonl", 2), **given)
        assert (result.summary.errors, result.summary.failed) == (0, 2)
        asked = len(speaking.bodies)
        again = run(tmp_path, puzzles(tmp_path / "p.jsonl", 2), **given)
    # What a run learns of a window is in no key.
    assert len(speaking.bodies) == asked and again.summary.llm_calls == 0
    assert asked <= 2 * 7 + 4


def test_generated_tests_have_a_limit_of_their_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    code = "```python\ndef double(n):\n    return 2 * n\n```"

    def script(body: dict[str, Any], n: int) -> Any:
        writes = "unit tests" in str(body["messages"])
        return 200, completion("```python\nassert double(2) == 4\n```" if writes else code)

    row = {"id": "d", "prompt": "Write double(n).", "entry_point": "double", "tests": "assert double(3) == 6"}
    (tmp_path / "d.jsonl").write_text(json.dumps(row) + "\n")
    with endpoint(monkeypatch, script) as speaking:
        result = run(tmp_path, str(tmp_path / "d.jsonl"), llm="m", evaluator="generated", tests_max_tokens=99)
    assert result.summary.solved == 1
    assert sorted(b["max_tokens"] for b in speaking.bodies) == [99, 512]
