"""The actor `react`: thoughts, actions and observations in turns, until there is an answer (Yao et al. 2022).

Tools are called by function calling where the endpoint has it, else by lines of text. Whatever goes wrong
with a call, a tool that does not exist, arguments that do not fit, one that raises or hangs, is an
observation; turns are bounded, and so is the trial.
"""

from __future__ import annotations

import inspect
import time
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import orjson
from pydantic import JsonValue

from reflexion.actors.builtin_tools import BUILTIN
from reflexion.actors.environments import State, environment_fingerprint, open_environment, state_of
from reflexion.actors.text_calls import Action, read_reply, tagged_calls
from reflexion.actors.tools import call_with_limit
from reflexion.errors import (
    ContextWindowError,
    MalformedReplyError,
    PermanentError,
    RefusalError,
    RequestRejectedError,
    ToolsRejectedError,
)
from reflexion.llm.chat_model import ChatReply, ChatRequest, Message
from reflexion.loop.asking import ask, finish_of, kept_thought, spent
from reflexion.loop.prompt_budget import trim_middle
from reflexion.loop.prompts import kind_of
from reflexion.types import Problem, Trial, Usage

if TYPE_CHECKING:
    from reflexion.actors.environments import Environment
    from reflexion.loop.steps import Runtime, StepCall

__all__ = ["act", "act_fields", "turns_of"]

VERSION = 1
"""Raised when what is here changes what it returns for the same inputs; part of the cache key."""
TURNS, WORLD_TURNS = 8, 30
"""Calls of the model in one trial, where nothing is said: for a question, and in an environment."""
CALLS = 8
"""Calls of tools carried out of one reply at most."""
_SHORT = 160
"""Characters that stay of an old observation when the prompt is too long."""
_ACT = "act"


def turns_of(runtime: Runtime, problem: Problem) -> int:
    """How many turns a trial of a problem has."""
    return runtime.options.max_turns or (WORLD_TURNS if problem.environment is not None else TURNS)


def act_fields(runtime: Runtime, problem: Problem) -> dict[str, Any]:
    """What of acting shapes a trial: part of its cache key."""
    return {
        "act": [VERSION, runtime.prompts.act.digest],
        "tools": [t.fingerprint for t in runtime.tools(problem)],
        "tool_mode": runtime.options.tool_mode,
        "tool_timeout": runtime.options.tool_timeout,
        "turns": turns_of(runtime, problem),
        "environment": environment_fingerprint(problem),
    }


async def act(call: StepCall) -> Trial:
    """Make a trial in turns.

    Raises:
        RetryableError, PermanentError: as the model raises them; a malformed reply or a refusal ends the
            trial without an answer.
        ConfigurationError, DatasetError: the problem's environment cannot be opened.
    """
    turns = _Turns(call)
    try:
        await turns.run()
    except (MalformedReplyError, RefusalError) as exc:
        turns.broken_by(exc)
    finally:
        await turns.close()
    return turns.trial()


