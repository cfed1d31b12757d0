"""The context variables a call is to see: decided, never inherited from whoever happens to start it."""

from __future__ import annotations

from collections.abc import Iterable
from contextvars import Context, ContextVar
from typing import Any


def fresh(carried: Iterable[ContextVar[Any]]) -> Context:
    """An empty context in which only the *carried* variables have the values they have here."""
    context = Context()
    for variable in carried:
        try:
            value = variable.get()
        except LookupError:
            continue
        context.run(variable.set, value)
    return context
