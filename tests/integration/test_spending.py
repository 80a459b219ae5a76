"""What a run spends: limits that hold, sums that agree with the endpoint's own, and replies that are no use."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from reflexion.llm.endpoint.openai_chat import OpenAIChat
from reflexion.run.batch_run import BatchResult
from reflexion.run.run_folder import RunFolder
from reflexion.testing import ScriptedEndpoint
from reflexion.types import Episode
from tests.support.evals import evaluate, write_problems

AT_ONCE = 4


def records(result: BatchResult) -> list[Episode]:
    """The episodes of a run."""
    return list(RunFolder.open(result.folder).episodes())


def test_a_limit_holds_within_a_round_of_calls_and_sums_are_the_endpoints(
    openai_endpoint: ScriptedEndpoint, tmp_path: Path
) -> None:
    limit = 900
    dataset = write_problems(tmp_path / "problems.jsonl", 12)
    result = evaluate("direct", dataset, max_tokens=limit, concurrency=AT_ONCE)
    stats = openai_endpoint.stats
    counted = stats.prompt_tokens + stats.completion_tokens
    assert result.stopped is not None and "--max-tokens" in result.stopped
    assert limit - counted / stats.answered <= counted <= limit + AT_ONCE * counted / stats.answered * 2
    assert sum(episode.usage.total for episode in records(result)) == counted
    assert result.summary.tokens.prompt + result.summary.tokens.completion == counted
    assert result.summary.not_run and result.summary.solved


def test_changes_of_the_limit_are_on_record_for_every_session_of_a_run(
    openai_endpoint: ScriptedEndpoint, tmp_path: Path
) -> None:
    dataset = write_problems(tmp_path / "problems.jsonl", 4)
    for session, limit in enumerate((10, 100_000), 1):
        openai_endpoint.faults.append("429")
        result = evaluate("direct", dataset, name="limits", max_tokens=limit)
        changes = json.loads((result.folder / "concurrency.json").read_text())
        assert [(c["old"], c["new"], c["why"]) for c in changes] == [(20, 16, "429")] * session
    assert "The limit changed 2 times" in (result.folder / "report.html").read_text()


def test_a_client_is_made_ready_before_the_first_episode_unless_its_steps_are_cached(
    openai_endpoint: ScriptedEndpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    warmed: list[int] = []
    warm_up = OpenAIChat.warm_up

    async def counted(llm: OpenAIChat) -> None:
        await warm_up(llm)
        warmed.append(openai_endpoint.stats.calls)

    monkeypatch.setattr(OpenAIChat, "warm_up", counted)
    dataset = write_problems(tmp_path / "problems.jsonl", 2)
    evaluate("direct", dataset, name="first", record=str(tmp_path / "tape.jsonl"))
    assert warmed == [0]
    evaluate("direct", dataset, name="second")
    assert warmed == [0]


BAD: dict[str, tuple[str | None, str | None]] = {
    "no_usage": (None, None),
    "length": (None, None),
    "no_choices": (None, "EndpointError"),
    "no_content": ("without content", None),
    "stream": (None, None),
    "refusal": ("refused", None),
    "invalid_utf8": (None, None),
    "html": (None, "EndpointError"),
    "error_in_200": (None, "EndpointError"),
    "close": (None, "EndpointError"),
    "close_mid_body": (None, "EndpointError"),
}
"""What a reply of no use leads to: the reason the trial failed for, or the error that was retried."""


@pytest.mark.parametrize("fault", BAD)
def test_a_reply_of_no_use_fails_its_trial_or_is_asked_again_and_the_run_goes_on(
    fault: Any, openai_endpoint: ScriptedEndpoint, tmp_path: Path
) -> None:
    reason, retried = BAD[fault]
    openai_endpoint.answer = lambda prompt: "42"
    # One at a time and one trial each: the first problem's first call meets the fault.
    openai_endpoint.faults.append(fault)
    dataset = write_problems(tmp_path / "problems.jsonl", 3)
    result = evaluate("direct", dataset=dataset, concurrency=1, max_trials=1)
    met, *others = (episode.trials[0] for episode in sorted(records(result), key=lambda e: e.problem_id))
    assert (met.error is None) == (reason is None), met.error
    assert reason is None or (met.error and reason in met.error), met.error
    assert met.retried == ((retried,) if retried else ())
    assert met.attempts == (2 if retried else 1)
    assert all(trial.error is None and trial.attempts == 1 for trial in others)
    if fault == "no_usage":
        assert met.usage.unknown == 1
    if fault == "length":
        assert met.finish_reason == "length"
    assert (result.summary.episodes, result.summary.errors) == (3, 0)
    # The stream it was answered with holds half an answer.
    assert result.summary.solved == 2 + (reason is None and fault != "stream")
