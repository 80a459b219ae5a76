"""Games of the package `textworld` as environments: `{"name": "textworld", "game": "game.z8"}`.

The package is optional (`pip install "reflexion-on-prefect[textworld]"`). Its command `tw-make` makes games.
"""

from __future__ import annotations

import re
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from reflexion.actors.environments import State
from reflexion.errors import ConfigurationError

__all__ = ["TextWorld"]


class TextWorld:
    """One game. An `Environment`; the reward is the share of the game's points, all of them once it is won.

    Args:
        game: path of the game's file: `.z8` or `.ulx`, with the `.json` that `tw-make` puts beside it.
        show_commands: tell after each step which commands are possible.

    Raises:
        ConfigurationError: the package is not installed, or there is no such file.
    """

    commands = "look, inventory, go north, take …, open …, insert … into …"

    def __init__(self, game: str, *, show_commands: bool = True) -> None:
        if find_spec("textworld") is None:
            raise ConfigurationError(
                "the environment 'textworld' needs the package textworld; "
                "run: pip install 'reflexion-on-prefect[textworld]'"
            )
        self._path = Path(game).expanduser()
        if not self._path.is_file():
            raise ConfigurationError(f"the environment 'textworld': there is no game {game!r}; tw-make makes one")
        self._show = show_commands
        self._world: Any = None

    def reset(self) -> State:
        """Begin the game anew."""
        self.close()
        textworld: Any = import_module("textworld")  # by name: it has no types, and takes seconds
        infos = textworld.EnvInfos(score=True, max_score=True, won=True, lost=True, admissible_commands=self._show)
        self._world = textworld.start(str(self._path), infos)
        return self._state(self._world.reset(), False)

    def step(self, action: str) -> State:
        """Carry out a command."""
        state, _, done = self._world.step(action)
        return self._state(state, bool(done))

    def close(self) -> None:
        """End the game's interpreter."""
        if self._world is not None:
            self._world.close()
            self._world = None

    def _state(self, state: Any, done: bool) -> State:
        told = _tidy(str(state["feedback"]))
        if self._show and not done:
            told = f"{told}\nYou can: {', '.join(state['admissible_commands'] or ())}."
        most = state["max_score"] or 0
        reward = 1.0 if state["won"] else (state["score"] or 0) / most if most else 0.0
        return State(told, reward, done)


_BANNER = re.compile(r"^[\s$\\/|_]*$")
_STATUS = re.compile(r"\n>\s[^\n]*-= [^\n]*$")


def _tidy(feedback: str) -> str:
    """What a game says, without the banner it begins with and the status line of a terminal."""
    lines = _STATUS.sub("", feedback.strip()).splitlines()
    while lines and _BANNER.match(lines[0]):
        del lines[0]
    return "\n".join(lines).strip()
