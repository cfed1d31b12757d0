"""Settings from the environment: ``BGRUNTIME_CONCURRENCY=20`` and so on."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic_settings import BaseSettings, SettingsConfigDict

from bgruntime import Shutdown


class RuntimeSettings(BaseSettings):
    """The options of `Runtime` from variables that begin with BGRUNTIME_.

    The phases of the shutdown are BGRUNTIME_SHUTDOWN__DRAIN, __CANCEL and __CLOSE, in seconds.

    Raises:
        pydantic.ValidationError: a value is of the wrong type.
    """

    model_config = SettingsConfigDict(env_prefix="BGRUNTIME_", env_nested_delimiter="__", extra="ignore")

    concurrency: int = 100
    queue_size: int = 10_000
    overflow: Literal["wait", "reject", "drop_oldest"] = "wait"
    wait_limit: float | None = None
    threads: int = 40
    journal: Path | None = None
    redrive: int = 0
    cancel_grace: float = 5
    cancel_hard: float = 5
    shutdown: Shutdown = Shutdown()


__all__ = ["RuntimeSettings"]
