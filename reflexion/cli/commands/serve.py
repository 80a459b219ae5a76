"""`reflexion serve`: all flows as deployments, run by one process, for those without workers."""

from __future__ import annotations

import difflib
import os
import sys
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Annotated, Any
from zoneinfo import available_timezones

from cyclopts import Group, Parameter

from reflexion.cli.connecting import server_errors_told
from reflexion.errors import ConfigurationError

if TYPE_CHECKING:
    from prefect.deployments.runner import RunnerDeployment

__all__ = ["SERVED", "Served", "check_schedule", "make_deployments", "serve"]

SCHEDULE = Group("Nightly batch")


@dataclass(frozen=True)
class Served:
    """A flow that is served: where workers find it, and what its form begins with."""

    entrypoint: str
    description: str
    parameters: dict[str, Any]
    limit: int
    strategy: str
    cron: str | None = None

    @property
    def kind(self) -> str:
        """Its tag."""
        return self.entrypoint.split(".")[1]


SERVED: tuple[Served, ...] = (
    Served(
        "reflexion.flows.batch.batch_evaluation",
        "A dataset as one flow run.",
        {"parameters": {"dataset": "starter"}},
        limit=4,
        strategy="ENQUEUE",
    ),
    Served(
        "reflexion.flows.episode.episode",
        "One problem as one flow run.",
        {"parameters": {"problem": "What is six times seven? Answer with the number only.", "answer": "42"}},
        limit=8,
        strategy="ENQUEUE",
    ),
    Served(
        "reflexion.flows.sharded.sharded_evaluation",
        "A dataset in shards, in processes of this machine.",
        {"parameters": {"dataset": "starter", "shards": 2}},
        limit=1,
        strategy="ENQUEUE",
    ),
    Served(
        "reflexion.flows.monitoring.monitoring",
        "Holds the last hour against the targets; a missed one is an event.",
        {"parameters": {"since": "1h"}},
        limit=1,
        strategy="CANCEL_NEW",
        cron="5 * * * *",
    ),
    Served(
        "reflexion.flows.maintenance.maintenance",
        "Drops expired cache entries, and expired and surplus lessons.",
        {"parameters": {}},
        limit=1,
        strategy="CANCEL_NEW",
        cron="15 5 * * *",
    ),
)
"""What is served besides the nightly batch; `deployments/prefect.yaml` has the same flows for workers."""


def serve(
    *,
    limit: Annotated[int, Parameter(help="Flow runs at a time, each a process of about 150 MB.")] = 4,
    name: Annotated[str, Parameter(help="Name of the deployments.")] = "default",
    nightly: Annotated[str | None, Parameter(help="Dataset of a scheduled batch.", group=SCHEDULE)] = None,
    llm: Annotated[str | None, Parameter(help="Model of the scheduled batch.", group=SCHEDULE)] = None,
    cron: Annotated[str, Parameter(help="When: minute, hour, day, month, weekday.", group=SCHEDULE)] = "30 2 * * *",
    timezone: Annotated[str, Parameter(help="Time zone of the schedule, as Europe/Berlin.", group=SCHEDULE)] = "UTC",
) -> int:
    """Deploy every flow, and run what is asked for in the UI or is due, until interrupted.

    Schedules are paused when it ends, and go on with the next start.
    """
    if limit < 1:
        raise ConfigurationError(f"--limit: {limit} is not 1 or more; each flow run is a process")
    check_schedule(cron, timezone)
    from prefect.settings import PREFECT_API_URL

    if not PREFECT_API_URL.value():
        raise ConfigurationError(
            "serve: no Prefect server is named; start one with `reflexion server`, "
            "then: export PREFECT_API_URL=http://127.0.0.1:4200/api"
        )
    from prefect import serve as serve_all

    deployments = make_deployments(name, nightly=nightly, llm=llm, cron=cron, timezone=timezone)
    shown = ", ".join(f"{d.flow_name}/{d.name}" for d in deployments)
    print(f"Serving {shown}; at most {limit} flow runs at a time. Stop with Ctrl-C.", file=sys.stderr)  # noqa: T201
    # A worker's setting would be taken for this process's; what is served imports the same package.
    os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "WARNING")
    with server_errors_told():
        serve_all(*deployments, limit=limit, print_starting_message=False)
    return 0


def make_deployments(
    name: str = "default",
    *,
    nightly: str | None = None,
    llm: str | None = None,
    cron: str = "30 2 * * *",
    timezone: str = "UTC",
) -> list[RunnerDeployment]:
    """The deployments that are served, not yet on the server.

    Args:
        nightly: dataset of a scheduled batch; None: there is none.
    """
    made = [_deployment(served, name, served.cron, "UTC", served.parameters) for served in SERVED]
    if nightly is not None:
        batch = SERVED[0]
        once = Served(batch.entrypoint, "The scheduled batch.", {}, limit=1, strategy="CANCEL_NEW")
        made.append(_deployment(once, "nightly", cron, timezone, {"parameters": {"dataset": nightly, "llm": llm}}))
    return made


def _deployment(
    served: Served, name: str, cron: str | None, timezone: str, parameters: dict[str, Any]
) -> RunnerDeployment:
    from prefect.client.schemas.objects import ConcurrencyLimitConfig, ConcurrencyLimitStrategy
    from prefect.deployments.runner import RunnerDeployment
    from prefect.schedules import Cron
    from prefect.types.entrypoint import EntrypointType

    module, _, attribute = served.entrypoint.rpartition(".")
    made = RunnerDeployment.from_flow(
        getattr(import_module(module), attribute),
        name=name,
        schedule=Cron(cron, timezone=timezone, slug=name) if cron is not None else None,
        parameters=parameters,
        description=served.description,
        tags=["reflexion", served.kind],
        enforce_parameter_schema=True,
        concurrency_limit=ConcurrencyLimitConfig(
            limit=served.limit, collision_strategy=ConcurrencyLimitStrategy(served.strategy)
        ),
        entrypoint_type=EntrypointType.MODULE_PATH,
    )
    made.entrypoint = served.entrypoint
    return made


def check_schedule(cron: str, timezone: str) -> None:
    """Make sure that a schedule can be followed.

    Raises:
        ConfigurationError: names what is wrong; for a time zone, the ones it may have been meant to be.
    """
    known = available_timezones()
    if timezone not in known:
        near = difflib.get_close_matches(timezone, known, n=3, cutoff=0.5)
        hint = f"did you mean {', '.join(near)}?" if near else "write it like Europe/Berlin or UTC"
        raise ConfigurationError(f"--timezone: {timezone!r} is no time zone; {hint}")
    from prefect.client.schemas.schedules import CronSchedule
    from pydantic import ValidationError

    try:
        CronSchedule(cron=cron, timezone=timezone)
    except ValidationError:
        raise ConfigurationError(
            f"--cron: {cron!r} is not of the form 'minute hour day month weekday', as '30 2 * * *'"
        ) from None
