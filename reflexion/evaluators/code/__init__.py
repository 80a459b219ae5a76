"""Code in what models write and in what they are told.

| module | what |
|---|---|
| fences | the fenced blocks of markdown |
| parsing | bounded reading of Python: what it defines, what it lacks |
| pieces | code in prose, and its disguises |
| heads | the code of a prompt |
| supplied | imports that a place supplies |
| replies | the code of a reply, made of the others |
"""

from reflexion.evaluators.code.extraction import Solution, extract_code, extract_solution
from reflexion.evaluators.code.fences import Block, fenced_blocks
from reflexion.evaluators.code.heads import prompt_code

__all__ = ["Block", "Solution", "extract_code", "extract_solution", "fenced_blocks", "prompt_code"]
