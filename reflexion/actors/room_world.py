"""A small text world: rooms with doors between them, containers, and things to be carried to their places.

It is described by the problem's settings, so that a line of a dataset is a whole world:

    {"name": "rooms",
     "rooms": {"kitchen": {"exits": {"north": "hall"}, "holds": ["apple"], "containers": {"fridge": ["milk"]}},
               "hall": {"exits": {"south": "kitchen"}, "containers": {"table": []}, "open": ["table"]}},
     "start": "hall", "goal": {"apple": "table"}, "steps": 20}

The reward is the share of the goal that is fulfilled; the world ends when all of it is, or after `steps`.
"""

from __future__ import annotations

import re
from typing import Any

from pydantic import Field, ValidationError, model_validator

from reflexion.actors.environments import State
from reflexion.errors import ConfigurationError
from reflexion.types import Frozen

__all__ = ["Rooms"]


class _Room(Frozen):
    exits: dict[str, str] = Field(default={})
    holds: tuple[str, ...] = ()
    containers: dict[str, tuple[str, ...]] = Field(default={})
    open: tuple[str, ...] = Field(default=(), description="Containers that are open, such as tables.")


class _World(Frozen):
    rooms: dict[str, _Room] = Field(min_length=1)
    start: str
    goal: dict[str, str] = Field(min_length=1, description="Thing → the container or room it must be in.")
    steps: int = Field(default=30, ge=1)

    @model_validator(mode="after")
    def _holds_together(self) -> _World:
        containers = [name for room in self.rooms.values() for name in room.containers]
        things = [
            thing for room in self.rooms.values() for held in (room.holds, *room.containers.values()) for thing in held
        ]
        if self.start not in self.rooms:
            raise ValueError(f"start: there is no room {self.start!r}")
        for name, room in self.rooms.items():
            for direction, other in room.exits.items():
                if other not in self.rooms:
                    raise ValueError(f"rooms.{name}.exits.{direction}: there is no room {other!r}")
            for opened in room.open:
                if opened not in room.containers:
                    raise ValueError(f"rooms.{name}.open: there is no container {opened!r}")
        for thing, place in self.goal.items():
            if thing not in things:
                raise ValueError(f"goal: there is no {thing!r}")
            if place not in containers and place not in self.rooms:
                raise ValueError(f"goal.{thing}: there is neither a container nor a room {place!r}")
        names = [*containers, *things]
        twice = next((n for n in names if names.count(n) > 1), None)
        if twice is not None:
            raise ValueError(f"{twice!r} stands in two places; give every thing and container its own name")
        return self


_DIRECTIONS = {"n": "north", "s": "south", "e": "east", "w": "west", "u": "up", "d": "down"}
_FILLERS = re.compile(r"\b(?:the|a|an|to|at|up)\b")
_CARRIED = "you"


