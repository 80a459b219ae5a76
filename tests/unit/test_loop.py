"""The loop over scripted steps: what it calls, in which order, and how episodes end."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from reflexion.errors import AuthenticationError, BudgetExceededError, EndpointError
from reflexion.loop.algorithm import Attempt, Steps, run_episode
from reflexion.types import Episode, Evaluation, Lesson, Outcome, Problem, Reflection, Strategy, Trial

PROBLEM = Problem(id="p", prompt="6 x 7?", answer="42")


class Script:
    """Steps that answer from a list and note every call."""

    def __init__(self, answers: Sequence[str], *, fail: dict[str, Exception] | None = None) -> None:
        self.answers, self.fail = list(answers), fail or {}
        self.calls: list[str] = []
        self.seen: list[Attempt] = []

    def _note(self, step: str) -> None:
        self.calls.append(step)
        if step in self.fail:
            raise self.fail[step]

    async def trial(self, attempt: Attempt) -> Trial:
        self._note("trial")
        self.seen.append(attempt)
        return Trial(index=attempt.index, answer=self.answers[attempt.index - 1], lessons=attempt.past.lessons)

    async def evaluate(self, attempt: Attempt, trial: Trial) -> Evaluation:
        self._note("evaluate")
        passed = trial.answer == "42"
        return Evaluation(evaluator="exact", passed=passed, score=float(passed), feedback="" if passed else "wrong")

    async def reflect(self, attempt: Attempt, trial: Trial) -> Reflection:
        self._note("reflect")
        return Reflection(trial=attempt.index, text=f"lesson {attempt.index}")

    async def memorize(self, attempt: Attempt, trial: Trial) -> None:
        self._note("memorize")

    async def run(self, **options: object) -> Episode:
        steps = Steps(self.trial, self.evaluate, self.reflect, self.memorize)
        return await run_episode(PROBLEM, steps, **options)  # type: ignore[arg-type]


async def test_a_first_trial_that_passes_ends_the_episode() -> None:
    script = Script(["42"])
    episode = await script.run(max_trials=3)
    assert script.calls == ["trial", "evaluate"]
    assert (episode.outcome, episode.solved_at, episode.answer) == (Outcome.SOLVED, 1, "42")


async def test_the_reflection_on_a_failed_trial_reaches_the_next() -> None:
    script = Script(["41", "40", "42"])
    episode = await script.run(max_trials=3)
    assert script.calls == ["trial", "evaluate", "reflect", "memorize"] * 2 + ["trial", "evaluate"]
    assert [a.past.lessons for a in script.seen] == [(), ("lesson 1",), ("lesson 2", "lesson 1")]
    assert episode.solved_at == 3
    assert [r.text for r in episode.reflections] == ["lesson 1", "lesson 2"]


async def test_the_last_trial_is_not_reflected_upon() -> None:
    script = Script(["1", "2"])
    episode = await script.run(max_trials=2)
    assert script.calls.count("reflect") == 1
    assert (episode.outcome, episode.solved_at, len(episode.trials)) == (Outcome.FAILED, None, 2)


@pytest.mark.parametrize(
    ("strategy", "reflections", "last"),
    [
        (Strategy.NONE, 0, False),
        (Strategy.LAST_ATTEMPT, 0, True),
        (Strategy.REFLEXION, 1, False),
        (Strategy.LAST_ATTEMPT_AND_REFLEXION, 1, True),
    ],
)
async def test_strategies_decide_what_the_second_trial_sees(strategy: Strategy, reflections: int, last: bool) -> None:
    script = Script(["41", "42"])
    episode = await script.run(max_trials=2, strategy=strategy)
    past = script.seen[1].past
    assert len(past.lessons) == reflections == len(episode.reflections)
    assert (past.last.answer if past.last else None) == ("41" if last else None)


@pytest.mark.parametrize("step", ["trial", "evaluate", "reflect", "memorize"])
async def test_an_error_ends_the_episode_and_keeps_what_was_done(step: str) -> None:
    script = Script(["41", "42"], fail={step: EndpointError("boom")})
    episode = await script.run(max_trials=2)
    assert episode.outcome is Outcome.ERROR
    assert episode.error is not None
    assert (episode.error.step, episode.error.kind, episode.error.fatal) == (step, "EndpointError", False)
    assert len(episode.trials) == (0 if step == "trial" else 1)


async def test_a_wrong_key_is_fatal() -> None:
    episode = await Script([], fail={"trial": AuthenticationError("401")}).run()
    assert episode.error is not None and episode.error.fatal


async def test_an_episode_stopped_by_a_budget_was_not_run() -> None:
    episode = await Script([], fail={"trial": BudgetExceededError("$5.00 spent")}).run()
    assert episode.outcome is Outcome.NOT_RUN


async def test_bugs_are_not_swallowed() -> None:
    with pytest.raises(ZeroDivisionError):
        await Script([], fail={"trial": ZeroDivisionError()}).run()


async def test_recalled_lessons_follow_the_own_ones_and_are_shown_once() -> None:
    script = Script(["41", "42"])
    lessons = [
        Lesson(key="a", problem="x", episode="e", trial=1, text="lesson 1"),
        Lesson(key="b", problem="x", episode="e", trial=1, text="from elsewhere"),
    ]
    settled: list[tuple[tuple[str, ...], bool]] = []

    async def recall(problem: Problem, repeat: int) -> Sequence[Lesson]:
        return lessons

    async def settle(attempt: Attempt, trials: Sequence[Trial], passed: bool) -> None:
        settled.append((attempt.past.recalled, passed))

    steps = Steps(script.trial, script.evaluate, script.reflect, script.memorize, recall, settle)
    await run_episode(PROBLEM, steps, max_trials=2)
    assert script.seen[0].past.lessons == ("lesson 1", "from elsewhere")
    assert script.seen[1].past.lessons == ("lesson 1", "from elsewhere")
    assert settled == [(("a", "b"), False), (("b",), True)]


async def test_a_strategy_without_reflections_recalls_nothing() -> None:
    script = Script(["42"])

    async def recall(problem: Problem, repeat: int) -> Sequence[Lesson]:
        raise AssertionError("must not be asked")

    steps = Steps(script.trial, script.evaluate, script.reflect, script.memorize, recall)
    assert (await run_episode(PROBLEM, steps, strategy=Strategy.NONE)).solved
