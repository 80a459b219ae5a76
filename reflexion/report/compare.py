"""Two runs of the same problems, side by side: what changed, and whether it could be chance."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import orjson
from pydantic import Field

from reflexion.errors import ConfigurationError
from reflexion.report import phrases
from reflexion.report.statistics import mcnemar
from reflexion.run.run_folder import EpisodeKey, RunFolder
from reflexion.telemetry.deciders import Stopper
from reflexion.telemetry.summary import Summary, SummaryBuilder
from reflexion.types import Frozen, Outcome

__all__ = ["Change", "Comparison", "Figures", "compare_runs", "summary_of"]

_SHOWN = 20


class Change(Frozen):
    """An episode that one run solved and the other did not."""

    problem_id: str
    repeat: int = 0
    outcome_a: Outcome
    outcome_b: Outcome

    @property
    def label(self) -> str:
        """The episode in words."""
        return self.problem_id if not self.repeat else f"{self.problem_id} (repeat {self.repeat})"


class Figures(Frozen):
    """One run's figures, as far as they are compared."""

    run: str
    pass_rate: float | None = Field(description="Of the episodes both runs have.")
    solved_by_trial: tuple[int, ...]
    handed_in_rate: float | None = Field(
        default=None, description="Of the whole run, what would have been handed in without an oracle."
    )
    stopped_by: dict[Stopper, int] = Field(
        default_factory=dict[Stopper, int], description="Episodes of the whole run by what decided to stop."
    )
    cost_usd: float | None = Field(description="US dollars spent in the run.")
    cost_saved_usd: float | None = Field(default=None, description="US dollars the cache saved it.")
    cost_at_least_usd: float | None = Field(
        default=None, description="US dollars known to be spent, where the whole cost is not known."
    )
    cost_saved_at_least_usd: float | None = Field(default=None, description="The same of what the cache saved.")
    tokens: int = Field(description="Spent in the run.")
    tokens_saved: int = Field(default=0, description="Of the steps that the cache answered.")
    llm_calls: int
    cache_hit_rate: float | None
    response_time_p95: float | None = Field(description="Seconds.")
    wall_seconds: float | None = Field(default=None, description="Of the session that finished the run.")
    episodes_per_minute: float | None

    @property
    def whole_tokens(self) -> int:
        """Tokens it would have taken without the cache."""
        return self.tokens + self.tokens_saved

    @property
    def whole_cost_usd(self) -> float | None:
        """US dollars it would have cost without the cache; None: a model's price is unknown."""
        known = self.cost_usd is not None and self.cost_saved_usd is not None
        return (self.cost_usd or 0.0) + (self.cost_saved_usd or 0.0) if known else None


