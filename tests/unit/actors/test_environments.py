"""Environments: acting in them turn by turn, the reward as the verdict, and worlds that misbehave."""

from __future__ import annotations

import asyncio
import sys
import types
from pathlib import Path
from typing import Any

import pytest

from reflexion import Episode, Problem, ReflexionAgent
from reflexion.actors.environments import Environment, State, open_environment
from reflexion.actors.room_world import Rooms
from reflexion.datasets import open_dataset
from reflexion.errors import ConfigurationError, DatasetError, ReflexionError
from reflexion.evaluators import resolve_evaluator
from reflexion.run.checks import check_problems
from reflexion.testing import ScriptedLLM
from tests.unit.actors.test_react import Textual, called, runtime_of

HOUSE: dict[str, Any] = {
    "name": "rooms",
    "rooms": {
        "kitchen": {"exits": {"north": "hall"}, "holds": ["apple"], "containers": {"fridge": ["milk"]}},
        "hall": {"exits": {"south": "kitchen"}, "containers": {"table": []}, "open": ["table"]},
    },
    "start": "hall",
    "goal": {"apple": "table", "milk": "table"},
    "steps": 12,
}
TIDY = Problem(id="tidy", prompt="Put the apple and the milk on the table.", environment=HOUSE)
WAY = ["go south", "take the apple", "open fridge", "take milk", "north", "put apple on table", "put milk on the table"]


def run(llm: Any, problem: Problem = TIDY, **more: Any) -> Episode:
    given: dict[str, Any] = {"max_trials": 1, "actor": "react"}
    return ReflexionAgent(llm, **(given | more)).run(problem)


def house(**more: Any) -> Rooms:
    return Rooms(**{k: v for k, v in (HOUSE | more).items() if k != "name"})


def test_the_world_is_walked_through() -> None:
    world = house()
    assert isinstance(world, Environment)
    assert world.reset().observation.startswith(
        "You are in the hall. There is a table, in it nothing. You can go south"
    )
    states = [world.step(command) for command in WAY]
    assert [s.reward for s in states] == [0, 0, 0, 0, 0, 0.5, 1.0] and states[-1].done
    assert states[2].observation == "You open the fridge. In it: a milk."
    assert world.reset().reward == 0 and "apple" in world.step("go kitchen").observation


@pytest.mark.parametrize(
    ("command", "told"),
    [
        ("dance", "That is not understood."), ("", "That is not understood."), ("go up", "You cannot go there."),
        ("take moon", "There is no moon that you can take here."), ("open sky", "There is no sky to open"),
        ("put apple in table", "You do not carry a apple."), ("inventory", "You carry nothing."),
        ("close table", "You close the table."), ("open table", "The table is open already."), ("look", "You are in"),
    ],
)  # fmt: skip
def test_a_command_that_makes_no_sense_changes_nothing(command: str, told: str) -> None:
    assert house().step(command).observation.startswith(told)


def test_things_are_carried_dropped_and_kept_out_of_what_is_closed() -> None:
    world = house(goal={"apple": "hall"}, start="kitchen")
    assert world.step("take milk").observation == "There is no milk that you can take here."
    told = [world.step(c).observation for c in ("take apple", "take apple", "put apple in fridge", "put apple in moon")]
    assert told[1:] == ["You carry the apple already.", "The fridge is closed.", "There is no moon here to put it in."]
    world.step("n")
    assert world.step("drop apple") == State("You put the apple in the hall.\nThe goal is reached.", 1.0, True)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"start": "attic"}, "start: there is no room 'attic'"),
        ({"goal": {"pear": "table"}}, "goal: there is no 'pear'"),
        ({"goal": {"apple": "shelf"}}, "goal.apple: there is neither a container nor a room 'shelf'"),
        ({"rooms": {"hall": {"exits": {"up": "attic"}}}}, "rooms.hall.exits.up: there is no room 'attic'"),
        ({"rooms": {"hall": {"open": ["box"]}}}, "rooms.hall.open: there is no container 'box'"),
        ({"rooms": {"hall": {"holds": ["apple", "apple"]}}, "goal": {"apple": "hall"}}, "'apple' stands in two places"),
        ({"steps": 0}, "steps: Input should be greater than or equal to 1"),
        ({"walls": 4}, "walls: Extra inputs are not permitted"),
    ],
)
def test_a_world_that_does_not_hold_together_is_refused(wrong: dict[str, Any], said: str) -> None:
    problem = TIDY.model_copy(update={"environment": HOUSE | wrong})
    reason = resolve_evaluator(None, problem).check(problem)
    assert reason is not None and said in reason


