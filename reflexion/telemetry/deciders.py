"""What decided to stop, what would have been handed in without an oracle, and by whom answers were judged.

An *oracle* is what an agent at work could not see: hidden tests, a reference answer, or a judge that was shown
one. A loop that an oracle stops knows when it is right, which inflates what it seems to gain (Huang et al. 2024,
*Large Language Models Cannot Self-Correct Reasoning Yet*, arXiv 2310.01798, section 3.2). So each episode is
also counted as if nobody had told it: see `handed_in`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from pydantic import Field

from reflexion.report.statistics import Attempts, Estimate, wilson
from reflexion.types import Decider, Episode, Evaluation, Frozen, Outcome, Trial

__all__ = [
    "ORACLES",
    "DeciderCounts",
    "HandedIn",
    "Stopper",
    "VerdictCount",
    "Way",
    "episode_stopper",
    "handed_in",
    "stopper_of",
]

Stopper = Literal[
    "hidden_tests",
    "reference",
    "judge_with_reference",
    "visible_tests",
    "own_tests",
    "judge",
    "environment",
    "function",
    "not_on_record",
]
"""What decides after a trial whether another follows; `not_on_record`: an older record does not tell."""

ORACLES: frozenset[Stopper] = frozenset({"hidden_tests", "reference", "judge_with_reference"})

Way = Literal["apart", "in_process"]
"""Where tests ran: apart from the solution, or in its own process."""


class VerdictCount(Frozen):
    """Episodes whose last verdict one evaluator gave in one way; those without any verdict are in no row."""

    evaluator: str
    decided_by: Decider | None = Field(description="What reached the verdicts; None: not on record.")
    episodes: int
    solved: int
    rate: float = Field(description="solved / episodes.")
    by_itself: int = Field(default=0, description="Of the episodes: judged by the very model that answered.")


class HandedIn(Frozen):
    """The pass rate of what would have been handed in without an oracle."""

    solved: int = Field(description="Episodes whose handed-in answer is right.")
    rate: float | None = Field(description="solved / all episodes, as the pass rate; None: none, or not on record.")
    interval: Estimate | None = Field(description="95 % interval, reckoned as that of the pass rate.")
    not_on_record: int = Field(default=0, description="Episodes whose record does not tell what was handed in.")


def stopper_of(verdict: Evaluation) -> Stopper:
    """What decides by this verdict whether another trial follows."""
    own = verdict.details.get("generated")
    if own == [] and verdict.visible_passed is not None:
        return "visible_tests"  # the model wrote none: it went by those of the problem
    if own is not None or (verdict.accepted is not None and verdict.decided_by != "function"):
        return "own_tests"
    if verdict.decided_by == "judge" and isinstance(verdict.details.get("exact_match"), bool):
        return "judge_with_reference"  # judges are shown the reference where there is one
    return verdict.decided_by or "not_on_record"


def handed_in(episode: Episode) -> bool | None:
    """Whether the answer that would have been handed in without an oracle is right.

    It is that of the first trial which the agent's own signal accepts. That signal is, in this order: tests
    of its own, visible tests, and what decided where that is no oracle (a judge that saw no reference, the
    environment's reward, your own function). If the signal rejects all trials, the last one is handed in; a
    trial without a usable answer is rejected. Where there is nothing but the oracle, the first trial is:
    nothing else would have told the agent to go on. An answer that its signal rejects and the oracle accepts
    ends the episode, and is the last one. Episodes that an error ended, or that did not run, hand nothing in.

    Returns:
        None: an older record does not tell what the signal was.
    """
    judged, stopped = _judged(episode), episode_stopper(episode)
    if stopped is None:
        return False
    if len(judged) == 1:
        return judged[0].passed
    signals = [_signal(verdict, stopped) for verdict in judged]
    if any(signal is not None for signal in signals):
        chosen = next((v for v, signal in zip(judged, signals, strict=True) if signal), judged[-1])
        return chosen.passed
    return judged[0].passed if stopped in ORACLES else None


def _signal(verdict: Evaluation, stopped: Stopper) -> bool | None:
    """What the agent itself learns of an answer; None: nothing."""
    if verdict.accepted is not None:
        return verdict.accepted
    if verdict.visible_passed is not None:
        return verdict.visible_passed
    return None if stopped in ORACLES or stopped == "not_on_record" else verdict.passed


def _judged(episode: Episode) -> list[Evaluation]:
    return [t.evaluation for t in episode.trials if t.evaluation is not None]


def _telling(episode: Episode) -> Sequence[Trial]:
    """The judged trials, without those whose answer nobody could judge if there are others."""
    judged = [t for t in episode.trials if t.evaluation is not None]
    return [t for t in judged if t.error is None and t.answer.strip()] or judged


def episode_stopper(episode: Episode) -> Stopper | None:
    """What decided to stop an episode; None: no verdict did, but an error, a budget, or nothing yet."""
    if episode.outcome not in (Outcome.SOLVED, Outcome.FAILED):
        return None
    found: list[Stopper] = [stopper_of(t.evaluation) for t in _telling(episode) if t.evaluation is not None]
    if "judge_with_reference" in found:  # a judge whose last reply could not be read does not tell what it saw
        return "judge_with_reference"
    return found[-1] if found else None


class DeciderCounts:
    """Counts episodes by what decided; repeats of one problem are to be added one after another."""

    def __init__(self) -> None:
        self.stopped_by: dict[Stopper, int] = {}
        self.ways: dict[Way, int] = {}
        self.retested = self.unproven = 0
        self._rows: dict[tuple[str, Decider | None], list[int]] = {}
        self._attempts = Attempts()
        self._right = self._unknown = 0

    def add(self, episode: Episode) -> None:
        """Count one episode."""
        right = handed_in(episode)
        self._right += right is True
        self._unknown += right is None
        if episode.outcome is not Outcome.NOT_RUN:
            self._attempts.add(episode.problem_id, right is True)
        stopped = episode_stopper(episode)
        if stopped is not None:
            self.stopped_by[stopped] = self.stopped_by.get(stopped, 0) + 1
        for verdict in _judged(episode):
            self.retested += bool(verdict.details.get("retested"))
            self.unproven += verdict.details.get("unproven") is True
            if "cpu_seconds" in verdict.details:  # noted wherever tests were run
                way: Way = "in_process" if verdict.details.get("in_process") is True else "apart"
                self.ways[way] = self.ways.get(way, 0) + 1
        if (telling := _telling(episode)) and (verdict := telling[-1].evaluation) is not None:
            row = self._rows.setdefault((verdict.evaluator, verdict.decided_by), [0, 0, 0])
            row[0] += 1
            row[1] += episode.solved
            row[2] += any(map(_is_own_judge, telling))

    @property
    def verdicts(self) -> tuple[VerdictCount, ...]:
        """A row for each evaluator and decider, the most frequent first."""
        ranked = sorted(self._rows.items(), key=lambda item: (-item[1][0], item[0][0], item[0][1] or ""))
        return tuple(
            VerdictCount(
                evaluator=evaluator,
                decided_by=decider,
                episodes=episodes,
                solved=solved,
                rate=solved / episodes,
                by_itself=by_itself,
            )
            for (evaluator, decider), (episodes, solved, by_itself) in ranked
        )

    def handed_in(self, episodes: int) -> HandedIn:
        """The rate of what would have been handed in, of so many episodes."""
        known = episodes > 0 and not self._unknown
        return HandedIn(
            solved=self._right,
            rate=self._right / episodes if known else None,
            interval=(self._attempts.pass_at().get(1) or wilson(self._right, episodes)) if known else None,
            not_on_record=self._unknown,
        )


def _is_own_judge(trial: Trial) -> bool:
    """Whether the model that answered is the judge of its answer."""
    verdict = trial.evaluation
    return verdict is not None and verdict.decided_by == "judge" and verdict.model == trial.model is not None
