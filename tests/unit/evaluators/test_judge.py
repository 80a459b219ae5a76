"""A language model as the judge."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import pytest

from reflexion.errors import MalformedReplyError, RateLimitError, ReplyCutError
from reflexion.evaluators import resolve_evaluator
from reflexion.evaluators.judge import parse_judge
from reflexion.llm.chat_model import LLM, ChatReply, ChatRequest
from reflexion.types import Evaluation, Problem, Trial, Usage

PROBLEM = Problem(id="p", prompt="Capital of France?", answer="Paris")
OPEN = Problem(id="p", prompt="Write a haiku.")


class Scripted:
    """Answers each request by a function and keeps the requests."""

    model = "judge-model"
    identity: ClassVar[dict[str, Any]] = {"model": "judge-model"}

    def __init__(self, answer: Callable[[int, ChatRequest], str]) -> None:
        self.answer = answer
        self.requests: list[ChatRequest] = []

    async def chat(self, request: ChatRequest) -> ChatReply:
        self.requests.append(request)
        text = self.answer(len(self.requests) - 1, request)
        return ChatReply(text=text, model=self.model, usage=Usage(prompt=10, completion=5, calls=1, cost_usd=0.5))

    async def aclose(self) -> None:
        pass


async def judge(spec: str, model: LLM, problem: Problem = OPEN, answer: str = "text", **options: Any) -> Evaluation:
    evaluator = resolve_evaluator(spec, problem, judge=model, **options)
    return await evaluator.evaluate(problem, Trial(index=2, answer=answer))


async def test_a_rubric_verdict_and_its_cost() -> None:
    model = Scripted(lambda n, r: '{"reason": "Too long.", "score": 4, "passed": false}')
    evaluation = await judge("judge:rubric=Be short, be kind.", model)
    assert (evaluation.passed, evaluation.score, evaluation.feedback) == (False, 0.4, "Too long.")
    assert evaluation.usage == Usage(prompt=10, completion=5, calls=1, cost_usd=0.5)
    assert evaluation.model == "judge-model"
    (request,) = model.requests
    assert request.role == "judge" and request.json_schema is not None
    assert "Be short, be kind." in request.messages[-1].content


async def test_the_majority_decides_and_each_vote_is_asked_for_itself() -> None:
    votes = ["true", "false", "true"]
    model = Scripted(lambda n, r: f'{{"reason": "r{n}", "score": 8, "passed": {votes[n]}}}')
    evaluation = await judge("judge:3", model)
    assert evaluation.passed and evaluation.details["votes_passed"] == 2
    assert evaluation.usage.calls == 3
    assert len({r.salt for r in model.requests}) == 3
    assert all(r.sampling.temperature for r in model.requests)


async def test_a_tie_fails() -> None:
    model = Scripted(lambda n, r: f'{{"reason": "r", "score": 5, "passed": {"true" if n else "false"}}}')
    assert not (await judge("judge:2", model)).passed


@pytest.mark.parametrize(
    ("preferred", "passed", "score"),
    [("ours", True, 1.0), ("reference", False, 0.0), ("first", True, 0.5), ("tie", True, 0.5)],
)
async def test_pairwise_is_asked_in_both_orders(preferred: str, passed: bool, score: float) -> None:
    def answer(n: int, request: ChatRequest) -> str:
        ours_first = request.messages[-1].content.index("Lyon") < request.messages[-1].content.index("Paris")
        better = {
            "ours": "A" if ours_first else "B",
            "reference": "B" if ours_first else "A",
            "first": "A",
            "tie": "tie",
        }
        return f'{{"reason": "because", "better": "{better[preferred]}"}}'

    model = Scripted(answer)
    evaluation = await judge("judge:pairwise", model, PROBLEM, "Lyon")
    assert (evaluation.passed, evaluation.score) == (passed, score)
    assert len(model.requests) == 2


def test_pairwise_needs_a_reference() -> None:
    model = Scripted(lambda n, r: "")
    reason = resolve_evaluator("judge:pairwise", OPEN, judge=model).check(OPEN)
    assert reason is not None and "answer" in reason
    assert resolve_evaluator("judge", OPEN, judge=model).check(OPEN) is None


async def test_the_reason_does_not_give_the_reference_away() -> None:
    model = Scripted(lambda n, r: '{"reason": "It is paris, not Lyon.", "score": 0, "passed": false}')
    hidden = await judge("judge", model, PROBLEM, "Lyon")
    assert "paris" not in hidden.feedback.lower() and "Lyon" in hidden.feedback
    assert "paris" in (await judge("judge", model, PROBLEM, "Lyon", reveal_answers=True)).feedback


async def test_agreement_with_the_reference_is_noted() -> None:
    model = Scripted(lambda n, r: '{"reason": "", "score": 10, "passed": true}')
    assert (await judge("judge", model, PROBLEM, "Paris")).details["exact_match"] is True
    assert (await judge("judge", model, PROBLEM, "Lyon")).details["exact_match"] is False
    assert "exact_match" not in (await judge("judge", model)).details


async def test_a_reply_that_is_no_verdict_is_sent_back_once() -> None:
    model = Scripted(lambda n, r: "Hmm." if n == 0 else '{"passed": true, "score": 10, "reason": ""}')
    evaluation = await judge("judge", model)
    assert evaluation.passed and evaluation.usage.calls == evaluation.attempts == 2
    assert [m.role for m in model.requests[1].messages[-2:]] == ["assistant", "user"]
    assert model.requests[1].messages[-2].content == "Hmm."


async def test_no_verdict_at_all_is_a_failed_trial_with_that_feedback() -> None:
    model = Scripted(lambda n, r: "Hmm.")
    evaluation = await judge("judge", model)
    assert not evaluation.passed and evaluation.failure_class == "MalformedReplyError"
    assert "judge-model" in evaluation.feedback and "Hmm." in evaluation.feedback
    assert evaluation.uncertain  # the judge's failure: no later run is told of it
    assert evaluation.usage.calls == len(model.requests) == 2


async def test_what_cut_a_verdict_stands_on_its_record() -> None:
    def answer(number: int, request: ChatRequest) -> str:
        raise ReplyCutError("the limit was used up")

    evaluation = await judge("judge", Scripted(answer))
    assert evaluation.retried == ("ReplyCutError", "ReplyCutError") and evaluation.usage.calls == 2


async def test_unreadable_votes_do_not_count() -> None:
    model = Scripted(lambda n, r: "Hmm." if r.salt.endswith(".0") else '{"passed": true, "score": 10, "reason": ""}')
    evaluation = await judge("judge:2", model)
    assert evaluation.passed and evaluation.details["votes"] == 1


async def test_an_error_of_the_judge_is_raised_as_it_is() -> None:
    def answer(number: int, request: ChatRequest) -> str:
        raise RateLimitError("too many") if number else MalformedReplyError("no choices")

    with pytest.raises(RateLimitError):
        await judge("judge:3", Scripted(answer))


async def test_a_judge_may_think_aloud() -> None:
    model = Scripted(lambda n, r: '<think>{"passed": false}</think>{"passed": true, "score": 10, "reason": ""}')
    assert (await judge("judge", model)).passed


async def test_what_the_agent_thought_is_not_judged() -> None:
    model = Scripted(lambda n, r: '{"passed": true, "score": 10, "reason": ""}')
    await judge("judge", model, OPEN, "<think>Secret drafts.</think>Old pond")
    assert "Old pond" in model.requests[0].messages[-1].content
    assert "Secret" not in model.requests[0].messages[-1].content


@pytest.mark.parametrize("reply", ["[" * 1_500, '{"passed": {"a":' * 700, '"' * 999, "<think>passed: true"])
async def test_no_reply_of_a_judge_is_more_than_a_failed_verdict(reply: str) -> None:
    model = Scripted(lambda n, r: reply)
    evaluation = await judge("judge", model)
    assert (evaluation.passed, evaluation.failure_class, len(model.requests)) == (False, "MalformedReplyError", 2)


def test_options() -> None:
    options = parse_judge("pairwise,5,rubric=a, b")
    assert (options.mode, options.votes, options.rubric) == ("pairwise", 5, "a, b")


def test_what_changes_verdicts_is_in_the_key() -> None:
    model = Scripted(lambda n, r: "")
    configs = [resolve_evaluator(s, PROBLEM, judge=model).config for s in ("judge", "judge:3", "judge:rubric=x")]
    assert len({str(c) for c in configs}) == 3
    assert all(c["model"] == model.identity for c in configs)
