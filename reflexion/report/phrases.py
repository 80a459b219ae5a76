"""Figures in words, the same in the table, the report, the artifacts and in Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

from reflexion.report.statistics import Estimate
from reflexion.telemetry.agreement import AgreementRates, Fallible
from reflexion.telemetry.deciders import HandedIn, Stopper, VerdictCount, Way
from reflexion.telemetry.summary import Summary
from reflexion.types import Decider, Usage

__all__ = [
    "AGREEMENT",
    "FALLIBLE",
    "HANDED_IN",
    "STOPPED_BY",
    "agreement",
    "amount",
    "cost",
    "cost_unknown_because",
    "errors_told",
    "handed_in",
    "interval",
    "judged_by",
    "judging",
    "replies_each",
    "stopped_by",
    "stopped_by_each",
    "tokens",
    "verdict_rows",
    "whole_at_least",
]

STOPPED_BY = (
    "Stopped by: what decided, after each trial, whether another was to follow; episodes that used up their trials "
    "are counted with what rejected them. An oracle is what an agent at work could not see."
)
"""What the figure is."""

HANDED_IN = (
    "Handed-in pass rate: share of all episodes whose answer would have been right had no oracle stopped them "
    "(Huang et al. 2024). Handed in is the first answer that the agent's own signal accepts: tests of its own, else "
    "visible tests, else a judge that saw no reference, the environment's reward, or your own function, which is "
    "taken for no oracle. If the signal rejects all, it is the last answer; where there is no signal but the "
    "oracle, the first."
)
"""How the figure is reckoned."""

AGREEMENT = (
    "False positives: share of wrong answers among those that pass, P(wrong | passed); false negatives: share of "
    "right answers among those rejected, P(right | rejected); both as in table 2 of Shinn et al. 2023. The other "
    "direction: wrong answers let through, P(passed | wrong), and right answers rejected, P(rejected | right)."
)
"""How the four rates are reckoned."""

FALLIBLE: dict[Fallible, str] = {
    "visible_tests": "Visible tests",
    "generated_tests": "Model's own tests",
    "judge": "Judge",
}
"""Verdicts that may be wrong."""

_STOPPERS: dict[Stopper, str] = {
    "hidden_tests": "hidden tests (oracle)",
    "reference": "a reference answer (oracle)",
    "judge_with_reference": "a judge shown the reference (oracle)",
    "visible_tests": "visible tests",
    "own_tests": "tests of the model's own",
    "judge": "a judge",
    "environment": "the environment's reward",
    "function": "your own function",
    "not_on_record": "not on record",
}
_DECIDERS: dict[Decider | None, str] = {
    "hidden_tests": "hidden tests",
    "reference": "reference",
    "visible_tests": "visible tests",
    "own_tests": "tests of the model's own",
    "judge": "judge",
    "environment": "reward",
    "function": "your own function",
    None: "not on record",
}
_WAYS: dict[Way, str] = {"apart": "apart from the solution", "in_process": "in the solution's own process"}


class Costs(Protocol):
    """A run's costs in US dollars."""

    @property
    def cost_usd(self) -> float | None:
        """Spent; None: not known in whole."""

    @property
    def cost_at_least_usd(self) -> float | None:
        """What is known of it where the whole is not."""

    @property
    def cost_saved_usd(self) -> float | None:
        """Saved by the cache; None: not known in whole."""

    @property
    def cost_saved_at_least_usd(self) -> float | None:
        """What is known of that where the whole is not."""


def interval(estimate: Estimate) -> str:
    """From where to where."""
    return f"{estimate.low:.1%} to {estimate.high:.1%}"


def stopped_by(counts: Mapping[Stopper, int], max_trials: int | None = None) -> str:
    """What decided to stop, with counts of episodes; where there was one trial each, nothing did."""
    if not counts:
        return "not on record"
    if max_trials == 1:
        return "nothing, there was one trial each"
    return ", ".join(f"{_STOPPERS[name]} {number:,}" for name, number in counts.items())


def stopped_by_each(runs: Sequence[tuple[str, Summary]]) -> list[tuple[str, str]]:
    """What decided to stop in each run of a comparison, by the runs' names; once where it is the same."""
    told = [stopped_by(summary.stopped_by, summary.max_trials) for _, summary in runs]
    if len(set(told)) == 1:
        return [("Stopped by", told[0])]
    return [(f"Stopped by, {name}", text) for (name, _), text in zip(runs, told, strict=True)]


def handed_in(found: HandedIn | None) -> str:
    """The handed-in pass rate with its interval."""
    if found is None or found.not_on_record:
        return "not on record"
    if found.rate is None or found.interval is None:
        return "no data"
    return f"{found.rate:.1%}, 95 % interval {interval(found.interval)}"


