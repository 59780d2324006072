"""The methods by their name in ``MarkSettings.mode``."""

from __future__ import annotations

from typing import Any

from gateway.mark.methods.generator import GeneratorMethod
from gateway.mark.methods.method import Method
from gateway.mark.methods.paper import PaperMethod
from gateway.mark.methods.strong import StrongMethod

METHODS: dict[str, type[Method[Any]]] = {
    "strong": StrongMethod,
    "paper": PaperMethod,
    "generator": GeneratorMethod,
}
