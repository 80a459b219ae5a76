"""Which model does what: actor, reflector and judge, and stronger actors for later trials."""

from __future__ import annotations

from dataclasses import dataclass

from reflexion.errors import ConfigurationError

__all__ = ["ModelRoles", "parse_escalation"]


def parse_escalation(text: str) -> tuple[str, ...]:
    """The models of `small->large` (also written `small→large`), weakest first.

    Raises:
        ConfigurationError: it does not name at least two models.
    """
    models = tuple(part.strip() for part in text.replace("→", "->").split("->"))
    if len(models) < 2 or not all(models):
        raise ConfigurationError(f"--escalate must name two or more models, as in small->large, not {text!r}")
    return models


@dataclass(frozen=True)
class ModelRoles:
    """The models of a run, by role.

    Attributes:
        actors: models of the trials, weakest first; one without escalation.
        reflector: draws the reflections.
        judge: judges where a model has to.
    """

    actors: tuple[str, ...]
    reflector: str
    judge: str

    @classmethod
    def of(
        cls,
        llm: str | None,
        default: str,
        *,
        reflector: str | None = None,
        judge: str | None = None,
        escalate: str | None = None,
    ) -> ModelRoles:
        """The roles as a user gives them.

        Args:
            llm: the model of every role that has none of its own; None: the first of `escalate`, else
                `default`.
            default: the model when nothing is named.
            reflector: None: `llm`.
            judge: None: `llm`.
            escalate: `small->large`.

        Raises:
            ConfigurationError: `escalate` is malformed, or begins with another model than `llm`.
        """
        actors = parse_escalation(escalate) if escalate else (llm or default,)
        if llm is not None and llm != actors[0]:
            raise ConfigurationError(
                f"--llm {llm} and --escalate {escalate} name different models for the first trial; give one of them"
            )
        return cls(actors, reflector or actors[0], judge or actors[0])

    def actor_for(self, trial: int, max_trials: int) -> str:
        """The actor of a trial (from 1): each model one trial, the strongest all that are left.

        The last trial is the strongest model's, however few trials there are.
        """
        strongest = len(self.actors) - 1
        if trial == max_trials > 1:
            return self.actors[strongest]
        return self.actors[min(trial - 1, strongest)]

    @property
    def specs(self) -> tuple[str, ...]:
        """All models, each once."""
        return tuple(dict.fromkeys((*self.actors, self.reflector, self.judge)))