class Rooms:
    """The world of one trial. An `Environment`.

    Raises:
        ConfigurationError: the description does not hold together; names the field.
    """

    commands = (
        "look, inventory, go DIRECTION, open CONTAINER, close CONTAINER, take THING, put THING in CONTAINER, drop THING"
    )

    def __init__(self, **settings: Any) -> None:
        try:
            self._world = _World.model_validate(settings)
        except ValidationError as exc:
            wrong = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}".lstrip(": ") for e in exc.errors()[:3])
            raise ConfigurationError(f"field 'environment': the world 'rooms' is described wrongly: {wrong}") from None
        self._rooms = self._world.rooms
        self._home = {name: room for room, r in self._rooms.items() for name in r.containers}
        self.reset()

    def reset(self) -> State:
        """Everything at its place again."""
        self._at = self._world.start
        self._steps = 0
        self._open = {name for room in self._rooms.values() for name in room.open}
        self._place: dict[str, str] = {}
        for name, room in self._rooms.items():
            self._place |= dict.fromkeys(room.holds, name)
            for container, things in room.containers.items():
                self._place |= dict.fromkeys(things, container)
        return self._state(f"{self._look()}\nYou can: {self.commands}.")

    def step(self, action: str) -> State:
        """Carry out a command; one that makes no sense changes nothing."""
        self._steps += 1
        words = _FILLERS.sub(" ", re.sub(r"[^\w\s]", " ", action.lower())).split()
        verb, rest = (words[0], " ".join(words[1:])) if words else ("", "")
        match verb:
            case "look" | "l" | "examine":
                told = self._look()
            case "inventory" | "i":
                held = self._in(_CARRIED)
                told = f"You carry {_listed(held)}."
            case "go" | "walk" | "move":
                told = self._go(rest)
            case "open" | "close":
                told = self._turn(rest, opened=verb == "open")
            case "take" | "get" | "pick" | "grab":
                told = self._take(rest)
            case "put" | "place" | "insert":
                told = self._put(rest)
            case "drop":
                told = self._put(f"{rest} in {self._at}")
            case _ if _DIRECTIONS.get(verb, verb) in _DIRECTIONS.values():
                told = self._go(verb)
            case _:
                told = f"That is not understood. You can: {self.commands}."
        return self._state(told)

    def _state(self, told: str) -> State:
        reached = sum(self._fulfilled(thing, place) for thing, place in self._world.goal.items())
        reward = reached / len(self._world.goal)
        if reward == 1:
            return State(f"{told}\nThe goal is reached.", 1.0, True)
        if self._steps >= self._world.steps:
            return State(f"{told}\nThe time is over.", reward, True)
        return State(told, reward, False)

    def _fulfilled(self, thing: str, place: str) -> bool:
        return self._place[thing] == place

    def _in(self, place: str) -> list[str]:
        return [thing for thing, where in self._place.items() if where == place]

    def _look(self) -> str:
        room = self._rooms[self._at]
        lines = [f"You are in the {self._at}."]
        if things := self._in(self._at):
            lines.append(f"You see {_listed(things)}.")
        for name in room.containers:
            inside = f"in it {_listed(self._in(name))}" if name in self._open else "closed"
            lines.append(f"There is a {name}, {inside}.")
        ways = ", ".join(f"{direction} to the {other}" for direction, other in room.exits.items())
        lines.append(f"You can go {ways}." if ways else "There is no way out.")
        return " ".join(lines)

    def _go(self, where: str) -> str:
        exits = self._rooms[self._at].exits
        direction = _DIRECTIONS.get(where, where)
        # The name of the room next door says the same.
        found = exits.get(direction) or next((room for room in exits.values() if room == where), None)
        if found is None:
            return f"You cannot go there. You can go {', '.join(exits) or 'nowhere'}."
        self._at = found
        return self._look()

    def _turn(self, name: str, *, opened: bool) -> str:
        if self._home.get(name) != self._at:
            return f"There is no {name or 'such thing'} to open or close here."
        if opened == (name in self._open):
            return f"The {name} is {'open' if opened else 'closed'} already."
        if opened:
            self._open.add(name)
            return f"You open the {name}. In it: {_listed(self._in(name))}."
        self._open.discard(name)
        return f"You close the {name}."

    def _reachable(self, thing: str) -> bool:
        place = self._place.get(thing)
        return place == self._at or (place in self._open and self._home.get(place) == self._at)

    def _take(self, rest: str) -> str:
        thing = rest.partition(" from ")[0].strip()
        if self._place.get(thing) == _CARRIED:
            return f"You carry the {thing} already."
        if not self._reachable(thing):
            return f"There is no {thing or 'such thing'} that you can take here."
        self._place[thing] = _CARRIED
        return f"You take the {thing}."

    def _put(self, rest: str) -> str:
        thing, _, place = (
            part.strip() for part in re.sub(r"\b(?:into|onto|on|inside)\b", "in", rest).partition(" in ")
        )
        if self._place.get(thing) != _CARRIED:
            return f"You do not carry {'a ' + thing if thing else 'that'}."
        if place != self._at and self._home.get(place) != self._at:
            return f"There is no {place or 'such place'} here to put it in."
        if place in self._home and place not in self._open:
            return f"The {place} is closed."
        self._place[thing] = place
        return f"You put the {thing} in the {place}."


def _listed(things: list[str]) -> str:
    return ", ".join(f"a {thing}" for thing in things) or "nothing"