class Comparison(Frozen):
    """Run B held against run A.

    Only episodes that both have on record are compared; one that an error ended, or that never ran,
    was not solved.
    """

    a: Figures
    b: Figures
    shared: int = Field(description="Episodes both runs have.")
    both: int = Field(description="Solved in both.")
    neither: int = Field(description="Solved in neither.")
    only_a: tuple[Change, ...] = Field(description="Solved only in A: regressions of B.")
    only_b: tuple[Change, ...] = Field(description="Solved only in B: improvements.")
    missing_in_a: int = Field(description="Episodes only B has.")
    missing_in_b: int = Field(description="Episodes only A has.")
    p_value: float = Field(description="Exact two-sided McNemar test; repeats are taken as independent.")
    warnings: tuple[str, ...] = ()

    @property
    def regressions(self) -> tuple[Change, ...]:
        """Episodes that A solved and B did not."""
        return self.only_a

    def to_json(self, indent: int | None = 2) -> str:
        """The comparison as one JSON object."""
        return self.model_dump_json(indent=indent)

    def to_junit(self) -> str:
        """The comparison as JUnit XML: a test case for each episode that changed, failed if it regressed."""
        from reflexion.report.junit import comparison_junit

        changes = [(c.label, f"{c.outcome_a} → {c.outcome_b}", c in self.only_a) for c in (*self.only_a, *self.only_b)]
        return comparison_junit(f"{self.b.run} against {self.a.run}", changes, self.both + self.neither)

    def to_markdown(self) -> str:
        """The comparison for a pull request."""
        a, b = self.a, self.b
        net = len(self.only_b) - len(self.only_a)
        verdict = "may be chance" if self.p_value >= 0.05 else "is unlikely to be chance"
        lines = [
            f"### {_cell(b.run)} against {_cell(a.run)}",
            "",
            f"**{net:+d}** solved of {self.shared} shared episodes: {len(self.only_b)} improved, "
            f"{len(self.only_a)} regressed. McNemar p = {self.p_value:.3g}: the difference {verdict}.",
            "",
            f"| | A: {_cell(a.run)} | B: {_cell(b.run)} | change |",
            "|---|---:|---:|---:|",
            _row("pass rate, shared episodes", a.pass_rate, b.pass_rate, "{:.1%}", "{:+.1%}"),
            _row("handed-in pass rate, whole run", a.handed_in_rate, b.handed_in_rate, "{:.1%}", "{:+.1%}"),
            _cost_row("cost, US dollars", *((f.cost_usd, f.cost_at_least_usd) for f in (a, b))),
            _cost_row("cost without the cache", *((f.whole_cost_usd, phrases.whole_at_least(f)) for f in (a, b))),
            _row("tokens", a.tokens, b.tokens, "{:,}", "{:+,}"),
            _row("tokens without the cache", a.whole_tokens, b.whole_tokens, "{:,}", "{:+,}"),
            _row("LLM calls", a.llm_calls, b.llm_calls, "{:,}", "{:+,}"),
            _row("cache hits", a.cache_hit_rate, b.cache_hit_rate, "{:.1%}", "{:+.1%}"),
            _row("wall time, s", a.wall_seconds, b.wall_seconds, "{:,.1f}", "{:+,.1f}"),
            _row("response time p95, s", a.response_time_p95, b.response_time_p95, "{:.3g}", "{:+.3g}"),
            _row("episodes per minute", a.episodes_per_minute, b.episodes_per_minute, "{:,.1f}", "{:+,.1f}"),
            f"| solved by trial | {_curve(a)} | {_curve(b)} | |",
            f"| stopped by | {_stopped(a)} | {_stopped(b)} | |",
        ]
        for title, changes in (
            ("Regressed (solved only in A)", self.only_a),
            ("Improved (solved only in B)", self.only_b),
        ):
            if changes:
                lines += ["", f"<details><summary>{title}: {len(changes)}</summary>", ""]
                lines += [f"- {_cell(c.label)}: {c.outcome_a} → {c.outcome_b}" for c in changes[:_SHOWN]]
                if len(changes) > _SHOWN:
                    lines.append(f"- … and {len(changes) - _SHOWN} more")
                lines += ["", "</details>"]
        lines += [f"\n> {_cell(warning)}" for warning in self.warnings]
        return "\n".join(lines) + "\n"


def compare_runs(a: Path | str, b: Path | str) -> Comparison:
    """Compare two runs by their folders.

    Raises:
        ConfigurationError: one is not a run's folder, or they share no episode.
        StorageError: a record cannot be read.
    """
    run_a, run_b = RunFolder.open(a), RunFolder.open(b)
    before, after = dict(_outcomes(run_a)), dict(_outcomes(run_b))
    shared = [key for key in before if key in after]
    if not shared:
        raise ConfigurationError(f"{a} and {b} have no episode in common: were they runs of one dataset?")
    counts = {(x, y): 0 for x in (False, True) for y in (False, True)}
    changed: dict[bool, list[Change]] = {True: [], False: []}
    for key in shared:
        left, right = before[key] is Outcome.SOLVED, after[key] is Outcome.SOLVED
        counts[left, right] += 1
        if left is not right:
            change = Change(problem_id=key[0], repeat=key[1], outcome_a=before[key], outcome_b=after[key])
            changed[left].append(change)
    total = len(shared)
    rate_a = (counts[True, True] + counts[True, False]) / total
    rate_b = (counts[True, True] + counts[False, True]) / total
    return Comparison(
        a=_figures(run_a, rate_a),
        b=_figures(run_b, rate_b),
        shared=total,
        both=counts[True, True],
        neither=counts[False, False],
        only_a=tuple(changed[True]),
        only_b=tuple(changed[False]),
        missing_in_a=len(after) - total,
        missing_in_b=len(before) - total,
        p_value=mcnemar(counts[True, False], counts[False, True]),
        warnings=tuple(_warnings(run_a, run_b, len(after) - total, len(before) - total, shared)),
    )


