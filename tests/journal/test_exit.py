"""The interpreter's exit never hangs, whatever became of the journal."""

from __future__ import annotations

import textwrap

import pytest

from .programs import program, ran

HOLDER = """
import fcntl, os, sys, time
fd = os.open(sys.argv[1] + ".lock", os.O_RDWR | os.O_CREAT)
fcntl.flock(fd, fcntl.LOCK_EX)
print("h", end="", flush=True)
time.sleep(60)
"""
ENDS = {
    "stopped": """
        async def main():
            async with Runtime(journal=sys.argv[1]) as rt:
                await rt.submit(work)
    """,
    "raised": """
        async def main():
            try:
                async with Runtime(journal=sys.argv[1]) as rt:
                    await rt.submit(work)
                    raise ValueError("out")
            except ValueError:
                pass
    """,
    "failed to start": """
        class Broken:
            async def __aenter__(self): raise ValueError("no")
            async def __aexit__(self, *about): ...
            def on_event(self, event): ...
        async def main():
            try:
                async with Runtime(journal=sys.argv[1], observers=[Broken()]):
                    pass
            except ValueError:
                pass
    """,
    "bad file": """
        async def main():
            Path(sys.argv[1]).write_text("no database")
            async with Runtime(journal=sys.argv[1]) as rt:
                await rt.submit(lambda: None)
    """,
    "cancelled at the start": """
        async def main():
            for turns in range(60):
                async def enter():
                    async with Runtime(journal=sys.argv[1]):
                        pass
                entering = asyncio.ensure_future(enter())
                for _ in range(turns):
                    await asyncio.sleep(0)
                entering.cancel()
                try:
                    await entering
                except asyncio.CancelledError:
                    pass
    """,
    "cancelled while it closes": """
        async def main():
            for turns in range(0, 200, 5):
                async def enter():
                    async with Runtime(journal=sys.argv[1]) as rt:
                        await rt.submit(work)
                entering = asyncio.ensure_future(enter())
                while not entering.done():
                    for _ in range(turns):
                        await asyncio.sleep(0)
                    entering.cancel()
                    await asyncio.wait({entering}, timeout=0.001)
    """,
    "never left": """
        async def main():
            global rt
            rt = Runtime(journal=sys.argv[1])
            await rt.__aenter__()
            await rt.submit(work)
    """,
    "a bare journal never closed": """
        async def main():
            global journal
            journal = Journal(sys.argv[1])
            await journal.open(None)
    """,
    "locked by a stopped process": """
        import fcntl, signal
        async def main():
            async with Runtime(journal=sys.argv[1]) as rt:
                await rt.submit(work)
                reading, writing = os.pipe()
                child = os.posix_spawn(sys.executable, [sys.executable, "-c", HOLDER, sys.argv[1]],
                    os.environ, file_actions=[(os.POSIX_SPAWN_DUP2, writing, 1)])
                assert os.read(reading, 1) == b"h"
                os.kill(child, signal.SIGSTOP)
                await rt.submit(fail)
                await rt.drain()
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
    """,
}
AROUND = """
@task(durable=True, name="exit.work")
async def work(): ...
@task(name="exit.fail")
async def fail(): raise ValueError("no")
"""


@pytest.mark.slow
@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("loop", ["stock", "uvloop"])
def test_a_program_ends_in_every_case(tmp_path, end, loop):
    pytest.importorskip("uvloop") if loop == "uvloop" else None
    runs = "asyncio.run(main())" if loop == "stock" else "import uvloop; uvloop.run(main())"
    quiet = "import warnings; warnings.simplefilter('ignore')\n" if "never" in end else ""
    body = textwrap.dedent(ENDS[end].replace("HOLDER", repr(HOLDER)))
    source = f"{program(AROUND)}{quiet}{body}\n{runs}\nprint('ended')"
    assert ran(source, tmp_path / "jobs.db", timeout=20).endswith("ended\n")