def amount(cost: float | None, at_least: float | None, sign: str = "$") -> str:
    """US dollars: what was spent, what was spent at the least, or that neither is known."""
    if cost is not None:
        return f"{sign}{cost:,.4f}"
    return "unknown" if at_least is None else f"at least {sign}{at_least:,.4f}"


def cost_unknown_because(summaries: Iterable[Summary]) -> str:
    """Why the cost of these runs is not known; empty where it is."""
    runs = [summary for summary in summaries if summary.cost_usd is None]
    parts = [spent.usage for summary in runs for spent in summary.usage if spent.usage.cost_usd is None]
    silent = sum(part.unknown for part in parts)
    reasons = [f"{silent:,} call{'s' if silent != 1 else ''} without usage"] if silent else []
    if (runs and not silent) or any(_without_price(part) for part in parts):
        reasons.append("a model has no known price")
    return " and ".join(reasons)


def _without_price(part: Usage) -> bool:
    # Had the model a price, those of its calls that told their usage would have a cost.
    return not part.unknown or (part.known_usd is None and part.calls > part.unknown)


def cost(summary: Summary) -> str:
    """What a run cost, and what speaks against that figure."""
    told = amount(summary.cost_usd, summary.cost_at_least_usd)
    why = cost_unknown_because([summary])
    if not why:
        return told
    return f"{told}, {why}" if summary.cost_at_least_usd is None else f"{told} ({why})"


def whole_at_least(figures: Costs) -> float | None:
    """US dollars known of what a run would have cost without the cache, where the whole is not known."""
    parts = (figures.cost_usd, figures.cost_saved_usd, figures.cost_at_least_usd, figures.cost_saved_at_least_usd)
    # Of nothing spent or nothing saved the cost is known, which tells nothing of the rest.
    return None if None not in parts[:2] else sum(part or 0.0 for part in parts) or None


def tokens(summary: Summary) -> str:
    """What a run spent in tokens, and what the caches, the endpoint's and its own, took off."""
    t = summary.tokens
    seen = f" ({t.cached_prompt:,} of them cached by the endpoint)" if t.cached_prompt else ""
    return f"{t.prompt:,} prompt{seen} + {t.completion:,} completion, {t.saved:,} saved by the cache"


def errors_told(summaries: Iterable[Summary]) -> list[tuple[str, str]]:
    """The words of the errors that ended episodes, those of one class once."""
    told: dict[str, str] = {}
    for summary in summaries:
        told = summary.errors_told | told
    return [("Error", f"{name}: {words}") for name, words in told.items()]


def replies_each(runs: Sequence[tuple[str, Summary]]) -> list[tuple[str, str]]:
    """Replies that brought no answer in each run of a comparison, by the runs' names."""
    return [(f"{name}, {run}", text) for run, summary in runs for name, text in summary.replies.lines()]


def judged_by(row: VerdictCount) -> str:
    """An evaluator, what reached its verdicts, and whether the model judged itself."""
    parts = [_DECIDERS[row.decided_by]] if _DECIDERS[row.decided_by] != row.evaluator else []
    if row.by_itself:
        share = "" if row.by_itself == row.episodes else f"{row.by_itself:,} of {row.episodes:,} "
        parts.append(f"{share}judged by the model itself")
    return f"{row.evaluator} ({', '.join(parts)})" if parts else row.evaluator


def verdict_rows(summary: Summary) -> list[tuple[str, str]]:
    """Each way in which answers were judged and how its episodes fared; one alone needs no figures."""
    if len(summary.verdicts) == 1:
        return [("Judged by", judged_by(summary.verdicts[0]))]
    return [
        ("Judged by", f"{judged_by(row)}: {row.solved:,} of {row.episodes:,} episodes solved, {row.rate:.1%}")
        for row in summary.verdicts
    ]


def judging(summary: Summary) -> list[tuple[str, str]]:
    """Where tests ran, and verdicts to be wary of."""
    lines: list[tuple[str, str]] = []
    if summary.ways:
        ran = ", ".join(f"{_WAYS[way]} {number:,}" for way, number in summary.ways.items())
        lines.append(("Tests ran", f"{ran} (verdicts)"))
    if summary.retested:
        lines.append(("Judged again, alone", _verdicts(summary.retested)))
    if summary.unproven:
        lines.append(("Tests not proved before the run", _verdicts(summary.unproven)))
    return lines


def _verdicts(number: int) -> str:
    return f"{number:,} verdict{'s' if number != 1 else ''}"


def agreement(rates: AgreementRates) -> str:
    """How far a fallible verdict can be trusted."""
    parts = [f"right on {rates.agreement:.1%} of {rates.trials:,} trials"] if rates.agreement is not None else []
    for name, rate in (
        ("false positives", rates.false_positive_rate),
        ("false negatives", rates.false_negative_rate),
        ("wrong answers let through", rates.wrong_let_through),
        ("right answers rejected", rates.right_rejected),
    ):
        if rate is not None:
            parts.append(f"{name} {rate:.1%}")
    return ", ".join(parts)
