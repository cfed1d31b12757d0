"""What a simulated loop refuses, loudly: sockets, processes, pipes and real threads."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, NoReturn

from bgruntime.testing._errors import SimUnsupported

REFUSED = {
    "a socket": (
        "create_connection create_server create_datagram_endpoint create_unix_connection"
        " create_unix_server connect_accepted_socket start_tls sock_recv sock_recv_into"
        " sock_recvfrom sock_recvfrom_into sock_sendall sock_sendto sock_connect sock_accept"
        " sock_sendfile sendfile"
    ),
    "a name look-up": "getaddrinfo getnameinfo",
    "a process": "subprocess_exec subprocess_shell",
    "a pipe": "connect_read_pipe connect_write_pipe",
}
WATCHED = "add_reader add_writer remove_reader remove_writer"


class Refusals(asyncio.BaseEventLoop):
    """An event loop without the outside world."""

    if TYPE_CHECKING:  # what asyncio keeps to itself
        _stopping: bool
        _thread_id: int | None

        def _check_closed(self) -> None: ...

    def refusal(self, thing: str) -> SimUnsupported:
        """The error that says *thing* is not to be had here."""
        return SimUnsupported(
            f"{type(self).__name__} has no way to use {thing}: replace it in the test, or run"
            " this test on a real loop"
        )

    def _process_events(self, event_list: Any) -> None:
        """There is no selector, so there are no events."""


def _refuse_awaited(thing: str) -> Any:
    async def refuse(self: Refusals, *args: Any, **options: Any) -> NoReturn:
        raise self.refusal(thing)

    return refuse


def _refuse(thing: str) -> Any:
    def refuse(self: Refusals, *args: Any, **options: Any) -> NoReturn:
        raise self.refusal(thing)

    return refuse


for _thing, _names in REFUSED.items():
    for _name in _names.split():
        setattr(Refusals, _name, _refuse_awaited(_thing))
for _name in WATCHED.split():
    setattr(Refusals, _name, _refuse("a file descriptor"))
