"""What an edge says where the framework it is for is not installed."""

from __future__ import annotations


def missing(extra: str, error: ModuleNotFoundError) -> ModuleNotFoundError:
    """The error of an edge that found what *error* names not installed: it says what to install."""
    framework = str(error.name).partition(".")[0]
    return ModuleNotFoundError(
        f"bgruntime.integrations.{extra} needs {framework}: pip install 'bgruntime[{extra}]'",
        name=error.name,
    )


__all__ = ["missing"]
