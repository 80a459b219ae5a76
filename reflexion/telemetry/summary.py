"""The figures of one run, counted episode by episode in constant memory."""

from __future__ import annotations

from pydantic import Field

from reflexion.llm.chat_model import Role
from reflexion.report.statistics import Attempts, Estimate, wilson
from reflexion.telemetry.agreement import Agreement, AgreementRates, Fallible, verdicts
from reflexion.telemetry.deciders import DeciderCounts, HandedIn, Stopper, VerdictCount, Way
from reflexion.telemetry.empty_replies import ReplyCounter, ReplyCounts
from reflexion.telemetry.error_words import ErrorWords
from reflexion.telemetry.histogram import DurationHistogram
from reflexion.types import Episode, Evaluation, Frozen, Outcome, Reflection, StepName, StepOutput, Usage

__all__ = [
    "Lessons",
    "LessonsCount",
    "ModelUsage",
    "Percentiles",
    "StepCount",
    "Summary",
    "SummaryBuilder",
    "Tokens",
    "UsageSum",
    "asks_model",
    "is_cacheable",
]

ROLES: dict[StepName, Role] = {"trial": "actor", "evaluate": "judge", "reflect": "reflector"}
"""For whom each step asks a model."""


def asks_model(step: StepName, output: StepOutput) -> bool:
    """Whether a language model stands behind this output: then its wall time is a response time."""
    if step == "evaluate":
        return output.usage.calls > 0
    if isinstance(output, Reflection) and output.reused_from is not None:
        return False
    return step in ("trial", "reflect")


EXPENSIVE = frozenset({"python", "generated", "judge"})
"""Evaluators whose verdicts are cached, for records that do not have the keys of their steps."""


def is_cacheable(step: StepName, output: StepOutput) -> bool:
    """Whether this kind of step is kept in the step cache.

    Trials and reflections always are; evaluations if they have a key, and where the record has no keys (those
    of Prefect, older ones) if they were answered from the cache, asked a model, or are by an evaluator that
    costs; memorizing never is.
    """
    if isinstance(output, Evaluation):
        if output.key is not None or output.cached or output.usage.calls > 0:
            return True
        return output.evaluator.partition(":")[0] in EXPENSIVE
    return step in ("trial", "reflect")


class Percentiles(Frozen):
    """Durations in seconds; None: there are no data."""

    p50: float | None = None
    p95: float | None = None
    p99: float | None = None
    max: float | None = None

    @classmethod
    def of(cls, histogram: DurationHistogram) -> Percentiles:
        """The percentiles of a histogram."""
        return cls(
            p50=histogram.percentile(50),
            p95=histogram.percentile(95),
            p99=histogram.percentile(99),
            max=histogram.maximum,
        )


class UsageSum:
    """A running sum of `Usage`, which costs no model for each step."""

    __slots__ = ("_cached", "_calls", "_completion", "_cost", "_priced", "_prompt", "_some", "_unknown")

    def __init__(self) -> None:
        self._prompt = self._completion = self._cached = self._calls = self._unknown = 0
        self._cost = 0.0
        self._some, self._priced = False, True

    def add(self, usage: Usage) -> None:
        """Add the usage of one step."""
        self._prompt += usage.prompt
        self._completion += usage.completion
        self._calls += usage.calls
        self._unknown += usage.unknown
        self._cached += usage.cached_prompt
        known = usage.cost_usd
        if known is None:
            known = usage.known_usd
            if usage.calls or usage.total:
                self._priced = False
        if known is not None:
            self._cost += known
            self._some = True

    @property
    def total(self) -> Usage:
        """The sum; its cost is unknown if that of any call is, then what is known of it is told; 0 without calls."""
        return Usage(
            prompt=self._prompt,
            completion=self._completion,
            calls=self._calls,
            unknown=self._unknown,
            cost_usd=self._cost if self._priced else None,
            cached_prompt=self._cached,
            known_usd=self._cost if self._some and not self._priced else None,
        )


class Tokens(Frozen):
    """Tokens spent in this run, and those the cache saved."""

    prompt: int = 0
    completion: int = 0
    saved: int = Field(default=0, description="Prompt and completion tokens of the cached steps.")
    cached_prompt: int = Field(default=0, description="Of the prompt tokens, those the endpoint had seen before.")


