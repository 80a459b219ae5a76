"""OpenAI's Batch API as a model: requests gather into jobs that cost half and take up to a day.

Every job is noted in a state file before it exists and after, so that a process that was killed at any
moment finds its jobs again and pays for nothing twice.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

import orjson

from reflexion.errors import (
    CallTimeoutError,
    ConfigurationError,
    EndpointError,
    MalformedReplyError,
    ModelNotFoundError,
    PermanentError,
    ReflexionError,
    RequestRejectedError,
    RetryableError,
)
from reflexion.keys import digest
from reflexion.llm.batch_jobs.batch_state import BatchJob, BatchState
from reflexion.llm.chat_model import ChatReply, ChatRequest, Role
from reflexion.llm.endpoint.classify import classify, redact, reply_error
from reflexion.llm.endpoint.clients import OPENAI_URL, Endpoint, answered, note_answer
from reflexion.llm.endpoint.connections import HttpReply
from reflexion.llm.endpoint.dialect import Dialect
from reflexion.llm.endpoint.extras import NO_EXTRAS, Extras
from reflexion.llm.endpoint.wire import cut_reply, encode_request, parse_reply, plain_usage
from reflexion.llm.pacing.backoff import retry_after_failure
from reflexion.llm.prices import Pricer, price_list

if TYPE_CHECKING:
    from openai import AsyncOpenAI

__all__ = ["BatchApiLLM"]

log = logging.getLogger(__name__)

T = TypeVar("T")

MOST_REQUESTS = 50_000
"""Requests the endpoint takes in one job."""
MOST_BYTES = 190 * 2**20
"""Bytes of one job's file, somewhat below the endpoint's 200 MB."""

_ENDED = frozenset({"completed", "failed", "expired", "cancelled"})
_MOST_LISTED = 1000
_MOST_AGE = 26 * 3600.0
"""Seconds after which a job is given up: its window of a day, and time to spare."""
_MARK = "reflexion_job"


class _Queued:
    def __init__(self, key: str, body: Mapping[str, Any], role: Role) -> None:
        self.key = key
        self.role: Role = role
        self.line = orjson.dumps({"custom_id": key, "method": "POST", "url": "/v1/chat/completions", "body": body})
        self.answer: asyncio.Future[ChatReply] = asyncio.get_running_loop().create_future()
        self.submissions = 0
        self.asked = time.monotonic()


class BatchApiLLM:
    """A model asked through batch jobs. Implements `LLM`. For one event loop.

    Requests gather until none has come for `linger` seconds, which with all episodes of a run under
    way is one round of trials or reflections; then they become one job. Poll intervals grow from
    `poll_first` to `poll_most`.

    Args:
        model: the model's name.
        state: the state file, one for each run and model.
        base_url: the endpoint; None: `OPENAI_BASE_URL`, else OpenAI.
        api_key: the key; None: `OPENAI_API_KEY`.
        linger: seconds of quiet after which a job is made.
        poll_first, poll_most: seconds between two looks at the jobs.
        max_submissions: jobs one request may be part of, where jobs expire or fail it for the moment.
        call_timeout: seconds one administrative call (upload, look) may take with its retries.
        max_attempts: attempts of one administrative call.
        extras: sent along with every request.

    Raises:
        ConfigurationError: the URL or the key is unusable.
        StorageError: the state file is unusable.
    """

    suggested_concurrency = 10_000
    """Episodes at a time: a round is a job, so all of a round should be under way together."""

    def __init__(
        self,
        model: str,
        state: str | Path,
        base_url: str | None = None,
        api_key: str | None = None,
        *,
        linger: float = 2.0,
        poll_first: float = 5.0,
        poll_most: float = 120.0,
        max_submissions: int = 3,
        call_timeout: float = 600.0,
        max_attempts: int = 8,
        extras: Extras = NO_EXTRAS,
    ) -> None:
        if not model.strip():
            raise ConfigurationError("the model's name is empty")
        self._endpoint = Endpoint(base_url, api_key, extras.headers)
        self._extras = extras
        self._where = self._endpoint.where
        self._model = model
        self._state = BatchState(state)
        self._linger, self._poll_first, self._poll_most = linger, poll_first, poll_most
        self._max_submissions = max_submissions
        self._call_timeout, self._max_attempts = call_timeout, max_attempts
        tokens_field = "max_completion_tokens" if self._where == OPENAI_URL else "max_tokens"
        self._dialect = Dialect(tokens_field=tokens_field)
        self._pending: dict[str, _Queued] = {}
        self._queue: list[_Queued] = []
        self._found: dict[str, Any] = {}
        """Lines of results that nobody has asked for yet in this process."""
        self._gathering: asyncio.TimerHandle | None = None
        self._worker: asyncio.Task[None] | None = None
        self._wake = asyncio.Event()

    def __repr__(self) -> str:
        return f"BatchApiLLM({self._model!r}, base_url={self._where!r})"

    @property
    def model(self) -> str:
        """Name of the model."""
        return self._model

    @property
    def identity(self) -> dict[str, Any]:
        """Model and endpoint: a batched answer is as good as a direct one."""
        return {"model": self._model, **self._endpoint.identity, **self._extras.identity}

    @property
    def priced(self) -> bool:
        """Whether the price of its tokens is known."""
        return self._pricer is not None

    @property
    def _pricer(self) -> Pricer | None:
        return price_list(self._model, self._where)

    @property
    def jobs(self) -> tuple[BatchJob, ...]:
        """The jobs of the state file."""
        return tuple(self._state.jobs.values())

    async def chat(self, request: ChatRequest) -> ChatReply:
        """Answer one request, as part of a job; see `LLM.chat`. May take a day.

        Raises:
            RetryableError: jobs expired or failed it too often.
            PermanentError: the endpoint will not answer it.
        """
        body = encode_request(request, self._model, self._dialect, **self._extras.fields)
        key = digest([self.identity, body, request.salt])[:48]
        queued = self._pending.get(key)
        if queued is None:
            queued = self._pending[key] = _Queued(key, body, request.role)
            if key in self._found:
                self._take(queued, self._found.pop(key))
            elif not any(key in job.keys and not job.collected for job in self._state.jobs.values()):
                self._enqueue(queued)
            self._start_worker()
        # Several may wait for one answer: the cancellation of one must not take it from the others.
        return await asyncio.shield(queued.answer)

    async def aclose(self) -> None:
        """Stop waiting; the jobs go on and are found again through the state file."""
        if self._gathering is not None:
            self._gathering.cancel()
            self._gathering = None
        if self._worker is not None:
            self._worker.cancel()
            await asyncio.gather(self._worker, return_exceptions=True)
            self._worker = None
        await self._endpoint.let_go(self)

    # -- gathering ---------------------------------------------------------------------------------

    def _enqueue(self, queued: _Queued) -> None:
        self._queue.append(queued)
        if self._gathering is not None:
            self._gathering.cancel()
        self._gathering = asyncio.get_running_loop().call_later(self._linger, self._gathered)

    def _gathered(self) -> None:
        self._gathering = None
        self._wake.set()

    def _start_worker(self) -> None:
        if self._worker is None or self._worker.done():
            self._worker = asyncio.get_running_loop().create_task(self._work(), name="batch-api")
            self._worker.add_done_callback(self._worker_ended)

    def _worker_ended(self, task: asyncio.Task[None]) -> None:
        error = None if task.cancelled() else task.exception()
        for key, queued in list(self._pending.items()):
            if not queued.answer.done() and (error is not None or task.cancelled()):
                del self._pending[key]
                if error is not None:
                    queued.answer.set_exception(error)
                else:
                    queued.answer.cancel()

    # -- the worker --------------------------------------------------------------------------------

    async def _work(self) -> None:
        """Make jobs of what has gathered and look at those under way, until nobody waits."""
        client = await self._endpoint.client(self)
        await self._adopt(client)
        interval = self._poll_first
        while self._pending:
            self._wake.clear()
            if self._queue and self._gathering is None:
                await self._submit_gathered(client)
                interval = self._poll_first
            if await self._look(client):
                interval = self._poll_first
                continue
            try:
                async with asyncio.timeout(interval):
                    await self._wake.wait()
            except TimeoutError:
                interval = min(interval * 1.5, self._poll_most)

    async def _adopt(self, client: AsyncOpenAI) -> None:
        """Find the ids of jobs that were noted and perhaps made before the process was killed."""
        orphans = {job.name: job for job in self._state.jobs.values() if job.batch_id is None}
        if not orphans:
            return
        for name, batch_id in (await self._marked(client, set(orphans))).items():
            orphans.pop(name).batch_id = batch_id
        for name, job in orphans.items():  # never made: what it holds is asked for anew
            del self._state.jobs[name]
            self._requeue(job.keys)
        self._state.save()

    async def _marked(self, client: AsyncOpenAI, names: set[str]) -> dict[str, str]:
        """Ids of the jobs with these names, as far as the endpoint has them."""

        async def search() -> dict[str, str]:
            found: dict[str, str] = {}
            seen = 0
            async for batch in client.batches.list(limit=100):
                name = (batch.metadata or {}).get(_MARK)
                if name in names:
                    found[name] = batch.id
                seen += 1
                if len(found) == len(names) or seen >= _MOST_LISTED:
                    break
            return found

        return await self._admin("list jobs", search)

    def _requeue(self, keys: Iterable[str]) -> None:
        for key in keys:
            queued = self._pending.get(key)
            if queued is not None and not queued.answer.done() and queued not in self._queue:
                self._enqueue(queued)

    async def _submit_gathered(self, client: AsyncOpenAI) -> None:
        while self._queue:
            size, count = 0, 0
            for queued in self._queue[:MOST_REQUESTS]:
                size += len(queued.line) + 1
                if size > MOST_BYTES and count:
                    break
                count += 1
            part, self._queue = self._queue[:count], self._queue[count:]
            try:
                await self._submit(client, part)
            except ReflexionError as error:
                self._fail([q.key for q in part], error)

    async def _submit(self, client: AsyncOpenAI, part: list[_Queued]) -> None:
        for queued in part:
            queued.submissions += 1
        name = digest([[q.key for q in part], time.time_ns()])[:32]
        content = b"\n".join(q.line for q in part) + b"\n"
        job = self._state.jobs[name] = BatchJob(name, [q.key for q in part])
        self._state.save()
        tried = False

        async def create() -> str:
            nonlocal tried
            if tried:  # the first try may have made the job although its reply was lost
                found = await self._marked(client, {name})
                if name in found:
                    return found[name]
            tried = True
            batch = await client.batches.create(
                input_file_id=file.id,
                endpoint="/v1/chat/completions",
                completion_window="24h",
                metadata={_MARK: name},
            )
            return batch.id

        try:
            file = await self._admin(
                "upload", lambda: client.files.create(file=(f"{name}.jsonl", content), purpose="batch")
            )
            job.batch_id = await self._admin("create a job", create)
        except PermanentError:
            del self._state.jobs[name]
            self._state.save()
            raise
        self._state.save()
        log.info("batch job %s: %d requests to %s", job.batch_id, len(part), self._model)

    async def _look(self, client: AsyncOpenAI) -> bool:
        """Look at every job; whether one has ended."""
        ended = False
        for job in list(self._state.jobs.values()):
            if job.batch_id is None or job.collected or not any(map(self._waits, job.keys)):
                continue  # nobody waits for it now; it stays noted for those who come later
            try:
                ended |= await self._look_at(client, job, job.batch_id)
            except RetryableError as error:
                log.warning("batch job %s cannot be looked at for the moment: %s", job.batch_id, error)
                if time.time() - job.created > _MOST_AGE:
                    self._forget(job, error)
            except PermanentError as error:
                self._forget(job, error)
        return ended

    async def _look_at(self, client: AsyncOpenAI, job: BatchJob, batch_id: str) -> bool:
        batch: Any = await self._admin("look at a job", lambda: client.batches.retrieve(batch_id))
        if batch.status in _ENDED:
            await self._collect(client, job, batch)
            return True
        if time.time() - job.created > _MOST_AGE:
            raise CallTimeoutError(f"{self._where}: batch job {batch_id} is {batch.status} long after its window")
        return False

    def _forget(self, job: BatchJob, error: ReflexionError) -> None:
        del self._state.jobs[job.name]
        self._state.save()
        self._fail(job.keys, error)

    def _waits(self, key: str) -> bool:
        queued = self._pending.get(key)
        return queued is not None and not queued.answer.done()

    async def _collect(self, client: AsyncOpenAI, job: BatchJob, batch: Any) -> None:
        """Hand out what a job brought; ask again, or fail, for what it did not."""
        lines: dict[str, Any] = {}
        for file_id in (batch.output_file_id, batch.error_file_id):
            if file_id:
                content = await self._admin("download", lambda i=file_id: client.files.content(i))
                lines |= _result_lines(content.content, str(batch.id))
        left: list[str] = []
        for key in job.keys:
            queued = self._pending.get(key)
            line = lines.get(key)
            if line is None:
                left.append(key)
            elif queued is None:
                self._found[key] = line
            else:
                self._take(queued, line)
        job.collected = True
        if not left:
            return
        reason = _why(batch, self._endpoint.key)
        if batch.status in ("failed", "cancelled"):
            error = RequestRejectedError(f"{self._where}: batch job {batch.id} {reason}")
            if len(left) == len(job.keys):
                self._forget(job, error)
            else:
                self._fail(left, error)
        else:
            self._again(left, CallTimeoutError(f"{self._where}: batch job {batch.id} {reason}"))

    def _fail(self, keys: Iterable[str], error: ReflexionError) -> None:
        for key in keys:
            queued = self._pending.pop(key, None)
            if queued is not None and not queued.answer.done():
                queued.answer.set_exception(error)

    def _again(self, keys: Iterable[str], error: ReflexionError) -> None:
        for key in keys:
            queued = self._pending.get(key)
            if queued is not None and queued.submissions >= self._max_submissions:
                self._fail([key], error)
            else:
                self._requeue([key])

    def _take(self, queued: _Queued, line: Mapping[str, Any]) -> None:
        try:
            reply = self._reply(queued, line)
        except RetryableError as error:
            self._again([queued.key], error)
            return
        except ReflexionError as error:
            self._fail([queued.key], error)
            return
        self._pending.pop(queued.key, None)
        if not queued.answer.done():
            queued.answer.set_result(reply)

    def _reply(self, queued: _Queued, line: Mapping[str, Any]) -> ChatReply:
        response = line.get("response") or {}
        status, body = response.get("status_code"), response.get("body") or {}
        if line.get("error") or status != 200:
            error = line.get("error") or body.get("error") or {}
            if error.get("code") == "batch_expired":
                raise CallTimeoutError(f"{self._where}: the batch job expired before this request's turn")
            answer = HttpReply(int(status or 500), {}, orjson.dumps(error))
            raise reply_error(answer, self._where, self._model, self._endpoint.secrets)
        parsed = parse_reply(orjson.dumps(body), "application/json", self._where)
        usage = plain_usage(parsed.tokens)
        if parsed.tokens is not None and (pricer := self._pricer) is not None:
            # Batch jobs are charged at half the price.
            usage = usage.model_copy(update={"cost_usd": pricer(parsed.tokens) / 2})
        if parsed.cut:
            raise cut_reply(parsed, self._where, queued.role, None, usage)
        return ChatReply(
            text=parsed.text,
            thought=parsed.thought,
            model=parsed.model or self._model,
            usage=usage,
            finish_reason=parsed.finish_reason,
            tool_calls=parsed.tool_calls,
            seconds=time.monotonic() - queued.asked,
            attempts=max(1, queued.submissions),
        )

    # -- administrative calls ----------------------------------------------------------------------

    async def _admin(self, what: str, call: Callable[[], Awaitable[T]]) -> T:
        """One call that is not a completion, with our errors and retries."""
        until = time.monotonic() + self._call_timeout

        async def attempt() -> T:
            import openai

            try:
                async with asyncio.timeout(max(0.001, until - time.monotonic())):
                    result = await call()
            except TimeoutError:
                raise CallTimeoutError(f"{self._where} did not answer in time ({what})") from None
            except openai.APIError as error:
                known = answered(self._where)
                if isinstance(error, openai.APIStatusError):
                    note_answer(self._where)
                ours = classify(error, self._where, self._model, *self._endpoint.secrets, known=known)
                if isinstance(ours, ModelNotFoundError):
                    raise RequestRejectedError(
                        f"{self._where} has no such file or job, or no Batch API ({what}: status 404)"
                    ) from None
                raise ours from None
            except (UnicodeError, ValueError) as error:
                raise EndpointError(f"{self._where}: unreadable reply ({what}: {type(error).__name__})") from None
            note_answer(self._where)
            return result

        try:
            return await attempt()
        except RetryableError as error:
            first = error
        return await retry_after_failure(
            first,
            attempt,
            max_attempts=self._max_attempts,
            seconds_left=lambda: until - time.monotonic(),
            on_retry=lambda error: log.info("%s: %s, trying again", what, error),
        )


def _result_lines(content: bytes, batch_id: str) -> dict[str, Any]:
    lines: dict[str, Any] = {}
    for line in content.splitlines():
        if not line.strip():
            continue
        try:
            value = cast("dict[str, Any]", orjson.loads(line))
            lines[str(value["custom_id"])] = value
        except (orjson.JSONDecodeError, KeyError, TypeError):
            raise MalformedReplyError(f"batch job {batch_id}: a line of its results cannot be read") from None
    return lines


def _why(batch: Any, key: str) -> str:
    told = [str(e.message) for e in (batch.errors.data or [])] if batch.errors else []
    return redact(f"{batch.status}{': ' if told else ''}{'; '.join(told[:3])}", key)
