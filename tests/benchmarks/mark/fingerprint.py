"""What marks depend on besides their settings: the code of the mark, the profiles, the weights of the networks.

Part of the name of every kept result, so that nothing old is shown for new code. Comments and docstrings do not count.
"""

from __future__ import annotations

import ast
import hashlib
from functools import cache
from pathlib import Path

BESIDE = ("judge.py", "picture.py")
"""Modules of the mark that no mark depends on."""
GENERATOR = ("generator.py", "generator_packs.py")
"""Modules that only marks of mode ``generator`` depend on."""
LIMITS = ("frames.py", "attacks.py")
"""Modules here that the other attacks depend on besides."""
REPOSITORY = Path(__file__).resolve().parents[3]


@cache
def fingerprint(generator: bool = False) -> str:
    """Return 16 hexadecimal digits for ``gateway/mark``, ``plugins/modalities`` and the surrogates' weights.

    Parameters
    ----------
    generator
        with the generator's code and weights, for marks of that mode.
    """
    total = hashlib.sha256()
    for folder in ("gateway/mark", "plugins/modalities"):
        for path in sorted((REPOSITORY / folder).rglob("*.py")):
            if path.name not in BESIDE and (generator or path.name not in GENERATOR):
                total.update(path.name.encode() + _code_of(path.read_text("utf-8")).encode())
    for folder in ("surrogates", "generators") if generator else ("surrogates",):
        for path in sorted((REPOSITORY / "plugins" / folder).rglob("*.safetensors")):
            total.update(path.name.encode() + hashlib.sha256(path.read_bytes()).digest())
    return total.hexdigest()[:16]


@cache
def limits() -> str:
    """Return 16 hexadecimal digits for what makes the other attacks, and holds them within the limits of the marks."""
    code = "".join(_code_of((Path(__file__).parent / name).read_text("utf-8")) for name in LIMITS)
    return hashlib.sha256(code.encode()).hexdigest()[:16]


def _code_of(text: str) -> str:
    tree = ast.parse(text)
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list):
            node.body = [one for one in body if not _is_text(one)] or [ast.Pass()]
    return ast.dump(tree)


def _is_text(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
