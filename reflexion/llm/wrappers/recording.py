"""Record every exchange with a model, and answer from such a recording.

A recording is JSON lines, one exchange each: the request as the loop made it and the reply or the
error that came of it. Requests hold no key, no URL and no port, so neither do recordings.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import threading
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import orjson
from pydantic import ValidationError

from reflexion import errors
from reflexion.errors import ConfigurationError, ReflexionError, ReplayMissError, StorageError
from reflexion.keys import differences, digest
from reflexion.llm.chat_model import LLM, ChatReply, ChatRequest
from reflexion.llm.wrappers.wrapped import WrappedLLM, split_reply

__all__ = ["FORMAT", "RecordingLLM", "ReplayLLM", "request_key"]

_NO_TOOLS = errors.ToolsRejectedError.__name__
FORMAT = 1
"""Version of the lines. Lines of a newer one are refused."""


def request_key(request: ChatRequest) -> str:
    """What tells one request from another: everything in it, `salt` and `role` included."""
    return digest(request.model_dump(mode="json"))


# -- recording -----------------------------------------------------------------------------------------


class _Appender:
    """Appends whole lines to a file: one write each, so that lines of several writers do not mix."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._fd = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
            size = os.fstat(self._fd).st_size
            # A process that was killed may have left half a line.
            if size and os.pread(self._fd, 1, size - 1) != b"\n":
                os.write(self._fd, b"\n")
        except OSError as exc:
            raise StorageError(f"--record {path}: cannot be written ({exc.strerror or exc})") from None
        weakref.finalize(self, os.close, self._fd)

    def append(self, line: bytes) -> None:
        with self._lock:
            try:
                written = os.write(self._fd, line)
            except OSError as exc:
                raise StorageError(f"--record {self._path}: cannot be written ({exc.strerror or exc})") from None
        if written != len(line):
            raise StorageError(f"--record {self._path}: the disk is full")


_appenders: weakref.WeakValueDictionary[Path, _Appender] = weakref.WeakValueDictionary()


class RecordingLLM(WrappedLLM):
    """Passes requests on to another model and writes each exchange down. Implements `LLM`.

    Several of them may write to one file: those of all roles of a run do.

    Args:
        llm: the model that answers.
        path: the recording; appended to when it exists.

    Raises:
        StorageError: the file cannot be written.
    """

    def __init__(self, llm: LLM, path: str | Path) -> None:
        super().__init__(llm)
        key = Path(path).expanduser().absolute()
        appender = _appenders.get(key)
        if appender is None:
            appender = _appenders[key] = _Appender(key)
        self._appender = appender

    async def chat(self, request: ChatRequest) -> ChatReply:
        """The recorded model's reply; see `LLM.chat`.

        Raises:
            StorageError: the exchange cannot be written.
        """
        try:
            reply = await self._llm.chat(request)
        except ReflexionError as error:
            self._write(request, {"error": {"kind": type(error).__name__, "message": str(error)}})
            raise
        self._write(request, {"reply": reply.model_dump(mode="json", exclude_defaults=True)})
        return reply

    def _write(self, request: ChatRequest, result: Mapping[str, Any]) -> None:
        exchange = {
            "format": FORMAT,
            "model": self._llm.model,
            "request": request.model_dump(mode="json", exclude_defaults=True),
            **result,
        }
        self._appender.append(orjson.dumps(exchange) + b"\n")


# -- replay --------------------------------------------------------------------------------------------


