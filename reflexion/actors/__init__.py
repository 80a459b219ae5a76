"""How a trial is made when the model acts: with tools, or in an environment.

The loop stays the only loop. What is here happens within its trial step: turns of one trial, each a call
of the model and what came of it.

    react.py          the turns: ask, act, observe, until there is an answer
    tools.py          typed Python functions as tools
    builtin.py        `documents` and `calculator`
    textual.py        tool calls read from plain text, for models without function calling
    environments.py   the `Environment` protocol, and opening one by name
    rooms.py          a small text world
    textworld.py      games of the package `textworld`, which is optional
    templates.py      what the model is told
"""

from __future__ import annotations

from reflexion.actors.environments import Environment, State
from reflexion.actors.tools import Tool, tool

__all__ = ["Environment", "State", "Tool", "tool"]
