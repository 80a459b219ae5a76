"""Parses Python source from several threads."""

import ast
from typing import Literal, overload

__all__ = ["parse_python"]

_TRIES = 20


@overload
def parse_python(code: str, filename: str = ..., mode: Literal["exec"] = ...) -> ast.Module: ...
@overload
def parse_python(code: str, filename: str = ..., *, mode: Literal["eval"]) -> ast.Expression: ...
def parse_python(code: str, filename: str = "<unknown>", mode: str = "exec") -> ast.Module | ast.Expression:
    """Parse code as `ast.parse` does, but never fail because another thread parses at the same time.

    CPython before 3.11.8 and 3.12.2 keeps one depth counter for all threads while it builds a tree. Where the
    interpreter switches threads meanwhile, it raises `SystemError` for code that is right (python/cpython#106905).

    Raises:
        SyntaxError, ValueError, RecursionError, MemoryError: as `ast.parse`.
    """
    left = _TRIES
    while True:
        left -= 1
        try:
            return ast.parse(code, filename, mode)  # pyright: ignore[reportReturnType] - the mode says which
        except SystemError as exc:
            if not left or "depth mismatch" not in str(exc):
                raise
