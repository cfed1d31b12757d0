"""docs/events.md says what the code says. Write it anew: python -m tests.house.test_events_page"""

from __future__ import annotations

import ast
import inspect
from dataclasses import fields
from pathlib import Path

import bgruntime.extend
from bgruntime._model import events

PAGE = Path(__file__).resolve().parents[2] / "docs" / "events.md"

HEAD = """# Events

What a runtime tells its observers. Made from `bgruntime/_model/events.py`; all of it can be imported from
`bgruntime.extend`. An event that nobody listens to is never built.

```python
import asyncio

from bgruntime import Runtime, task
from bgruntime.extend import JobSettled


class Printer:
    listens_to = (JobSettled,)  # it and its subclasses; without this, all

    def on_event(self, event: JobSettled) -> None:
        print(event.job.task, event.state, f"{event.duration:.3f} s")


@task
async def work() -> None: ...


async def main() -> None:
    async with Runtime(observers=[Printer()]) as rt:
        await rt.submit(work)


asyncio.run(main())
```

"""


def kinds() -> list[type]:
    """Every event, in the order of the module."""
    found = [one for _, one in inspect.getmembers(events, inspect.isclass) if issubclass(one, events.Event)]
    order = [
        node.name for node in ast.parse(inspect.getsource(events)).body if isinstance(node, ast.ClassDef)
    ]
    return sorted(
        (one for one in found if one is not events.Event), key=lambda one: order.index(one.__name__)
    )


def told_when() -> dict[str, str]:
    """The table in the module's docstring."""
    rows = (line.split("|") for line in (events.__doc__ or "").splitlines() if "|" in line)
    return {name.strip(): when.strip() for name, when in rows}


def page() -> str:
    when = told_when()
    lines = [HEAD + "| event | told when | fields, beside `at` |", "|---|---|---|"]
    for kind in kinds():
        own = ", ".join(f"`{field.name}`" for field in fields(kind) if field.name != "at")
        lines.append(f"| `{kind.__name__}` | {when[kind.__name__]} | {own} |")
    (*_, last) = (events.__doc__ or "").strip().split("\n\n")
    return "\n".join([*lines, "", last, ""])


def test_every_event_is_in_the_table_and_in_the_window():
    names = {kind.__name__ for kind in kinds()}
    assert names == set(told_when()) - {"event", "-" * 17}
    assert names <= set(bgruntime.extend.__all__)


def test_the_page_says_what_the_code_says():
    assert PAGE.read_text() == page()


if __name__ == "__main__":
    PAGE.write_text(page())