class _Turns:
    """One trial: its messages, what was done, and what it cost."""

    def __init__(self, call: StepCall) -> None:
        self._runtime, self._attempt = call.runtime, call.attempt
        self._problem = call.attempt.problem
        self._prompts = call.runtime.prompts.act
        self._tools = {t.name: t for t in call.runtime.tools(self._problem)}
        self._llm = call.runtime.actor(call.attempt.index)
        self._world: Environment | None = None
        self._state = State("")
        self._messages: list[Message] = []
        self._kept = 0
        """Messages of the opening, which are never cut."""
        self._turns: list[dict[str, JsonValue]] = []
        self._commands: list[str] = []
        self._answer, self._error, self._finish = "", cast("str | None", None), cast("str | None", None)
        self._usage, self._seconds, self._requests = Usage(), 0.0, 0
        self._retried: list[str] = []
        self._thoughts: list[str] = []
        self._model = self._llm.model
        mode = call.runtime.options.tool_mode
        able = getattr(self._llm, "tool_calling", None) is not False
        self._native = mode == "native" or (mode == "auto" and able)

    # -- the trial -------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Take turns until there is an answer, the world has ended, or turns are used up."""
        if self._problem.environment is not None:
            await self._enter()
        self._messages = self._opening()
        most = turns_of(self._runtime, self._problem)
        for turn in range(1, most + 1):
            final = turn == most and self._world is None
            reply = await self._ask(final and turn > 1, final)
            if await self._take(turn, reply, final):
                return
        if self._world is None:
            self._error = f"NoAnswer: no answer was given within {most} turns"

    def trial(self) -> Trial:
        """What the turns came to."""
        answer = "\n".join(self._commands) if self._problem.environment is not None else self._answer
        return Trial(
            index=self._attempt.index,
            answer=answer.strip(),
            thought=kept_thought("\n\n".join(self._thoughts)),
            trajectory=tuple(self._turns),
            finish_reason=self._finish,
            error=self._error,
            lessons=self._attempt.past.lessons,
            model=self._model,
            usage=self._usage,
            seconds=self._seconds,
            attempts=max(self._requests, 1),
            retried=tuple(self._retried),
        )

    def broken_by(self, error: MalformedReplyError | RefusalError) -> None:
        """End without an answer: a reply could not be used."""
        self._usage = self._usage + spent(error)
        self._requests += 1
        self._error, self._finish = f"{type(error).__name__}: {error}", finish_of(error)
        self._thoughts += [error.thought] if isinstance(error, MalformedReplyError) and error.thought else []

    async def close(self) -> None:
        """Let the world go."""
        ending = getattr(self._world, "close", None)
        if callable(ending):
            await call_with_limit("close", self._runtime.options.tool_timeout, ending)

    # -- asking ----------------------------------------------------------------------------------------

    def _opening(self) -> list[Message]:
        """The messages before the first turn."""
        runtime, prompts = self._runtime, self._prompts
        kind = "environment" if self._world is not None else kind_of(self._problem)
        system = prompts.system[kind]
        told = "\n".join(f"- {t.usage}" for t in self._tools.values())
        if self._world is not None and not self._native:
            listed = prompts.tools.format(tools=told) if told else ""
            system = prompts.textual_environment.format(system=system, tools=listed)
        elif self._tools and not self._native:
            system = prompts.textual.format(system=system, tools=told)
        reads = any(t in BUILTIN["documents"] for t in self._tools.values())
        after = prompts.observation.format(text=self._shown(self._state.observation)) if self._world is not None else ""
        example = [] if self._native or self._world is not None else self._example()
        first, *rest = runtime.prompts.trial_messages(
            self._problem,
            self._attempt.past,
            runtime.budget,
            system=system,
            documents=not reads,
            after=after,
            reserved=sum(len(m.content) for m in example),
        )
        self._kept = 1 + len(example) + len(rest)
        return [first, *example, *rest]

    def _example(self) -> list[Message]:
        """A worked example for the first tool that has one."""
        shown = next((e for name, e in self._prompts.examples.items() if name in self._tools), ())
        return [Message(role="assistant" if n % 2 else "user", content=text) for n, text in enumerate(shown)]

    def _definitions(self) -> tuple[dict[str, JsonValue], ...]:
        if not self._native:
            return ()
        own = [_act_definition(self._prompts.command, self._world)] if self._world is not None else []
        return tuple(cast("list[dict[str, JsonValue]]", [*own, *(t.definition for t in self._tools.values())]))

    async def _ask(self, told: bool, final: bool) -> ChatReply:
        """The model's next reply. `told`: that it is the last one; `final`: it has no tools any more."""
        messages = [*self._messages]
        if told:
            messages.append(Message(role="user", content=self._prompts.last_turn))
        tools = self._definitions()

        def build() -> ChatRequest:
            return ChatRequest(
                messages=self._fitted(list(messages), tools),
                sampling=self._runtime.options.sampling,
                tools=tools,
                tool_choice="none" if final and tools else None,
                salt=f"{self._attempt.repeat}.{self._attempt.index}",
            )

        try:
            request, reply = await ask(self._runtime, self._llm, build)
        except RequestRejectedError as exc:
            # Not every endpoint's client learns what its refusals mean: a batch job's do not.
            about = isinstance(exc, ToolsRejectedError) or "tool" in str(exc).lower()
            about = about and not isinstance(exc, ContextWindowError)
            if not tools or not about or self._runtime.options.tool_mode == "native":
                raise
            # The endpoint has no function calling: the same trial goes on in plain text.
            self._native = False
            self._messages = self._opening()
            return await self._ask(told, final)
        if not tools:
            self._runtime.calibrate(request, reply)
        self._usage = self._usage + reply.usage
        self._seconds += reply.seconds
        self._requests += reply.attempts
        self._retried += reply.retried
        self._thoughts += [reply.thought] if reply.thought else []
        self._model, self._finish = reply.model, reply.finish_reason
        return reply

    def _fitted(self, messages: list[Message], tools: tuple[dict[str, JsonValue], ...]) -> tuple[Message, ...]:
        """The messages within the budget: what is oldest after the opening is cut first."""
        budget = self._runtime.budget
        if budget is None:
            return tuple(messages)
        defined = len(orjson.dumps(tools)) if tools else 0
        over = sum(len(m.content) for m in messages) + defined - budget.counter.characters(budget.limit)
        for position in range(self._kept, len(messages)):
            if over <= 0:
                break
            message = messages[position]
            newest = position == len(messages) - 1
            short = trim_middle(message.content, max(_SHORT, len(message.content) - over) if newest else _SHORT)
            over -= len(message.content) - len(short)
            budget.trimmed += len(short) < len(message.content)
            messages[position] = message.model_copy(update={"content": short})
        return tuple(messages)

    # -- acting ----------------------------------------------------------------------------------------

    async def _take(self, turn: int, reply: ChatReply, final: bool) -> bool:
        """Do what a reply says; whether the trial is at its end."""
        calls = [_normal(call, turn, n) for n, call in enumerate(reply.tool_calls)]
        if not calls and self._native:
            calls = [_written(a, turn, n) for n, a in enumerate(tagged_calls(reply.text))]
        if not calls:
            return await self._take_text(turn, reply, final)
        self._messages.append(Message(role="assistant", content=reply.text, tool_calls=tuple(calls)))
        thought = reply.text.strip()
        for number, call in enumerate(calls):
            function = cast("dict[str, str]", call["function"])
            name, arguments = function["name"], function["arguments"]
            if final or number >= CALLS:
                text = self._note(turn, thought, name, arguments, "Error: not carried out, there are too many calls.")
            else:
                text = await self._do(turn, thought, Action(name, arguments, arguments))
            thought = ""
            self._messages.append(Message(role="tool", content=text, tool_call_id=str(call["id"])))
            if self._ended:
                return True
        return False

    async def _take_text(self, turn: int, reply: ChatReply, final: bool) -> bool:
        said = read_reply(reply.text)
        action = said.action
        if action is not None and self._native and self._world is None and action.name not in self._tools:
            action = None  # with function calling, a line that looks like an action is part of the answer
            said = said._replace(thought="", answer=reply.text)
        if action is None and self._world is None:
            answer = said.answer if said.answer is not None else reply.text
            return self._conclude(turn, said.thought if said.answer is not None else "", answer)
        if action is None:
            self._turns.append({"turn": turn, "thought": reply.text.strip(), "observation": self._prompts.no_action})
            self._say(reply.text, self._prompts.no_action)
            return False
        if final:
            self._note(turn, said.thought, action.name, action.arguments, "Error: not carried out, no turn is left.")
            return False
        text = await self._do(turn, said.thought, action)
        self._say(said.used, self._prompts.observation.format(text=text))
        return self._ended

    def _say(self, said: str, answer: str) -> None:
        self._messages += [Message(role="assistant", content=said), Message(role="user", content=answer)]

    def _conclude(self, turn: int, thought: str, answer: str) -> bool:
        self._answer = answer.strip()
        self._turns.append({"turn": turn, **({"thought": thought} if thought else {}), "answer": self._answer})
        return True

    @property
    def _ended(self) -> bool:
        return self._world is not None and (self._state.done or self._error is not None)

    async def _do(self, turn: int, thought: str, action: Action) -> str:
        """Carry one action out; what the model is told of it."""
        if self._world is not None and (action.name == _ACT or action.name not in self._tools):
            return await self._step(turn, thought, action)
        tool = self._tools.get(action.name)
        if tool is None:
            names = ", ".join(self._tools) or "none"
            return self._note(
                turn, thought, action.name, action.arguments,
                f"Error: there is no tool {action.name!r}; there are: {names}.",
            )  # fmt: skip
        started = time.perf_counter()
        result = await tool.call(action.arguments, self._problem, seconds=self._runtime.options.tool_timeout)
        self._seconds += time.perf_counter() - started
        return self._note(turn, thought, action.name, action.arguments, result.text, failed=result.failed)

    def _note(
        self, turn: int, thought: str, name: str, arguments: Any, text: str, *, failed: bool | None = None
    ) -> str:
        shown = self._shown(text)
        entry: dict[str, JsonValue] = {"turn": turn}
        if thought:
            entry["thought"] = thought
        entry |= {"tool": name, "arguments": _json_safe(arguments), "observation": shown}
        if failed if failed is not None else text.startswith("Error:"):
            entry["failed"] = True
        self._turns.append(entry)
        return shown

    def _shown(self, text: str) -> str:
        # A tool may return what is no valid text, which could be neither sent nor kept.
        clean = text.encode("utf-8", "replace").decode()
        return trim_middle(clean, self._prompts.observation_limit)

    # -- the world -------------------------------------------------------------------------------------

    async def _enter(self) -> None:
        self._world = open_environment(self._problem)
        state, error, _ = await self._change(self._world.reset)
        if state is None:
            raise PermanentError(f"problem {self._problem.id!r}: its environment cannot be reset: {error}")
        self._state = state
        shown = self._shown(state.observation)
        self._turns.append({"turn": 0, "observation": shown, "reward": state.reward, "done": state.done})

    async def _step(self, turn: int, thought: str, action: Action) -> str:
        assert self._world is not None
        command, world = _command(action), self._world
        state, error, hangs = await self._change(partial(world.step, command))
        if state is not None:
            self._state = state
        elif hangs:
            # It may be in the midst of the step: nothing that follows would mean anything.
            self._error = f"EnvironmentError: {error}"
        text = self._shown(state.observation if state is not None else error)
        self._commands.append(command)
        entry: dict[str, JsonValue] = {"turn": turn}
        if thought:
            entry["thought"] = thought
        entry |= {"action": command, "observation": text, "reward": self._state.reward, "done": self._state.done}
        self._turns.append(entry)
        return text

    async def _change(self, method: Any) -> tuple[State | None, str, bool]:
        """The state a method of the world gives; else why there is none, and whether it hangs."""
        started = time.perf_counter()
        outcome = await call_with_limit("the environment", self._runtime.options.tool_timeout, method)
        self._seconds += time.perf_counter() - started
        if outcome.error is not None:
            return None, outcome.error, outcome.timed_out
        try:
            return state_of(outcome.value), "", False
        except TypeError as exc:
            return None, f"Error: the environment gave no state: {exc}", False


