"""Steps: what their cache keys are made of, what is cached, and what a broken reply becomes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from reflexion.errors import EndpointError, MalformedReplyError, RefusalError
from reflexion.evaluators import resolve_evaluator
from reflexion.keys import differences
from reflexion.llm.chat_model import ChatReply, Sampling
from reflexion.loop.algorithm import Attempt
from reflexion.loop.prompts import DEFAULT_PROMPTS, Prompts
from reflexion.loop.steps import EpisodeOptions, Runtime, StepCall, build_steps, perform
from reflexion.loop.strategies import Past
from reflexion.run.cached_steps import entry_for
from reflexion.testing import ScriptedLLM
from reflexion.types import Evaluation, Problem, Reflection, StepName, Strategy, Trial, Usage

PROBLEM = Problem(id="p", prompt="What is six times seven?", answer="42")
FAILED = Trial(index=1, answer="41", evaluation=Evaluation(evaluator="exact", passed=False, score=0, feedback="Wrong."))


def runtime(llm: ScriptedLLM | None = None, **more: Any) -> Runtime:
    model = llm or ScriptedLLM()

    def evaluator(problem: Problem) -> Any:
        return resolve_evaluator(None, problem, judge=model)

    given: dict[str, Any] = {"options": EpisodeOptions(), "actor": lambda i: model, "reflector": model}
    return Runtime(**(given | {"evaluator": evaluator} | more))


def call(step: StepName = "trial", run: Runtime | None = None, **attempt: Any) -> StepCall:
    given: dict[str, Any] = {"problem": PROBLEM, "index": 1, "repeat": 0, "past": Past()}
    return StepCall(run or runtime(), step, Attempt(**(given | attempt)), None if step == "trial" else FAILED)


# -- cache keys ----------------------------------------------------------------------------------------

CHANGES: dict[str, tuple[StepCall, str]] = {
    "prompt": (call(problem=PROBLEM.model_copy(update={"prompt": "What is 6 x 7?"})), "problem"),
    "reference answer": (call(problem=PROBLEM.model_copy(update={"answer": "43"})), "problem"),
    "trial": (call(index=2), "trial"),
    "repeat": (call(repeat=1), "repeat"),
    "lessons": (call(past=Past(lessons=("Count.",))), "lessons"),
    "last attempt": (call(past=Past(last=FAILED)), "last"),
    "model": (call(run=runtime(ScriptedLLM(model="other"))), "model.model"),
    "sampling": (call(run=runtime(options=EpisodeOptions(sampling=Sampling(temperature=1)))), "sampling.temperature"),
    "templates": (call(run=runtime(prompts=Prompts(lessons="Learned:"))), "prompt"),
    "actor": (call(run=runtime(options=EpisodeOptions(actor="cot"))), "actor"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_shapes_a_trial_is_in_its_key(change: str) -> None:
    changed, field = CHANGES[change]
    assert changed.key != call().key
    assert [name for name, _, _ in differences(call().fields, changed.fields)] == [field]


@pytest.mark.parametrize(
    "same",
    [
        call(problem=PROBLEM.model_copy(update={"id": "q", "metadata": {"source": "elsewhere"}})),
        call(run=runtime(run="another run", dataset="another dataset")),
        call(run=runtime(options=EpisodeOptions(max_trials=9, strategy=Strategy.NONE))),
        call(run=runtime(prompts=Prompts(reflect="Why? {prompt} {answer} {feedback}"))),
    ],
    ids=["id and metadata", "run and dataset", "number of trials", "templates of reflections"],
)
def test_what_does_not_shape_a_trial_is_not(same: StepCall) -> None:
    assert same.key == call().key


def test_a_changed_copy_of_a_problem_has_a_digest_of_its_own() -> None:
    digest = PROBLEM.digest
    assert PROBLEM.model_copy(update={"prompt": "Another?"}).digest != digest == PROBLEM.model_copy().digest


def test_steps_have_keys_of_their_own() -> None:
    assert len({call(step).key for step in ("trial", "evaluate", "reflect")}) == 3


def test_a_judge_s_verdicts_differ_by_repeat_and_a_test_s_do_not() -> None:
    open_question = Problem(id="o", prompt="Name a prime.")
    tested = Problem(id="t", prompt="Write f.", tests="assert f() == 1", entry_point="f")
    for problem, shared in ((open_question, False), (tested, True)):
        keys = {call("evaluate", problem=problem, repeat=repeat).key for repeat in (0, 1)}
        assert (len(keys) == 1) is shared


@pytest.mark.parametrize(
    ("step", "problem", "cacheable"),
    [
        ("trial", PROBLEM, True),
        ("reflect", PROBLEM, True),
        ("memorize", PROBLEM, False),
        ("evaluate", PROBLEM, False),
        ("evaluate", Problem(id="t", prompt="Write f.", tests="assert f() == 1"), True),
        ("evaluate", Problem(id="o", prompt="Name a prime."), True),
    ],
)
def test_expensive_steps_are_cached_and_cheap_ones_are_not(step: StepName, problem: Problem, cacheable: bool) -> None:
    assert call(step, problem=problem).cacheable is cacheable


def test_no_secret_is_in_a_key() -> None:
    from reflexion.llm.endpoint.openai_chat import OpenAIChat

    llm = OpenAIChat("m", "http://user:hidden@127.0.0.1:9/v1", "sk-hidden")
    fields = call(run=runtime(llm)).fields  # type: ignore[arg-type]
    assert "hidden" not in str(fields)


# -- carrying out --------------------------------------------------------------------------------------


async def test_a_trial_takes_the_reply_s_figures() -> None:
    llm = ScriptedLLM([ChatReply(text="42", model="m", usage=Usage(prompt=7, completion=2, calls=1), attempts=3)])
    trial = await perform(call(run=runtime(llm)))
    assert isinstance(trial, Trial)
    assert (trial.answer, trial.usage.total, trial.attempts, trial.model) == ("42", 9, 3, "m")


@pytest.mark.parametrize("error", [MalformedReplyError("no choices"), RefusalError("filtered")])
async def test_a_reply_without_an_answer_is_a_failed_trial_that_says_why(error: Exception) -> None:
    trial = await perform(call(run=runtime(ScriptedLLM([error]))))
    assert isinstance(trial, Trial)
    assert trial.answer == "" and trial.error is not None and str(error) in trial.error


async def test_an_endpoint_that_fails_is_an_error() -> None:
    with pytest.raises(EndpointError):
        await perform(call(run=runtime(ScriptedLLM([EndpointError("boom")]))))


@pytest.mark.parametrize("reply", ["", "   \n", RefusalError("filtered"), MalformedReplyError("no choices")])
async def test_a_reflection_that_fails_is_told_as_such(reply: str | Exception) -> None:
    reflection = await perform(call("reflect", run=runtime(ScriptedLLM([reply]))))
    assert isinstance(reflection, Reflection)
    assert reflection.text == "" and reflection.error


async def test_repeats_and_trials_have_salts_of_their_own() -> None:
    # So that a recording tells them apart, though their prompts may be the same.
    llm = ScriptedLLM(lambda request: "41")
    for repeat, index in ((0, 1), (0, 2), (1, 1)):
        await perform(call(run=runtime(llm), repeat=repeat, index=index))
    assert len({request.salt for request in llm.requests}) == 3


async def test_an_entry_of_another_trial_takes_this_trial_s_index() -> None:
    async def cached(step: StepCall) -> Trial:
        return Trial(index=7, answer="42", cached=True)

    steps = build_steps(runtime(), cached)
    assert (await steps.trial(Attempt(PROBLEM, 2, 0, Past()))).index == 2


async def test_observers_hear_of_steps_and_of_errors() -> None:
    heard: list[tuple[str, str]] = []

    class Observer:
        def record_step(self, step: StepName, output: object, wall_seconds: float) -> None:
            heard.append((step, type(output).__name__))

        def record_error(self, step: StepName, error: BaseException) -> None:
            heard.append((step, type(error).__name__))

    run = replace(runtime(ScriptedLLM(["42", EndpointError("boom")])), observers=(Observer(),))
    steps = build_steps(run)
    await steps.trial(Attempt(PROBLEM, 1, 0, Past()))
    with pytest.raises(EndpointError):
        await steps.trial(Attempt(PROBLEM, 2, 0, Past()))
    assert heard == [("trial", "Trial"), ("trial", "EndpointError")]


def test_the_default_templates_are_the_ones_their_digests_name() -> None:
    assert Prompts().trial_digest == DEFAULT_PROMPTS.trial_digest
    assert Prompts().reflect_digest == DEFAULT_PROMPTS.reflect_digest


def test_a_verdict_that_the_machine_may_be_to_blame_for_is_not_kept() -> None:
    judged = Evaluation(evaluator="exact", passed=False, score=0, feedback="Too slow.")
    kept = entry_for(call("evaluate"), judged, 60.0)
    assert kept.expires is not None and kept.expires > kept.created
    uncertain = entry_for(call("evaluate"), judged.model_copy(update={"uncertain": True}), 60.0)
    assert uncertain.expires == uncertain.created
