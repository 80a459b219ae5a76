"""Tests made of inputs and a reference solution, as EvalPlus publishes its sets."""

from __future__ import annotations

import json
from typing import Any

__all__ = ["differential_tests"]

_CHECK = """
import copy as _copy
import json as _json
import math as _math

_INPUTS = _json.loads({inputs})
_REFERENCE = {{}}
exec({solution}, _REFERENCE)


def _same(got, wanted):
    if isinstance(got, float) or isinstance(wanted, float):
        try:
            return got == wanted or (got != got and wanted != wanted) or _math.isclose(
                got, wanted, rel_tol=1e-7, abs_tol={tolerance}
            )
        except (TypeError, OverflowError):
            return False
    if isinstance(wanted, (list, tuple)) and type(got) is type(wanted) and len(got) == len(wanted):
        return all(_same(a, b) for a, b in zip(got, wanted))
    return got == wanted


def check_against_reference(candidate):
    judged = 0
    for arguments in _INPUTS:
        try:
            wanted = _REFERENCE[{name}](*_copy.deepcopy(arguments))
        except Exception:
            continue  # JSON could not carry this input as the reference takes it
        assert _same(candidate(*_copy.deepcopy(arguments)), wanted)
        judged += 1
    assert judged, "the reference takes none of the inputs"

"""


def differential_tests(solution: str, name: str, inputs: list[Any], tolerance: Any) -> str:
    """Tests that define `check_against_reference(candidate)`: for every input it gives what the solution gives.

    Floats may differ by the tolerance, by 1e-6 where it is 0 or missing: EvalPlus's own rule.
    """
    return _CHECK.format(
        inputs=repr(json.dumps(inputs)),
        solution=repr(solution),
        name=repr(name),
        tolerance=repr(tolerance or 1e-6) if isinstance(tolerance, int | float) else "1e-6",
    )
