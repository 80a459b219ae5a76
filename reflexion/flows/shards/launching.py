"""Where the flow runs of shards come from: a deployment, or processes of this machine."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol
from uuid import UUID, uuid4

from prefect import Flow, Task
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.responses import DeploymentResponse
from prefect.context import FlowRunContext
from prefect.exceptions import ObjectNotFound
from prefect.states import Cancelling, Pending, Scheduled

from reflexion.errors import RunFailedError
from reflexion.flows.deployed import unserved
from reflexion.run.parameters import BatchParameters
from reflexion.sharding.shard_parameters import Shard

__all__ = ["DeploymentLauncher", "Launched", "Launcher", "ProcessLauncher"]

GRACE_SECONDS = 20.0
"""How long a process that was told to end may take."""


class Launched:
    """A flow run that carries a shard out."""

    def __init__(self, run: UUID, process: asyncio.subprocess.Process | None = None, log: Path | None = None) -> None:
        self.run, self.process, self.log = run, process, log

    @property
    def died(self) -> str | None:
        """How its process ended, if it has one and it ended."""
        code = self.process.returncode if self.process is not None else None
        if code is None:
            return None
        how = f"by {signal.Signals(-code).name}" if code < 0 else f"with exit code {code}"
        return f"its process ended {how}" + (f", see {self.log}" if self.log is not None else "")


class Launcher(Protocol):
    """Starts shards."""

    async def start(self, shard: Shard, parameters: BatchParameters) -> Launched:
        """Make the flow run of a shard."""
        ...

    async def idle_reason(self) -> str | None:
        """Why a flow run may not be taken up, in words."""
        ...

    async def stop(self, launched: Launched) -> None:
        """End a flow run; returns before it has ended."""
        ...

    async def aclose(self) -> None:
        """Wait for what was stopped."""
        ...


def values_of(shard: Shard, parameters: BatchParameters) -> dict[str, Any]:
    """The flow run's parameters as JSON."""
    return {
        "parameters": parameters.model_dump(mode="json", exclude_defaults=True),
        "shard": shard.model_dump(mode="json"),
    }


def title_of(shard: Shard) -> str:
    """Name of a shard's flow run."""
    again = f" · attempt {shard.attempt}" if shard.attempt > 1 else ""
    return f"{shard.run} · shard {shard.index + 1} of {shard.count}{again}"


async def _link(client: PrefectClient, shard: Shard) -> UUID | None:
    """A task run of this flow run that stands for the shard's flow run, as Prefect links subflows."""
    context = FlowRunContext.get()
    if context is None or context.flow_run is None:
        return None
    stand_in: Task[[], None] = Task(fn=lambda: None, name=f"shard {shard.index + 1} of {shard.count}")
    key = f"{shard.index}-{shard.attempt}-{uuid4().hex[:8]}"
    made = await client.create_task_run(
        stand_in, flow_run_id=context.flow_run.id, dynamic_key=key, name=title_of(shard), state=Pending()
    )
    return made.id


class DeploymentLauncher:
    """Shards as flow runs of a deployment, taken up by whatever serves it."""

    def __init__(self, client: PrefectClient, deployment: DeploymentResponse) -> None:
        self._client, self._deployment = client, deployment

    async def start(self, shard: Shard, parameters: BatchParameters) -> Launched:
        run = await self._client.create_flow_run_from_deployment(
            self._deployment.id,
            parameters=values_of(shard, parameters),
            state=Scheduled(),
            name=title_of(shard),
            tags=["reflexion-shard", f"run:{shard.run}"],
            parent_task_run_id=await _link(self._client, shard),
        )
        return Launched(run.id)

    async def idle_reason(self) -> str | None:
        return await unserved(self._client, self._deployment)

    async def stop(self, launched: Launched) -> None:
        with suppress(ObjectNotFound):
            await self._client.set_flow_run_state(launched.run, Cancelling(message="The run it belongs to ended."))

    async def aclose(self) -> None:
        """Whatever serves the deployment ends its own processes."""


class ProcessLauncher:
    """Shards as flow runs in processes of this machine."""

    def __init__(self, client: PrefectClient, flow: Flow[..., Any], entrypoint: str, logs: Path) -> None:
        """
        Args:
            flow: the flow of a shard.
            entrypoint: path of its module and its name there.
            logs: folder of what the processes print.
        """
        self._client, self._flow, self._entrypoint, self._logs = client, flow, entrypoint, logs
        self._started: list[asyncio.subprocess.Process] = []

    async def start(self, shard: Shard, parameters: BatchParameters) -> Launched:
        shard = shard.model_copy(update={"parent": os.getpid()})
        run = await self._client.create_flow_run(
            self._flow,
            name=title_of(shard),
            parameters=values_of(shard, parameters),
            tags=["reflexion-shard", f"run:{shard.run}"],
            parent_task_run_id=await _link(self._client, shard),
        )
        # A local server of this process is reached by its address: the others must not start their own.
        environment = {
            **os.environ,
            "PREFECT_API_URL": str(self._client.api_url),
            "PREFECT__FLOW_RUN_ID": str(run.id),
        }
        self._logs.mkdir(parents=True, exist_ok=True)
        log = self._logs / f"{shard.name}-{shard.attempt}.log"
        with log.open("wb") as out:
            # A session of its own: Ctrl-C reaches this process, which tells the others.
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "prefect.flow_engine", self._entrypoint),
                env=environment,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=out,
                stderr=asyncio.subprocess.STDOUT,
                start_new_session=True,
            )
        self._started.append(process)
        return Launched(run.id, process, log)

    async def idle_reason(self) -> str | None:
        return None

    async def stop(self, launched: Launched) -> None:
        if launched.process is not None and launched.process.returncode is None:
            # The state first: a process that is told to end asks whether it was cancelled.
            with suppress(ObjectNotFound):
                await self._client.set_flow_run_state(launched.run, Cancelling(message="The run it belongs to ended."))
            with suppress(ProcessLookupError):
                launched.process.terminate()

    async def aclose(self) -> None:
        running = [p for p in self._started if p.returncode is None]
        if not running:
            return
        _, late = await asyncio.wait([asyncio.ensure_future(p.wait()) for p in running], timeout=GRACE_SECONDS)
        for task in late:
            task.cancel()
        for process in running:
            if process.returncode is None:
                process.kill()
                await process.wait()


async def insist(call: Callable[[], Awaitable[Any]], transient: Callable[[BaseException], bool], seconds: float) -> Any:
    """Ask a server again and again until it answers.

    Raises:
        RunFailedError: it did not within `seconds`.
    """
    deadline = asyncio.get_running_loop().time() + seconds
    while True:
        try:
            return await call()
        except Exception as exc:
            if not transient(exc):
                raise
            if asyncio.get_running_loop().time() > deadline:
                raise RunFailedError(f"the Prefect server does not answer: {type(exc).__name__}: {exc}") from exc
            await asyncio.sleep(1.0)
