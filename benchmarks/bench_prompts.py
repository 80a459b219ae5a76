"""What prompts cost: tokens per episode with a token budget, with batched reflections, and without either.

    python benchmarks/bench_prompts.py --datasets starter,humaneval --limit 16
    python benchmarks/bench_prompts.py --datasets scripted --limit 200

Runs on the embedded model, so that the solve rate beside the tokens is a real one. Nothing is cached. The
dataset `scripted` is answered by a scripted endpoint with 200 ms a call, where many problems fail at once: it
shows the calls that batched reflections save, and that none is lost.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from reflexion.run.batch_run import execute_batch
from reflexion.run.parameters import BatchParameters
from reflexion.telemetry.summary import Summary
from reflexion.testing import ScriptedEndpoint, learns_from_reflection

UNBOUNDED = 1_000_000


def variants(budget: int, batch: int, *, scripted: bool) -> dict[str, dict[str, int]]:
    """What is compared: parameters by name, the plain one first."""
    batched = {f"reflections x{batch}": {"prompt_tokens": UNBOUNDED, "reflect_batch": batch}}
    if scripted:
        return {"one by one": {"prompt_tokens": UNBOUNDED}, **batched}
    return {"no budget": {"prompt_tokens": UNBOUNDED}, f"budget {budget}": {"prompt_tokens": budget}, **batched}


def answer(prompt: str) -> str:
    """Wrong until a reflection is in the prompt; several reflections at once where several are asked for."""
    items = [int(number) for number in re.findall(r"^### Item (\d+)", prompt, re.MULTILINE)]
    one = learns_from_reflection()
    if not items:
        return one(prompt)
    return json.dumps({"answers": [{"item": item, "text": one("reflect")} for item in items]})


@contextmanager
def scripted_problems(count: int) -> Iterator[dict[str, Any]]:
    """Problems in a file and the endpoint that solves them, as parameters."""
    with tempfile.TemporaryDirectory(prefix="bench-prompts-") as folder, ScriptedEndpoint(answer, latency=0.2) as up:
        path = Path(folder) / "problems.jsonl"
        problems = [
            {
                "id": str(n),
                "prompt": f"[task {n}] What is six times seven? Answer with the number only.",
                "answer": "42",
            }
            for n in range(count)
        ]
        path.write_text("".join(json.dumps(problem) + "\n" for problem in problems))
        yield {"dataset": str(path), "llm": "scripted", "base_url": up.url, "concurrency": 50}


async def measure(parameters: dict[str, Any]) -> Summary:
    """One run of a dataset; its figures."""
    with tempfile.TemporaryDirectory(prefix="bench-prompts-") as runs:
        result = await execute_batch(
            BatchParameters.model_validate(
                {
                    "strategy": "last_attempt_and_reflexion",
                    "use_cache": False,
                    "runs": runs,
                    **parameters,
                }
            )
        )
        return result.summary


def main() -> None:
    """Measure all variants on all datasets and print one table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--datasets", default="starter,humaneval")
    parser.add_argument("--limit", type=int, default=16)
    parser.add_argument("--llm", default="local")
    parser.add_argument("--budget", type=int, default=300)
    parser.add_argument("--reflect-batch", type=int, default=4)
    options = parser.parse_args()
    print("| dataset | prompts | tokens per episode | against the first | LLM calls | solved |")
    print("|---|---|---:|---:|---:|---:|")
    for dataset in options.datasets.split(","):
        if dataset == "scripted":
            with scripted_problems(options.limit) as shared:
                compare(dataset, shared, variants(options.budget, options.reflect_batch, scripted=True))
        else:
            shared = {"dataset": dataset, "llm": options.llm, "limit": options.limit}
            compare(dataset, shared, variants(options.budget, options.reflect_batch, scripted=False))


def compare(dataset: str, shared: dict[str, Any], variants: dict[str, dict[str, int]]) -> None:
    """Measure each variant and print its row."""
    plain: float | None = None
    for name, parameters in variants.items():
        s = asyncio.run(measure(shared | parameters))
        tokens = (s.tokens.prompt + s.tokens.completion) / max(s.episodes, 1)
        plain = plain or tokens
        row = (dataset, name, f"{tokens:.0f}", f"{tokens / plain:.2f}", s.llm_calls, f"{s.solved} of {s.episodes}")
        print(f"| {' | '.join(map(str, row))} |", flush=True)


if __name__ == "__main__":
    main()
