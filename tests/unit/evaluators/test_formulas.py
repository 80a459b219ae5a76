"""LaTeX and formulas: written as plain text, and compared by what they mean."""

from __future__ import annotations

import pytest

from reflexion.evaluators import resolve_evaluator
from reflexion.evaluators.reading.expressions import constant, same_formula
from reflexion.evaluators.reading.latex import plain
from reflexion.types import Problem, Trial


@pytest.mark.parametrize(
    ("latex", "text"),
    [
        (r"\text{even}", "even"),
        (r"\frac{2}{3}", "2/3"),
        (r"\dfrac23", "2/3"),
        (r"4\frac{2}{3}", "4 2/3"),
        (r"\frac{\sqrt{2}}{3}", "(sqrt(2))/3"),
        (r"8{,}000", "8,000"),
        (r"8\,000", "8,000"),
        (r"40\%", "40%"),
        (r"\$40", "$40"),
        (r"40^\circ", "40\u00b0"),
        (r"\left(1, 2\right)", "(1, 2)"),
        (r"\{1\}", "{1}"),
        ("no markup", "no markup"),
    ],
)
def test_latex_as_plain_text(latex: str, text: str) -> None:
    assert plain(latex).replace("  ", " ").replace(" )", ")") == text


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (r"\frac{\sqrt{5}}{2}", r"\frac12\sqrt5"),
        (r"\sqrt{50}", r"5\sqrt{2}"),
        (r"\sqrt[3]{27}", "3"),
        ("(a+b)^2", "a^2+2ab+b^2"),
        (r"\frac{x}{y+1}", "x/(y+1)"),
        (r"3\pi", "3\u03c0"),
        (r"3\pi", "9.42478"),
        ("y = 2x - 1", "2x-1"),
        (r"x \in [0, 1)", "[0,1)"),
        (r"(-\infty, 3]", "(-oo, 3]"),
        (r"\{1, 2\}", "{2,1}"),
        (r"[0,1]\cup[4,5)", r"[4, 5) \cup [0, 1]"),
        (r"\left(\frac{1}{2}, 3\right)", "(0.5, 3)"),
        ("1, 2", "x = 2 or x = 1"),
        (r"\pm 3", "3, -3"),
        (r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}", r"\begin{bmatrix}1\\2\end{bmatrix}"),
        (r"2^{10}", "1024"),
        (r"\sin x", r"\sin(x)"),
        (r"101_{2}", "101_2"),
    ],
)
def test_formulas_of_the_same_meaning(one: str, other: str) -> None:
    assert same_formula(one, other) and same_formula(other, one)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("(1, 2)", "(2, 1)"),
        ("[0, 1)", "[0, 1]"),
        (r"\{1, 2\}", r"\{1, 3\}"),
        (r"\sqrt{2}", "2"),
        ("x + 1", "x - 1"),
        (r"3\pi", "3"),
        ("10^{30} + 1", "10^{30}"),
        ("apple", "paple"),
        ("x > 1", "x < 1"),
        ("(" * 200, "(" * 200 + "1"),
        ("9^{9^{9^{9}}}", "9^{9^{9^{8}}}"),
    ],
)
def test_formulas_of_different_meaning(one: str, other: str) -> None:
    assert not same_formula(one, other)


@pytest.mark.parametrize(
    ("text", "value"), [(r"\sqrt{16}", 4), ("1 + 1/2", 1.5), (r"\frac{3}{4}", 0.75), ("x", None), ("a b c", None)]
)
def test_constants(text: str, value: float | None) -> None:
    found = constant(text)
    assert (None if found is None else float(found)) == value


@pytest.mark.parametrize(
    ("answer", "reply", "right"),
    [
        (r"\frac{\sqrt{5}}{2}", r"So we get $\boxed{\frac{1}{2}\sqrt{5}}$.", True),
        (r"x^2 + 1", r"\boxed{1 + x^2}", True),
        (r"x^2 + 1", "The answer is $1 + x^2$.", True),
        (r"\text{odd}", r"\boxed{\text{Odd}}", True),
        (r"12\text{ cm}", r"\boxed{12}", True),
        (r"12\%", r"\boxed{12\%}", True),
        (r"(2, \infty)", r"\boxed{(2,\infty)}", True),
        (r"(2, \infty)", r"\boxed{[2,\infty)}", False),
        (r"\sqrt{7}", r"\boxed{7}", False),
        (r"5\pi", r"\boxed{5}", False),
        (r"12,000", r"\boxed{12{,}000}", True),
        (r"so \boxed{7}", r"\boxed{7}", True),
    ],
)
async def test_exact_reads_formulas(answer: str, reply: str, right: bool) -> None:
    problem = Problem(id="p", prompt="?", answer=answer)
    verdict = await resolve_evaluator("exact", problem).evaluate(problem, Trial(index=1, answer=reply))
    assert verdict.passed is right
