"""Log lines: what happens to jobs, and one form for all lines of an application."""

from __future__ import annotations

from ._configure import Logging, configure, job_fields
from ._joblog import JobLog, complain
from ._redact import Redactor
from ._traces import written

__all__ = ["JobLog", "Logging", "Redactor", "complain", "configure", "job_fields", "written"]