def summary_of(run: RunFolder) -> Summary:
    """The run's figures: those on record, or counted now for a run that is not finished."""
    found = run.summary()
    if found is not None:
        return found
    builder = SummaryBuilder()
    trials = 1
    for episode in run.episodes(run.by_problem()):
        builder.add(episode)
        trials = max(trials, len(episode.trials))
    planned = run.parameters.get("max_trials")
    return builder.build(
        run=run.name,
        dataset=str(run.parameters.get("dataset", "")),
        llm=str(run.parameters.get("llm", "")),
        strategy=str(run.parameters.get("strategy", "")),
        max_trials=planned if isinstance(planned, int) and planned >= trials else trials,
        wall_seconds=0.0,
    )


def _outcomes(run: RunFolder) -> Iterator[tuple[EpisodeKey, Outcome]]:
    # Only the head of each record is needed: building models of 50,000 episodes would take a minute.
    for key, line in run.lines():
        yield key, Outcome(orjson.loads(line)["outcome"])


def _figures(run: RunFolder, pass_rate: float) -> Figures:
    summary = summary_of(run)
    return Figures(
        run=run.name,
        pass_rate=pass_rate,
        solved_by_trial=summary.solved_by_trial,
        handed_in_rate=None if summary.handed_in is None else summary.handed_in.rate,
        stopped_by=summary.stopped_by,
        cost_usd=summary.cost_usd,
        cost_saved_usd=summary.cost_saved_usd,
        cost_at_least_usd=summary.cost_at_least_usd,
        cost_saved_at_least_usd=summary.cost_saved_at_least_usd,
        tokens_saved=summary.tokens.saved,
        wall_seconds=summary.wall_seconds or None,
        tokens=summary.tokens.prompt + summary.tokens.completion,
        llm_calls=summary.llm_calls,
        cache_hit_rate=summary.cache_hit_rate,
        response_time_p95=summary.response_time.p95,
        episodes_per_minute=summary.episodes_per_minute,
    )


def _warnings(
    a: RunFolder, b: RunFolder, missing_in_a: int, missing_in_b: int, shared: list[EpisodeKey]
) -> Iterator[str]:
    for field, text in (("dataset_digest", "contents of the dataset"), ("evaluator", "evaluators")):
        left, right = a.parameters.get(field), b.parameters.get(field)
        if left != right:
            yield f"The {text} differ ({left} and {right}): outcomes may not be comparable."
    for run in (a, b):
        if run.summary() is None:
            yield f"The run {run.name} is not finished."
    if missing_in_a or missing_in_b:
        yield f"Not compared: {missing_in_b} episodes only {a.name} has, {missing_in_a} only {b.name} has."
    if any(repeat for _, repeat in shared):
        yield "Repeats of one problem are taken as independent: the p-value is on the small side."


def _row(name: str, a: float | None, b: float | None, form: str, delta: str) -> str:
    cells = ["unknown" if value is None else form.format(value) for value in (a, b)]
    change = "" if a is None or b is None else delta.format(b - a)
    return f"| {name} | {cells[0]} | {cells[1]} | {change} |"


def _cost_row(name: str, *costs: tuple[float | None, float | None]) -> str:
    (a, _), (b, _) = costs
    cells = " | ".join(phrases.amount(*cost, sign="") for cost in costs)
    return f"| {name} | {cells} | {'' if a is None or b is None else f'{b - a:+.4f}'} |"


def _curve(figures: Figures) -> str:
    return " → ".join(str(n) for n in figures.solved_by_trial)


def _stopped(figures: Figures) -> str:
    return _cell(phrases.stopped_by(figures.stopped_by, len(figures.solved_by_trial)))


def _cell(text: str) -> str:
    """Text that neither breaks a table nor is read as HTML or as a mention."""
    plain = " ".join(text.split())
    return plain.replace("&", "&amp;").replace("<", "&lt;").replace("|", "\\|").replace("@", "@\u200b")