class StepCount(Frozen):
    """What became of the steps of one kind."""

    cached: int = 0
    executed: int = 0

    @property
    def hit_rate(self) -> float | None:
        """Share answered from the cache; None: there were no steps."""
        total = self.cached + self.executed
        return self.cached / total if total else None


class ModelUsage(Frozen):
    """What one model spent in one role."""

    role: Role
    model: str
    usage: Usage


class LessonsCount(Frozen):
    """Episodes with a kind of reflection, and how many of them were solved."""

    episodes: int = 0
    solved: int = 0


class Lessons(Frozen):
    """Do reused reflections help as much as fresh ones?

    An episode counts as `reused` when one of its reflections was taken from a similar failure, else as
    `fresh` when it has a reflection at all.
    """

    reused: LessonsCount = LessonsCount()
    fresh: LessonsCount = LessonsCount()


class Summary(Frozen):
    """`summary.json`: the figures of one run."""

    run: str
    dataset: str
    llm: str
    strategy: str
    max_trials: int = Field(ge=1)
    problems: int = Field(ge=0, description="Problems of the dataset that the run covers.")
    episodes: int = Field(ge=0, description="Problems times repeats.")
    solved: int = Field(ge=0, description="Episodes that were solved.")
    failed: int = Field(ge=0, description="Episodes that used up their trials.")
    errors: int = Field(ge=0, description="Episodes that an error ended.")
    not_run: int = Field(ge=0, description="Episodes that never ran, or that a budget stopped.")
    pass_rate: float | None = Field(description="solved / episodes, errors and not run included; None: no episodes.")
    pass_rate_interval: Estimate | None = Field(
        default=None,
        description="95 % interval of the pass rate: Wilson's; with repeats that of pass@1, which takes the "
        "problems as the sample.",
    )
    pass_at_k: dict[int, Estimate] = Field(
        default_factory=dict[int, Estimate],
        description="Unbiased pass@k over repeats (Chen et al. 2021) with 95 % intervals; empty without repeats.",
    )
    solved_by_trial: tuple[int, ...] = Field(
        description="Episodes solved by trial 1, by trial 2, …: cumulative, `max_trials` numbers."
    )
    handed_in: HandedIn | None = Field(
        default=None, description="What would have been handed in without an oracle; None: an older summary."
    )
    stopped_by: dict[Stopper, int] = Field(
        default_factory=dict[Stopper, int],
        description="Solved and failed episodes by what decided, after each trial, whether another was to follow. "
        "Hidden tests and references are oracles.",
    )
    verdicts: tuple[VerdictCount, ...] = Field(
        default=(), description="Judged episodes by evaluator and by what reached the verdict."
    )
    ways: dict[Way, int] = Field(
        default_factory=dict[Way, int], description="Verdicts of tests that were run, by where they ran."
    )
    retested: int = Field(default=0, ge=0, description="Verdicts that were reached a second time, alone.")
    unproven: int = Field(
        default=0, ge=0, description="Verdicts of tests that were not proved able to judge before the run."
    )
    llm_calls: int = Field(description="Calls really made; cached steps made none.")
    cached_steps: int = Field(description="Steps of cacheable kinds that the cache answered.")
    executed_steps: int = Field(description="Steps of cacheable kinds that were computed.")
    cache_hit_rate: float | None = Field(description="cached / (cached + executed); None: no such steps.")
    steps: dict[StepName, StepCount] = Field(description="The same by step.")
    tokens: Tokens
    tokens_per_solved: float | None = Field(description="Tokens spent per solved episode; None: none was solved.")
    cost_usd: float | None = Field(
        description="US dollars spent; None: a model's price is unknown, or a call told no usage."
    )
    cost_saved_usd: float | None = Field(description="US dollars the cache saved; None: as above.")
    cost_at_least_usd: float | None = Field(
        default=None, description="US dollars of the calls whose cost is known; None: all costs are, or none is."
    )
    cost_saved_at_least_usd: float | None = Field(default=None, description="The same of what the cache saved.")
    calls_without_usage: int = Field(default=0, ge=0, description="Calls of which the endpoint told no token counts.")
    usage: tuple[ModelUsage, ...] = Field(description="What was spent, by role and model.")
    wall_seconds: float = Field(description="Wall time of the session that finished the run.")
    episodes_per_minute: float | None = Field(description="Episodes that session finished, per minute.")
    response_time: Percentiles = Field(
        description="Wall time in seconds of the executed steps that asked a model, retries and waiting "
        "for them included; cached steps do not lower it."
    )
    error_rate: float = Field(description="Steps that ended in an error / steps executed, cheap ones included.")
    errors_by_class: dict[str, int] = Field(description="Errors that ended an episode, by class.")
    errors_told: dict[str, str] = Field(
        default_factory=dict[str, str],
        description="By class, the first message, cut and with control characters as escapes; the most frequent "
        "classes. Empty: no errors, or an older summary.",
    )
    retries_by_class: dict[str, int] = Field(description="Errors that were retried, by class.")
    lessons: Lessons
    replies: ReplyCounts = Field(default=ReplyCounts(), description="Replies that brought no answer.")
    agreement: dict[Fallible, AgreementRates] = Field(
        default_factory=dict[Fallible, AgreementRates],
        description="Verdicts that may be wrong, held against hidden tests or references; empty: none.",
    )
    peak_rss_mb: float | None = Field(default=None, description="Peak memory of the process tree, 10^6 bytes.")
    granularity: int = Field(default=1, ge=1, description="Steps to a task run; 1: every step has its own.")
    notes: tuple[str, ...] = Field(default=(), description="What was said of the verdicts before the first call.")