def test_a_model_acts_by_text_and_the_reward_is_the_verdict() -> None:
    llm = Textual([f"Thought: on.\nAction: {command}" for command in WAY])
    episode = run(llm)
    trial = episode.trials[0]
    assert episode.solved and trial.answer == "\n".join(WAY) and trial.evaluation is not None
    assert trial.evaluation.evaluator == "environment" and trial.evaluation.details == {"reward": 1.0, "actions": 7}
    assert trial.trajectory[0]["reward"] == 0 and "You are in the hall" in str(trial.trajectory[0]["observation"])
    assert trial.trajectory[-1]["done"] is True and trial.trajectory[-1]["thought"] == "on."
    assert "Observation: You are in the hall" in llm.requests[0].messages[1].content


def test_a_model_acts_by_function_calling_beside_its_own_tools() -> None:
    def note(text: str) -> str:
        """Write something down."""
        return "noted"

    replies = [called(("note", '{"text": "hm"}')), *(called(("act", f'{{"command": "{c}"}}')) for c in WAY)]
    llm = ScriptedLLM(replies)
    episode = run(llm, tools=[note])
    assert episode.solved and episode.trials[0].answer == "\n".join(WAY)
    names = [d["function"]["name"] for d in llm.requests[0].tools]  # type: ignore[index]
    assert names == ["act", "note"] and "go DIRECTION" in str(llm.requests[0].tools[0])


def test_a_goal_that_is_missed_is_told_with_the_last_observation() -> None:
    replies = iter(["I wait and see.", *[f"Action: {c}" for c in WAY[:6]]])
    episode = run(Textual(lambda request: next(replies, "Action: look")), max_turns=10)
    verdict = episode.trials[0].evaluation
    assert verdict is not None and (verdict.passed, verdict.score, verdict.failure_class) == (False, 0.5, "GoalMissed")
    assert verdict.feedback.startswith("The turns were used up after 9 actions with the reward 0.5; 1 is needed.")
    assert resolve_evaluator("environment:0.5", TIDY).config["threshold"] == 0.5
    over = run(Textual(lambda request: "Action: look"), max_turns=20).trials[0].evaluation
    assert over is not None and over.feedback.startswith("The world ended after 12 actions")


class Odd:
    """A world whose steps do what they are told."""

    def __init__(self, first: str = "Begin.") -> None:
        self.first = first

    async def reset(self) -> Any:
        if self.first == "broken":
            raise OSError("no power")
        return self.first

    def step(self, action: str) -> Any:
        match action:
            case "raise":
                raise KeyError("lost")
            case "nothing":
                return None
            case "dict":
                return {"observation": "so", "reward": 0.5}
            case "nan":
                return ("so", float("nan"), False)
        return asyncio.sleep(60) if action == "hang" else State("won", 2.0, True)


def odd(**settings: Any) -> Problem:
    return Problem(id="odd", prompt="Win.", environment={"name": f"{__name__}:Odd", **settings})


def test_a_world_of_your_own_may_misbehave() -> None:
    commands = ["raise", "nothing", "nan", "dict", "win"]
    trial = run(Textual([f"Action: {c}" for c in commands]), odd()).trials[0]
    told = [t["observation"] for t in trial.trajectory]
    assert told[1] == "Error: the environment raised KeyError: 'lost'"
    assert told[2] == "Error: the environment gave no state: a state is (observation, reward, done), not NoneType"
    assert "a state is (observation: str" in str(told[3]) and told[4:] == ["so", "won"]
    assert trial.evaluation is not None and trial.evaluation.passed and trial.evaluation.score == 1.0


async def test_a_world_that_hangs_ends_the_trial() -> None:
    runtime = runtime_of(Textual(["Action: hang"]), (), tool_timeout=0.05)
    from tests.unit.actors.test_react import perform, step

    trial: Any = await perform(step(runtime, odd()))
    assert trial.error == "EnvironmentError: Error: the environment did not answer within 0.05 seconds."
    verdict = await resolve_evaluator(None, odd()).evaluate(odd(), trial)
    assert not verdict.passed and "did not answer" in verdict.feedback


