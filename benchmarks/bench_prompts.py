"""What prompts cost: tokens per episode with a token budget, with batched reflections, and without either.

    python benchmarks/bench_prompts.py --datasets starter,humaneval --limit 16

Runs on the embedded model, so that the solve rate beside the tokens is a real one. Nothing is cached.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from reflexion.batch import execute_batch
from reflexion.config import BatchParameters
from reflexion.telemetry.summary import Summary

UNBOUNDED = 1_000_000


def variants(budget: int, batch: int) -> dict[str, dict[str, int]]:
    """What is compared: parameters by name, the plain one first."""
    return {
        "no budget": {"prompt_tokens": UNBOUNDED},
        f"budget {budget}": {"prompt_tokens": budget},
        f"reflections x{batch}": {"prompt_tokens": UNBOUNDED, "reflect_batch": batch},
    }


async def measure(dataset: str, limit: int, llm: str, parameters: dict[str, int]) -> Summary:
    """One run of a dataset; its figures."""
    with tempfile.TemporaryDirectory(prefix="bench-prompts-") as runs:
        result = await execute_batch(
            BatchParameters.model_validate(
                {
                    "dataset": dataset,
                    "llm": llm,
                    "limit": limit,
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
    print("| dataset | prompts | tokens per episode | against no budget | LLM calls | solved |")
    print("|---|---|---:|---:|---:|---:|")
    for dataset in options.datasets.split(","):
        plain: float | None = None
        for name, parameters in variants(options.budget, options.reflect_batch).items():
            s = asyncio.run(measure(dataset, options.limit, options.llm, parameters))
            tokens = (s.tokens.prompt + s.tokens.completion) / max(s.episodes, 1)
            plain = plain or tokens
            print(
                f"| {dataset} | {name} | {tokens:.0f} | {tokens / plain:.2f} | {s.llm_calls} "
                f"| {s.solved} of {s.episodes} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
