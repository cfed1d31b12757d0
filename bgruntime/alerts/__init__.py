"""Somebody is told when jobs go wrong: ``Runtime(observers=[Alerts(channels=["log", "slack://…"])])``."""

from __future__ import annotations

from ._alerts import Alerts
from ._channels import AppriseChannel, CallChannel, LogChannel
from ._digest import Digest
from ._rules import DEFAULT_RULES, Alert, AlertRule

__all__ = [
    "DEFAULT_RULES",
    "Alert",
    "AlertRule",
    "Alerts",
    "AppriseChannel",
    "CallChannel",
    "Digest",
    "LogChannel",
]