UNKNOWN: list[tuple[Any, str]] = [
    ("castle", "unknown environment 'castle'; there are rooms, textworld"),
    ("no_such_module:World", "the environment 'no_such_module:World': module 'no_such_module' cannot be imported"),
    (f"{__name__}:HOUSE", "is neither a class nor a function"),
    ({"name": f"{__name__}:Odd", "second": 1}, "does not take that: got an unexpected keyword argument 'second'"),
    ({"name": "textworld", "game": "nowhere.z8"}, "textworld"),
]
BROKEN: list[tuple[Any, str]] = [
    ("builtins:dict", "gave dict, which lacks reset or step"),
    (f"{__name__}:collapses", "cannot be made: OSError: no ground"),
]


def collapses() -> None:
    raise OSError("no ground")


@pytest.mark.parametrize(("environment", "said"), [*UNKNOWN, *BROKEN])
def test_an_environment_that_cannot_be_had_is_refused(environment: Any, said: str) -> None:
    problem = Problem(id="p", prompt="q", environment=environment)
    with pytest.raises((ConfigurationError, DatasetError)) as caught:
        open_environment(problem)
    assert said in str(caught.value)


@pytest.mark.parametrize(("environment", "said"), UNKNOWN)
def test_it_is_refused_before_the_run_where_that_takes_no_making(environment: Any, said: str) -> None:
    problem = Problem(id="p", prompt="q", environment=environment)
    with pytest.raises(DatasetError, match="problem 'p' cannot be judged by 'environment'") as caught:
        check_problems([problem], runtime_of(ScriptedLLM(), ()))
    assert said in str(caught.value)


def test_interactive_problems_need_the_actor_that_acts(tmp_path: Path) -> None:
    runtime = runtime_of(ScriptedLLM(), ())
    runtime.options = runtime.options.model_copy(update={"actor": "direct"})
    with pytest.raises(ConfigurationError, match=r"'tidy' is acted in turn by turn .*: use --actor react"):
        check_problems([TIDY], runtime)
    file = tmp_path / "worlds.jsonl"
    file.write_text('{"prompt": "q", "environment": {"rooms": {}}}\n')
    with pytest.raises(DatasetError, match=r"worlds.jsonl:1: .*'environment' is not the name of an environment"):
        open_dataset(file)
    with pytest.raises(ReflexionError, match="cannot be reset: Error: the environment raised OSError: no power"):
        raise_error(run(Textual(["Action: win"]), odd(first="broken")))


def raise_error(episode: Episode) -> None:
    assert episode.error is not None
    raise ReflexionError(episode.error.message)


def test_games_of_textworld_are_played(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a stand-in for the package, which is optional: what it is asked for, and how its states are read."""
    banner = " $$$$ \\ /\n| $$ |\n"

    class Game:
        closed = False

        def reset(self) -> dict[str, Any]:
            return self.state(f"{banner}\nWin!\n\n-= Attic =-\nDust.\n\n>   -= Attic =-0/4", 0)

        def state(self, feedback: str, score: int) -> dict[str, Any]:
            listed = ["go down"]
            return {"feedback": feedback, "score": score, "max_score": 4, "won": False, "admissible_commands": listed}

        def step(self, action: str) -> tuple[dict[str, Any], int, bool]:
            return self.state(f"You {action}.", 1), 1, action == "fall"

        def close(self) -> None:
            self.closed = True

    game = Game()
    package = types.ModuleType("textworld")
    package.__spec__ = types.SimpleNamespace(name="textworld")  # type: ignore[assignment]
    package.EnvInfos = dict  # type: ignore[attr-defined]
    package.start = lambda path, infos: game  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "textworld", package)
    (tmp_path / "attic.z8").write_bytes(b"")
    problem = Problem(id="g", prompt="Win.", environment={"name": "textworld", "game": str(tmp_path / "attic.z8")})
    trial = run(Textual(["Action: go down", "Action: fall"]), problem).trials[0]
    assert trial.trajectory[0]["observation"] == "Win!\n\n-= Attic =-\nDust.\nYou can: go down."
    assert [t["reward"] for t in trial.trajectory] == [0, 0.25, 0.25] and game.closed