def _act_definition(template: str, world: Environment | None) -> dict[str, Any]:
    commands = getattr(world, "commands", None) or "look"
    schema = {
        "type": "object",
        "properties": {"command": {"type": "string"}},
        "required": ["command"],
        "additionalProperties": False,
    }
    described = inspect.cleandoc(template.format(commands=commands))
    return {"type": "function", "function": {"name": _ACT, "description": described, "parameters": schema}}


def _command(action: Action) -> str:
    """The command for a world: the argument of `act`, else the line as it stands."""
    if action.name != _ACT:
        return action.line.strip()
    given = action.arguments
    if isinstance(given, str) and given.lstrip().startswith("{"):
        try:
            given = orjson.loads(given)
        except orjson.JSONDecodeError:
            return given.strip()
    if isinstance(given, dict):
        given = next(iter(cast("dict[str, Any]", given).values()), "")
    if isinstance(given, list):
        given = " ".join(map(str, cast("list[Any]", given)))
    return str(given).strip()


def _normal(call: dict[str, JsonValue], turn: int, number: int) -> dict[str, JsonValue]:
    """A tool call in the form that endpoints take back, whatever the model made of it."""
    function = call.get("function")
    fields = cast("dict[str, Any]", function) if isinstance(function, dict) else {}
    name, arguments = fields.get("name"), fields.get("arguments")
    if not isinstance(arguments, str):
        arguments = orjson.dumps(arguments).decode() if arguments is not None else "{}"
    given = call.get("id")
    identifier = given if isinstance(given, str) and given else f"call_{turn}_{number}"
    told = {"name": name if isinstance(name, str) else "", "arguments": arguments}
    return {"id": identifier, "type": "function", "function": cast("JsonValue", told)}


def _written(action: Action, turn: int, number: int) -> dict[str, JsonValue]:
    """A call that stood in the text of a reply, as if it had been made by function calling."""
    return _normal({"function": {"name": action.name, "arguments": _json_safe(action.arguments)}}, turn, number)


def _json_safe(value: Any) -> JsonValue:
    """Arguments as they can be kept: JSON where they are, else their text."""
    if isinstance(value, str):
        if not value.lstrip().startswith("{"):
            return value.encode("utf-8", "replace").decode()
        try:
            return orjson.loads(value)
        except orjson.JSONDecodeError:
            return value.encode("utf-8", "replace").decode()
    try:
        return orjson.loads(orjson.dumps(value, default=str, option=orjson.OPT_NON_STR_KEYS))
    except (TypeError, ValueError):
        return repr(value).encode("utf-8", "replace").decode()
