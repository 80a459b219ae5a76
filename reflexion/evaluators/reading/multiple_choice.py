"""Reads multiple choice: the options of a prompt, and the one that a reply decides for.

Options are labelled `A`, `a` or `1` and on: one a line (`A) red`, `(A) red`, `A. red`, `**A:** red`, `A)5`) or within
one (`(A) red (B) blue`). A reply that names several and decides for none has made no choice.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from string import ascii_letters
from typing import TypeVar

from reflexion.evaluators.reading.answers import Statement, stated_answer
from reflexion.evaluators.reading.latex import plain
from reflexion.evaluators.reading.normalisation import bare, clean, folded
from reflexion.evaluators.reading.quantities import equal, whole_number

__all__ = ["chosen_option", "option_of", "read_options"]

T = TypeVar("T")
Options = Mapping[str, str]
"""Labels, each with its folded text, in order."""

_LABEL = r"(?P<label>(?:[A-Za-z]|\d{1,2})(?![\w#+]|\*(?!\*)))"
_LINE = re.compile(
    rf"^[ \t]*(?:[-*+\u2022>][ \t]+)?[*_]{{0,2}}[(\[]?{_LABEL}[*_]{{0,2}}[)\].:][*_]{{0,2}}[ \t]*(?P<text>\S[^\n]*)$",
    re.MULTILINE,
)
_INLINE = re.compile(rf"(?<![\w'])(?:[(\[]{_LABEL}[)\]]|(?P<bare>[A-Za-z]|\d{{1,2}})[).:])[ \t]*(?=\S)")
_BRACKETS = (("(", ")"), ("[", "]"), ("{", "}"))
_FOLLOWING = {
    **{str(number): str(number + 1) for number in range(100)},
    **{letter: chr(ord(letter) + 1) for letter in ascii_letters},
}
_FEWEST = 2
_LONGEST_PROMPT, _LONGEST_REPLY = 50_000, 4_000
_APART = " \t\r\u00a0,;/|"
_JOINS = re.compile(r"(?:\band|\bor|&)\Z", re.IGNORECASE)

_NEGATIVE = re.compile(
    r"\b(?:wrong|incorrect|false|not|cannot|never|neither|nor|eliminat\w*|rul\w+ out|exclud\w*|reject\w*|unlikely"
    r"|except|anything but|all but|other than|instead of|rather than|bad|worse|worst|poor|weak|mistaken?|fail\w*"
    r"|tempting|distract\w*|trap|implausible|impossible|invalid|inaccurate|misleading|nonsense|falsch|nicht)\b|n't\b|[:=-]\s*(?:no\b|\u2717|\u2718|\u274c)",
    re.IGNORECASE,
)
_POSITIVE = re.compile(
    r"\b(?:right|correct|true|best|answer|choose|choice is|pick|select|go with|must be|most likely|therefore|so|thus"
    r"|hence|richtig)\b|[:=-]\s*(?:yes\b|\u2713|\u2714|\u2705)",
    re.IGNORECASE,
)
_CLAUSE = re.compile(
    r"(?<![.;!?])[.;!?]++(?=\s|\Z)|\n+|,\s+(?:but|while|whereas|and|so)\b|,\s+(?=[(\[]?[A-Z0-9](?:[)\].:,]|\s|\Z))|\((?![A-Za-z0-9]{1,2}\))"
    r"|(?<![Aa]nything )(?<![Aa]ll )\b(?:but|while|whereas)\b|(?=,\s+(?:not|rather than|instead of)\b)"
)
_BECAUSE = re.compile(r"\b(?:because|since|as|weil|denn)\b", re.IGNORECASE)
_NO_ARTICLE = re.compile(r"\s+(?:is|was|or|and|nor|but|because|since|as|seems|would|must|vs)\b|\s*[^\sa-z]|\s*\Z")
_REASON = re.compile(
    r"\s*(?:[-\u2013\u2014:(]|,?\s*(?:because|since|as|for|is|would|seems|it|this|that|which|the|due|given|here|must|was)\b)",
    re.IGNORECASE,
)
_PREDICATE = re.compile(r"\s+(?!(?:because|since|as|for|due|given|here|it|this|that|which|the)\b)[^\W\d_A-Z]")
"""A label that something is said of: `B is …`, `B fails`; of a label that is chosen only the reason is told."""
_IDENTIFIES = re.compile(r"\s*(?:is|was|seems|would be)\s+(?:the|what|how|where|when|why|who|my|our)\b", re.IGNORECASE)
_TAKEN_BACK = re.compile(
    r"(?:\.\.\.|[?;,.:-])\s*(?:but\s+)?(?:no|wait|actually|sorry|i mean|or rather|correction|on second thought)\b",
    re.IGNORECASE,
)
_NO = re.compile(r"\W*(?:no|nope|wait|no wait)\W*", re.IGNORECASE)
_NAMED = r"\b(?:options?|choices?|letters?|answers?|number|statement|alternative)\s{0,20}(?:is|:|no\.?)?\s{0,20}"

_NAMED_FIRST = re.compile(_NAMED, re.IGNORECASE)
_WITH_TEXT = re.compile(
    rf"(?:{_NAMED})?[(\[]?{_LABEL}[)\].:,]{{0,2}}(?:\s*[-\u2013\u2014]\s+|\s*)(?P<text>.*)\Z", re.DOTALL | re.IGNORECASE
)
_AT_START = re.compile(rf"(?:{_NAMED})?(?P<open>[(\[]?){_LABEL}(?P<close>[)\].:,]{{0,2}})(?=\s|\W|\Z)", re.IGNORECASE)
_NEXT = re.compile(
    rf"\s{{0,20}}\(?\s{{0,20}}(?:[,/|&+;]|\b(?:or|and|oder|und)\b)+\s*(?:{_NAMED})?[(\[]?{_LABEL}(?![\w'])",
    re.IGNORECASE,
)
_HAS_WORD = re.compile(r"\w")
_BRACKETED = re.compile(rf"(?<![\w'])[(\[]?{_LABEL}[)\]:](?=\s|\Z)")
_LABELS_ONLY = re.compile(r"(?:[\s,;/&()\[\].]|\b(?:or|and|nor|[A-Za-z]|\d{1,2})\b)*", re.IGNORECASE)
_MENTION = re.compile(
    rf"(?<![\w'-])(?P<named>{_NAMED})?(?P<open>[(\[]?){_LABEL}(?P<close>[)\]]?)(?![\w'-])", re.IGNORECASE
)


def read_options(prompt: str) -> dict[str, str]:
    """The options of a prompt: the last run of labels in order that begins with the first; empty if there is none."""
    text = prompt[-_LONGEST_PROMPT:]
    lines = _run([(m["label"], m["text"]) for m in _LINE.finditer(text)])
    if len(lines) >= _FEWEST:
        return {label: _text(option) for label, option in lines}
    marks = [(m[1] or m[2], m.start(), m.end()) for m in _INLINE.finditer(text)]
    ends = [*(start for _, start, _ in marks[1:]), len(text)]
    inline = _run((label, (start, end)) for (label, _, start), end in zip(marks, ends, strict=False))
    return {label: _text(_unjoined(text[slice(*span)].partition("\n")[0])) for label, span in inline}


def _unjoined(option: str) -> str:
    """An option without what leads on to the next one."""
    option = option.rstrip(_APART)
    join = _JOINS.search(option, max(0, len(option) - 4))
    return option if join is None else option[: join.start()].rstrip(_APART)


def _text(option: str) -> str:
    return folded(plain(option).rstrip(",; "))


def _run(found: Iterable[tuple[str, T]]) -> list[tuple[str, T]]:
    """The last run of labels that follow one another, the first of them first."""
    best: list[tuple[str, T]] = []
    run: list[tuple[str, T]] = []
    following: str | None = None
    for label, text in found:
        if run and label == following:
            run.append((label, text))
            best = run
        else:
            run = [(label, text)] if label in ("A", "a", "1") else []
        following = _FOLLOWING.get(label) if run else None
    return best


def option_of(answer: object, options: Options) -> str | None:
    """The label that a reference means: a label, an option's text, or a whole number that counts from 0 on letters.

    None: it names no option, or may mean two.
    """
    text = str(answer) if not isinstance(answer, bool) else str(answer).lower()
    label = bare(clean(text)).strip("()[]").strip()
    found = _labelled(label, options)
    by_text = _by_text(text, options)
    if not isinstance(answer, str) and isinstance(answer, int) and not isinstance(answer, bool) and options:
        labels = list(options)
        indexed = labels[answer] if not labels[0].isdigit() and 0 <= answer < len(labels) else found
        return indexed if by_text in (None, indexed) else (by_text if indexed is None else None)
    if found is not None:
        return found
    if by_text is not None:
        return by_text
    # "B) blue" and the like.
    head = re.match(rf"[(\[]?{_LABEL}[)\].:]\s*(?P<text>.+)\Z", text.strip(), re.DOTALL)
    if (
        head is not None
        and (label := _labelled(head["label"], options) or "")
        and _by_text(head["text"], options) == label
    ):
        return label
    return None


def _labelled(text: str, options: Options) -> str | None:
    """The label a text is, in upper or lower case."""
    if not options:
        return text.upper() if len(text) == 1 and text.isascii() and text.isalpha() else None
    if text in options:
        return text
    if len(text) != 1:
        return None
    upper, lower = text.upper(), text.lower()
    return upper if upper in options else lower if lower in options else None


def _by_text(text: str, options: Options) -> str | None:
    """The option whose text this is: by its wording, else by its number."""
    text = bare(plain(text))
    wanted = {folded(text), folded(text[1:-1]) if (text[:1], text[-1:]) in _BRACKETS else ""} - {""}
    if not wanted:
        return None
    found = [label for label, option in options.items() if option in wanted]
    if not found and (number := whole_number(text)) is not None:
        numbers = {label: whole_number(option) for label, option in options.items()}
        found = [label for label, n in numbers.items() if n is not None and equal(number, n)]
    return found[0] if len(found) == 1 else None


def chosen_option(reply: str, options: Options) -> str | None:
    """The label of the option a reply decides for, or None."""
    whole = _simple(reply, options) if len(reply) <= _LONGEST_REPLY else None
    if whole is not None:
        return whole
    statement = stated_answer(reply)
    if statement.marked:
        return _stated(statement, options)
    lines = [line for line in reply[-_LONGEST_REPLY:].splitlines() if line.strip()]
    if len(lines) > 1 and not _listed(lines[-2:], options):
        for line in (lines[-1], lines[0]):
            label = _decision(line, options) if line is lines[-1] else _simple(line, options)
            if label is not None:
                return label
    elif len(lines) == 1 and (label := _leading(lines[0], options)) is not None:
        return label
    return _mentioned(reply[-_LONGEST_REPLY:], options)


def _listed(lines: list[str], options: Options) -> bool:
    """Whether two lines tell the options again: they begin with labels that follow one another."""
    labels = [started[0] if (started := _starting(_undone(line), options)) else "" for line in lines]
    return bool(labels[0]) and labels[1] == _FOLLOWING.get(labels[0])


def _stated(statement: Statement, options: Options) -> str | None:
    text = statement.text[:_LONGEST_REPLY]
    decided = _decision(text, options)
    return decided if decided is not None else _mentioned(text, options)


def _decision(text: str, options: Options) -> str | None:
    """The option that one line decides for from its beginning on."""
    return _simple(text, options) or _leading(text, options)


def _undone(text: str) -> str:
    return re.sub(r"\$|\*\*|__|`", "", clean(plain(text))).strip().strip("\"'").strip()


def _simple(text: str, options: Options) -> str | None:
    """The option a text is: a label, a label with its text, or its text alone."""
    named = _NAMED_FIRST.match(text)
    for option in (text, text[named.end() :]) if named is not None else (text,):
        if len(option) > 1 and (by_text := _by_text(option, options)) is not None:
            return by_text  # such as "A*", which without its sign would be a label
    text = _undone(text)
    label = _labelled(bare(text).strip("()[]{}<>").strip("."), options)
    if label is not None or not options:
        return label
    by_text = _by_text(text, options)
    if by_text is not None:
        return by_text
    head = _WITH_TEXT.match(text)
    if head is None or (label := _labelled(head["label"], options)) is None:
        return None
    rest = head["text"].strip()
    if not bare(rest):
        return label
    return label if _by_text(rest, options) == label else None


def _starting(text: str, options: Options) -> tuple[str, str] | None:
    """The label a text begins with, and what follows it; the article `A` and the word `I` are none."""
    head = _AT_START.match(text)
    if head is None or (label := _labelled(head["label"], options)) is None:
        return None
    # A lower-case letter alone is a word, unless options are labelled so and a bracket follows.
    if head["label"].islower() and not head["close"] and not head["open"] and text[head.end() :].strip():
        return None
    return label, text[head.end() :]


def _leading(text: str, options: Options) -> str | None:
    text = _undone(text)
    started = _starting(text, options)
    if started is None:
        return _text_first(text, options)
    label, rest = started
    end = text[: len(text) - len(rest)]
    first = _CLAUSE.split(rest, maxsplit=1)[0]
    if (
        _NEGATIVE.search(_BECAUSE.split(first, maxsplit=1)[0])
        or _retracted(label, rest, end, options)
        or _by_text(first, options) not in (None, label)
        or _listing(label, rest, options)
        or _other(label, (" ," if end.endswith(",") else "") + rest, options)
    ):
        return None
    if not rest.strip() or end.endswith((")", "]", ".", ":", ",")):
        return label
    following = folded(rest)
    if options.get(label) and (following == options[label] or following.startswith(options[label] + " ")):
        return label
    word = label in ("A", "I", "a", "i") and not re.match(
        r"\s*(?:because|since|is|,|\(|[-\u2013\u2014])", rest, re.IGNORECASE
    )
    if word or (options and not _REASON.match(rest)):
        return None
    # "B is tempting" is said of B and decides for nothing.
    return label if _PREDICATE.match(rest) is None or _POSITIVE.search(first) or _IDENTIFIES.match(rest) else None


def _retracted(label: str, rest: str, end: str, options: Options) -> bool:
    """Whether a choice is taken back behind it: `A... no, B`, `A? No.`."""
    behind = (end[-1:] if end[-1:] in ".:,?" else "") + rest
    taken = _TAKEN_BACK.search(behind)
    if taken is None:
        return False
    others = _mentions(behind[taken.end() :], options) - {label}
    return bool(others) or (taken.start() <= 1 and not behind[taken.end() :].strip(" .!"))


def _listing(label: str, rest: str, options: Options) -> bool:
    """Whether another label with its bracket follows on the line: the options are told again."""
    line = rest.partition("\n")[0]
    return any(_labelled(m["label"], options) not in (None, label) for m in _BRACKETED.finditer(line))


def _text_first(text: str, options: Options) -> str | None:
    """The option whose text a line begins with, where nothing speaks against it."""
    first = _BECAUSE.split(_CLAUSE.split(text, maxsplit=1)[0], maxsplit=1)[0]
    found = _mentions(first, options)
    if len(found) != 1 or _NEGATIVE.search(first):
        return None
    label = found.pop()
    return label if folded(first).startswith(options.get(label) or "\0") else None


def _other(label: str, rest: str, options: Options) -> bool:
    """Whether another label is named in the same breath: `A or B`, `A, B`, `A/B`."""
    match = _NEXT.match(rest)
    return match is not None and _labelled(match["label"], options) not in (None, label)


def _mentioned(text: str, options: Options) -> str | None:
    """The one option that a text speaks for: named as the right one, or the only one named without a no."""
    said: dict[str, set[str]] = {"for": set(), "named": set()}
    negative = False
    for clause in _CLAUSE.split(_undone(text)):
        if not _HAS_WORD.search(clause):
            continue
        if _NO.fullmatch(clause) is not None:
            said = {"for": set(), "named": set()}  # "A? No."
            continue
        head = _BECAUSE.split(clause, maxsplit=1)[0]
        # What is named as the reason was not chosen by that.
        told = head if (labels := _mentions(head, options)) else clause
        labels = labels or _mentions(clause, options)
        if not labels:
            continue
        # "It is not A, C or D": what only goes on with labels goes on with the no as well.
        negative = _NEGATIVE.search(told) is not None or (negative and _LABELS_ONLY.fullmatch(told) is not None)
        if negative:
            continue
        if _POSITIVE.search(told):
            said["for"] |= labels
        if _POSITIVE.search(told) or not _spoken_of(clause, options):
            said["named"] |= labels
    for labels in (said["for"], said["named"]):
        if labels:
            return labels.pop() if len(labels) == 1 else None
    return None


def _spoken_of(clause: str, options: Options) -> bool:
    """Whether a clause says something of a label, by which it is not chosen yet: `B fails`, `B would do`."""
    for match in _MENTION.finditer(clause):
        label = _labelled(match["label"], options) if match["label"].isupper() or match["close"] else None
        rest = clause[match.end() :]
        if label is None or _PREDICATE.match(rest) is None or _IDENTIFIES.match(rest) is not None:
            continue
        if not (options.get(label) and folded(rest).startswith(options[label])):
            return True
    return False


def _mentions(clause: str, options: Options) -> set[str]:
    """The options that a clause names by label or by text."""
    found: set[str] = set()
    seen: dict[str, str | None] = {}
    for match in _MENTION.finditer(clause):
        label = match["label"]
        known = seen[label] if label in seen else seen.setdefault(label, _labelled(label, options))
        if known is None:
            continue
        sure = bool(match["named"] or match["close"])
        article = label in ("A", "I") and _NO_ARTICLE.match(clause, match.end()) is None
        if sure or (label.isupper() and not article):
            found.add(known)
    words = f" {_words(folded(clause))} "
    if words.isspace():
        return found
    texts = {label: _words(option) for label, option in options.items() if option}
    named = [label for label, option in texts.items() if option and f" {option} " in words]
    # "dark red" names no "red".
    longest = {
        label for label in named if not any(o != label and f" {texts[label]} " in f" {texts[o]} " for o in named)
    }
    return found | longest


def _words(text: str) -> str:
    return " ".join(re.findall(r"[^\s,.;:!?()]+", text))
