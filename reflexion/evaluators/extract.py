"""Finds the code in a reply: the last fenced block, or the whole reply when there is none.

Prose around bare code, and a tail that the token limit cut off, are left out where what stays defines the function
asked for.
"""

from __future__ import annotations

import ast
import re
import textwrap

__all__ = ["extract_code", "prompt_code"]

_FENCE = re.compile(
    r"^[ \t]*(?P<mark>```+|~~~+)[ \t]*(?P<lang>[\w+-]*)[^\n]*\n(?P<body>.*?)(?:^[ \t]*(?P=mark)|\Z)",
    re.DOTALL | re.MULTILINE,
)


def _fenced(reply: str) -> list[tuple[str, str]]:
    return [(m["lang"].lower(), textwrap.dedent(m["body"])) for m in _FENCE.finditer(reply)]


def prompt_code(prompt: str, entry_point: str | None) -> str | None:
    """The Python code of a prompt that ends in the head of a function, as HumanEval's do.

    It is the longest run of lines to the end of the prompt that parses and defines `entry_point`.
    """
    if not entry_point or f"def {entry_point}" not in prompt:
        return None
    lines = prompt.splitlines(keepends=True)
    for start in range(len(lines)):
        if not lines[start].strip() or lines[start][0].isspace():
            continue
        code = "".join(lines[start:])
        try:
            tree = ast.parse(code)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            continue
        return code if _defines(tree, entry_point) else None
    return None


def _defines(tree: ast.Module, name: str) -> bool:
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and node.name == name:
            return True
        if isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id == name for t in node.targets):
            return True
    return False


def _parses(code: str) -> bool:
    try:
        # Unlike ast.parse, this finds a `return` outside a function as well.
        compile(code, "<reply>", "exec", dont_inherit=True)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return True


_CODE_START = re.compile(r"^(?:async\s+def|def|class|import|from|@)\b|^@", re.MULTILINE)
_MOST_CUTS = 200
"""Lines tried as the end of code; a reply with more prose after its code is judged as it stands."""


def _runnable(code: str, entry_point: str) -> str:
    """The longest run of whole lines that parses and defines `entry_point`; else the text as it is.

    Small models write code without a fence and go on in prose, and a token limit cuts a reply anywhere:
    neither says that the function is wrong.
    """
    if _parses(code):
        return code
    start = _CODE_START.search(code)
    lines = code[start.start() :].splitlines(keepends=True) if start is not None else []
    for end in range(len(lines), max(0, len(lines) - _MOST_CUTS), -1):
        if lines[end - 1].strip() and not lines[end - 1].lstrip().startswith("#"):
            text = "".join(lines[:end])
            if _parses(text) and _defines(ast.parse(text), entry_point):
                return text
    return code


def extract_code(reply: str, prompt: str = "", entry_point: str | None = None) -> str:
    """The Python code of a reply.

    The last fenced block counts, or the last one that defines `entry_point`; without fences the whole
    reply is code. What only continues a prompt that ends in the head of a function, as a completion
    model writes it, is joined to the prompt's code; so are the prompt's imports and helpers that a
    whole function leaves out.
    """
    blocks = [body for lang, body in _fenced(reply) if lang in ("", "python", "py", "python3")]
    blocks = blocks or [body for _, body in _fenced(reply)]
    code = blocks[-1] if blocks else reply
    if entry_point:
        wanted = [
            b
            for b in blocks
            if re.search(rf"^\s*(?:async\s+)?(?:def|class)\s+{re.escape(entry_point)}\b", b, re.MULTILINE)
        ]
        code = _runnable(wanted[-1] if wanted else code, entry_point)
    head = prompt_code(prompt, entry_point)
    if head is None or entry_point is None:
        return code.strip("\n") + "\n"
    if _parses(code) and _defines(ast.parse(code), entry_point):
        # The model repeats the function, but often leaves out the imports that stand above it.
        return _preamble(head, entry_point) + code.strip("\n") + "\n"
    for body in (code, textwrap.indent(textwrap.dedent(code), "    ")):
        joined = head.rstrip("\n") + "\n" + body.strip("\n") + "\n"
        if _parses(joined):
            return joined
    return code.strip("\n") + "\n"


def _preamble(head: str, entry_point: str) -> str:
    """What stands in a prompt's code besides the function asked for: imports, helpers, classes."""
    kept = [n for n in ast.parse(head).body if getattr(n, "name", None) != entry_point]
    future = [n for n in kept if isinstance(n, ast.ImportFrom) and n.module == "__future__"]
    nodes = [n for n in kept if n not in future]
    return "".join(f"{ast.unparse(n)}\n" for n in nodes)
