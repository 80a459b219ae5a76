"""Deployments on a Prefect server: found by name, held against this version, and asked whether anybody serves them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from prefect import Flow
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.filters import FlowFilter, FlowFilterName
from prefect.client.schemas.objects import DeploymentStatus, WorkerStatus, WorkPool
from prefect.client.schemas.responses import DeploymentResponse
from prefect.client.schemas.sorting import DeploymentSort
from prefect.deployments.runner import RunnerDeployment
from prefect.exceptions import ObjectNotFound
from prefect.types.entrypoint import EntrypointType

from reflexion.errors import ConfigurationError

__all__ = ["DEFAULT_NAME", "check_version", "deploy_on_pool", "find_deployment", "unserved"]

DEFAULT_NAME = "default"
"""The deployment that is meant where a flow has several and none was named."""


async def find_deployment(client: PrefectClient, flow: Flow[..., Any], name: str | None) -> DeploymentResponse:
    """A deployment of a flow.

    Args:
        name: `NAME` or `FLOW/NAME`; None: the only one there is, or the one called `default`.

    Raises:
        ConfigurationError: there is none, or there are several; says which.
    """
    where = f"on {client.api_url}"
    of_flow = FlowFilter(name=FlowFilterName(any_=[flow.name]))
    known = await client.read_deployments(flow_filter=of_flow, sort=DeploymentSort.NAME_ASC, limit=200)
    names = sorted(deployment.name for deployment in known)
    shown = ", ".join(f"{flow.name}/{n}" for n in names) or "none"
    if name is None:
        chosen = names[0] if len(names) == 1 else DEFAULT_NAME
        if chosen not in names:
            raise ConfigurationError(
                f"deployment: name one; the flow {flow.name!r} has {shown} {where}"
                + ("" if names else "; deploy it with: prefect deploy --prefect-file deployments/prefect.yaml --all")
            )
    else:
        given, slash, chosen = name.rpartition("/")
        if slash and given != flow.name:
            raise ConfigurationError(f"deployment: {name!r} is of the flow {given!r}; one of {flow.name!r} is needed")
        if chosen not in names:
            raise ConfigurationError(f"deployment: there is no {flow.name}/{chosen} {where}; there are: {shown}")
    found = await client.read_deployment_by_name(f"{flow.name}/{chosen}")
    check_version(found, flow)
    return found


def check_version(deployment: DeploymentResponse, flow: Flow[..., Any]) -> None:
    """Make sure that a deployment takes the parameters of this version.

    Raises:
        ConfigurationError: it was made by another version; names the parameters and says how to deploy.
    """
    ours = _fields(flow.parameters.model_dump())
    theirs = _fields(deployment.parameter_openapi_schema or {})
    missing, more = sorted(ours - theirs), sorted(theirs - ours)
    if not missing and not more:
        return
    which = "an older" if missing else "a newer"
    names = ", ".join((missing or more)[:5])
    raise ConfigurationError(
        f"deployment: {flow.name}/{deployment.name} was made by {which} version, which "
        f"{'lacks' if missing else 'has further'} parameters ({names}); deploy it again with this version: "
        "prefect deploy --prefect-file deployments/prefect.yaml --all"
    )


def _fields(schema: Mapping[str, Any]) -> set[str]:
    """Names of all parameters of a schema, those within models too."""
    found = set(cast("dict[str, Any]", schema.get("properties") or {}))
    definitions = cast("dict[str, dict[str, Any]]", schema.get("definitions") or {})
    for name, model in definitions.items():
        found |= {f"{name.rpartition('__')[2]}.{field}" for field in model.get("properties") or {}}
    return found


async def deploy_on_pool(client: PrefectClient, flow: Flow[..., Any], entrypoint: str, pool: str) -> DeploymentResponse:
    """A deployment of a flow on a work pool, of the pool's name; made or brought up to date.

    Args:
        entrypoint: path of the flow's module and its name there, which workers import.

    Raises:
        ConfigurationError: there is no such pool.
    """
    await read_pool(client, pool)
    made = RunnerDeployment.from_flow(
        flow, name=pool, work_pool_name=pool, entrypoint_type=EntrypointType.MODULE_PATH, tags=["reflexion"]
    )
    made.entrypoint = entrypoint
    identity = await made.aapply()  # pyright: ignore[reportGeneralTypeIssues]
    return await client.read_deployment(identity)


async def read_pool(client: PrefectClient, name: str) -> WorkPool:
    """A work pool.

    Raises:
        ConfigurationError: there is none of this name; says how to make it.
    """
    try:
        return await client.read_work_pool(name)
    except ObjectNotFound:
        known = ", ".join(sorted(pool.name for pool in await client.read_work_pools(limit=200))) or "none"
        raise ConfigurationError(
            f"pool: there is no work pool {name!r} on {client.api_url} (there are: {known}); "
            f"make it with: prefect work-pool create {name} --type process"
        ) from None


async def unserved(client: PrefectClient, deployment: DeploymentResponse) -> str | None:
    """Why nobody takes up the runs of a deployment, and what to do; None when somebody does.

    Raises:
        ConfigurationError: its pool or its queue is paused, or gone: waiting would not help.
    """
    name = deployment.work_pool_name
    if name is None:
        if deployment.status is DeploymentStatus.NOT_READY:
            return f"no process serves the deployment {deployment.name!r}; start one with: reflexion serve"
        return None
    pool = await read_pool(client, name)
    if pool.is_paused:
        raise ConfigurationError(
            f"pool: the work pool {name!r} is paused, so no worker takes up its runs; "
            f"resume it with: prefect work-pool resume {name}"
        )
    if deployment.work_queue_id is not None:
        queue = await client.read_work_queue(deployment.work_queue_id)
        if queue.is_paused:
            raise ConfigurationError(
                f"pool: the queue {queue.name!r} of the work pool {name!r} is paused; "
                f"resume it with: prefect work-queue resume {queue.name} --pool {name}"
            )
    if pool.type.endswith(":push") or pool.type == "prefect:managed":
        return None  # these need no worker
    workers = await client.read_workers_for_work_pool(name, offset=0, limit=200)
    if any(worker.status is WorkerStatus.ONLINE for worker in workers):
        return None
    return f"no worker of the work pool {name!r} is running; start one with: prefect worker start --pool {name}"