class SummaryBuilder:
    """Counts episodes one at a time; memory does not grow with their number.

    Repeats of one problem are to be added one after another.
    """

    def __init__(self) -> None:
        self._outcomes = dict.fromkeys(Outcome, 0)
        self._solved_at: dict[int, int] = {}
        self._steps: dict[StepName, list[int]] = {}
        self._executed = 0
        self._failed_steps = 0
        self._spent: dict[tuple[Role, str], UsageSum] = {}
        self._saved = UsageSum()
        self._times = DurationHistogram()
        self._errors = ErrorWords()
        self._replies = ReplyCounter()
        self._retries: dict[str, int] = {}
        self._lessons = {True: [0, 0], False: [0, 0]}
        self._attempts = Attempts()
        self._agreements: dict[Fallible, Agreement] = {}
        self._deciders = DeciderCounts()

    @property
    def episodes(self) -> int:
        """Episodes counted so far."""
        return sum(self._outcomes.values())

    def add(self, episode: Episode) -> None:
        """Count one episode."""
        self._outcomes[episode.outcome] += 1
        if episode.outcome is not Outcome.NOT_RUN:
            self._attempts.add(episode.problem_id, episode.solved)
        if episode.solved and episode.solved_at is not None:
            self._solved_at[episode.solved_at] = self._solved_at.get(episode.solved_at, 0) + 1
        if episode.error is not None and episode.outcome is Outcome.ERROR:
            self._failed_steps += 1
            self._errors.add(episode.error)
        for step, output in episode.outputs():
            self._add_step(step, output)
        if episode.lost.calls:
            model = next((t.model for t in episode.trials if t.model is not None), "unknown")
            self._spent.setdefault(("actor", model), UsageSum()).add(episode.lost)
        self._deciders.add(episode)
        self._replies.add(episode)
        for name, said, true in verdicts(episode):
            self._agreements.setdefault(name, Agreement()).add(said, true)
        reflections = episode.reflections
        if reflections:
            cell = self._lessons[any(r.reused_from is not None for r in reflections)]
            cell[0] += 1
            cell[1] += episode.solved

    def _add_step(self, step: StepName, output: StepOutput) -> None:
        if is_cacheable(step, output):
            self._steps.setdefault(step, [0, 0])[0 if output.cached else 1] += 1
        if output.cached:
            self._saved.add(output.usage)
            return
        self._executed += 1
        for kind in output.retried:
            _count(self._retries, kind)
        if asks_model(step, output):
            self._times.record(output.seconds)
        if output.usage.calls:
            key = (ROLES[step], output.model or "unknown")
            if key not in self._spent:
                self._spent[key] = UsageSum()
            self._spent[key].add(output.usage)

    def build(
        self,
        *,
        run: str,
        dataset: str,
        llm: str,
        strategy: str,
        max_trials: int,
        wall_seconds: float,
        finished: int | None = None,
        problems: int | None = None,
        missing: int = 0,
        peak_rss_mb: float | None = None,
        granularity: int = 1,
        notes: tuple[str, ...] = (),
    ) -> Summary:
        """The figures so far.

        Args:
            wall_seconds: wall time of this session.
            finished: episodes this session finished; None: all that were counted.
            problems: distinct problems; None: as many as episodes, no repeats.
            missing: planned episodes of which there is no record; they count as not run.
            peak_rss_mb: peak memory of the process tree in 10^6 bytes.
            granularity: steps to a task run.
            notes: what was said of the verdicts before the first call.
        """
        episodes = self.episodes + missing
        solved = self._outcomes[Outcome.SOLVED]
        usage = {key: spent.total for key, spent in sorted(self._spent.items())}
        everything = UsageSum()
        for each in usage.values():
            everything.add(each)
        spent, saved = everything.total, self._saved.total
        cached = sum(c for c, _ in self._steps.values())
        executed = sum(e for _, e in self._steps.values())
        attempted = self._executed + self._failed_steps
        done = self.episodes if finished is None else finished
        pass_at = self._attempts.pass_at()
        by_trial = [self._solved_at.get(i, 0) for i in range(1, max_trials + 1)]
        return Summary(
            run=run,
            dataset=dataset,
            llm=llm,
            strategy=strategy,
            max_trials=max_trials,
            problems=episodes if problems is None else problems,
            episodes=episodes,
            solved=solved,
            failed=self._outcomes[Outcome.FAILED],
            errors=self._outcomes[Outcome.ERROR],
            not_run=self._outcomes[Outcome.NOT_RUN] + missing,
            pass_rate=solved / episodes if episodes else None,
            pass_rate_interval=pass_at.get(1) or (wilson(solved, episodes) if episodes else None),
            pass_at_k=pass_at,
            solved_by_trial=tuple(sum(by_trial[: i + 1]) for i in range(max_trials)),
            handed_in=self._deciders.handed_in(episodes),
            stopped_by=dict(sorted(self._deciders.stopped_by.items(), key=lambda item: (-item[1], item[0]))),
            verdicts=self._deciders.verdicts,
            ways=dict(sorted(self._deciders.ways.items())),
            retested=self._deciders.retested,
            unproven=self._deciders.unproven,
            llm_calls=spent.calls,
            cached_steps=cached,
            executed_steps=executed,
            cache_hit_rate=StepCount(cached=cached, executed=executed).hit_rate,
            steps={s: StepCount(cached=c, executed=e) for s, (c, e) in self._steps.items()},
            tokens=Tokens(
                prompt=spent.prompt,
                completion=spent.completion,
                saved=saved.total,
                cached_prompt=spent.cached_prompt,
            ),
            tokens_per_solved=spent.total / solved if solved else None,
            cost_usd=spent.cost_usd,
            cost_saved_usd=saved.cost_usd,
            cost_at_least_usd=spent.known_usd,
            cost_saved_at_least_usd=saved.known_usd,
            calls_without_usage=spent.unknown,
            usage=tuple(ModelUsage(role=r, model=m, usage=u) for (r, m), u in usage.items()),
            wall_seconds=wall_seconds,
            episodes_per_minute=60 * done / wall_seconds if wall_seconds > 0 else None,
            response_time=Percentiles.of(self._times),
            error_rate=self._failed_steps / attempted if attempted else 0.0,
            errors_by_class=self._errors.counts,
            errors_told=self._errors.told,
            retries_by_class=dict(sorted(self._retries.items())),
            lessons=Lessons(
                reused=LessonsCount(episodes=self._lessons[True][0], solved=self._lessons[True][1]),
                fresh=LessonsCount(episodes=self._lessons[False][0], solved=self._lessons[False][1]),
            ),
            replies=self._replies.total,
            agreement={name: counted.rates for name, counted in self._agreements.items()},
            peak_rss_mb=peak_rss_mb,
            granularity=granularity,
            notes=notes,
        )


def _count(counts: dict[str, int], name: str) -> None:
    counts[name] = counts.get(name, 0) + 1