class ReplayLLM:
    """Answers from a recording, and never from anywhere else. Implements `LLM`.

    The same request recorded several times is answered in that order, and from then on with the last
    answer: a cache may have spared the recorded run the repetitions that this one asks for.

    Args:
        path: the recording.

    Raises:
        ConfigurationError: it is missing, or a line is wrong; names the line.
    """

    def __init__(self, path: str | Path) -> None:
        self._path = Path(path).expanduser()
        try:
            content = self._path.read_bytes()
        except OSError as exc:
            raise ConfigurationError(f"replay:{path}: cannot be read ({exc.strerror or exc})") from None
        self._digest = hashlib.sha256(content).hexdigest()
        self._models: dict[str, None] = {}
        self._results: dict[str, list[ChatReply | tuple[str, str]]] = {}
        self._asked: dict[str, int] = {}
        self._tools = False
        self._by_messages: dict[str, ChatRequest] = {}
        lines = content.split(b"\n")
        for number, line in enumerate(lines, 1):
            # Half a line at the end is what a killed recorder leaves; anywhere else it is a fault.
            if line.strip() and not (number == len(lines) and not _is_json(line)):
                self._read(number, line)
        if not self._results:
            raise ConfigurationError(f"replay:{path}: no exchange in it; was it made with --record?")

    def _read(self, number: int, line: bytes) -> None:
        where = f"replay:{self._path}, line {number}"
        try:
            exchange = cast("dict[str, Any]", orjson.loads(line))
            version = exchange["format"]
            if not isinstance(version, int) or version > FORMAT:
                raise ConfigurationError(
                    f"{where}: format {version!r} is newer than this version reads ({FORMAT}); upgrade to replay it"
                )
            request = ChatRequest.model_validate(exchange["request"])
            if "error" in exchange:
                result = (str(exchange["error"]["kind"]), str(exchange["error"]["message"]))
            else:
                result = split_reply(ChatReply.model_validate(exchange["reply"]))
        except (orjson.JSONDecodeError, KeyError, TypeError, ValidationError) as exc:
            why = str(exc).split("\n")[0] if not isinstance(exc, KeyError) else f"the field {exc} is missing"
            raise ConfigurationError(f"{where}: not a recorded exchange ({why}); record it again") from None
        self._models[str(exchange.get("model", ""))] = None
        self._tools = self._tools or bool(request.tools and not (isinstance(result, tuple) and result[0] == _NO_TOOLS))
        self._results.setdefault(request_key(request), []).append(result)
        self._by_messages.setdefault(_messages_key(request), request)

    @property
    def model(self) -> str:
        """The recorded model's name; of several, all."""
        return "+".join(self._models)

    @property
    def identity(self) -> dict[str, Any]:
        """Name and digest of the recording."""
        return {"model": self.model, "recording": self._digest}

    @property
    def priced(self) -> bool:
        """Replies cost what they did when they were recorded, which the recording tells."""
        return True

    @property
    def tool_calling(self) -> bool | None:
        """False if no tools were offered to the recorded model, or it refused them."""
        return None if self._tools else False

    async def chat(self, request: ChatRequest) -> ChatReply:
        """The recorded reply.

        Raises:
            ReplayMissError: the request is not in the recording; says how it differs from the closest.
            ReflexionError: the recorded error.
        """
        await asyncio.sleep(0)  # a turn of the event loop, as with any model
        key = request_key(request)
        results = self._results.get(key)
        if results is None:
            raise ReplayMissError(self._miss(request))
        asked = self._asked.get(key, 0)
        self._asked[key] = asked + 1
        result = results[min(asked, len(results) - 1)]
        if isinstance(result, ChatReply):
            return result
        kind, message = result
        error = getattr(errors, kind, errors.EndpointError)
        raise error(message)

    def _miss(self, request: ChatRequest) -> str:
        shown = request.messages[-1].content[:80].replace("\n", " ") if request.messages else ""
        known = f"{sum(map(len, self._results.values()))} exchanges"
        close = self._by_messages.get(_messages_key(request))
        why = "its messages were never sent"
        if close is not None:
            found = differences(close.model_dump(mode="json"), request.model_dump(mode="json"))
            why = "; ".join(f"{name} is {new!r}, recorded {old!r}" for name, old, new in found)
        return (
            f"replay:{self._path} ({known}) has no answer for the {request.role}'s request {shown!r}: {why}. "
            "Use the options of the recorded run, or record again with --record"
        )

    async def aclose(self) -> None:
        """Nothing to release."""


def _messages_key(request: ChatRequest) -> str:
    return digest([m.model_dump(mode="json") for m in request.messages])


def _is_json(line: bytes) -> bool:
    try:
        orjson.loads(line)
    except orjson.JSONDecodeError:
        return False
    return True
