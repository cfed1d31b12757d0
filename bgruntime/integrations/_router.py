"""The status pages as a router of FastAPI."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from typing import Annotated, Any, Literal
from urllib.parse import quote

from fastapi import APIRouter, Body, Depends, Header, Path, Query
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic import BaseModel, Field
from starlette.convertors import Convertor, register_url_convertor
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from bgruntime import BgRuntimeError, Job, JournalUnavailable, PayloadError
from bgruntime.journal import Failure

from . import _shown as shown
from ._exposition import CONTENT_TYPE, exposition
from ._guard import HEADER, Action, Allow, Auth, Guard
from ._pages import (
    LONGEST_WAIT,
    MOST_AT_ONCE,
    find,
    journal_of,
    page_of,
    wait_for,
)
from ._problems import ProblemResponse, SafeJSON, bytes_of, problem, problem_of
from ._series import Families
from ._slices import in_slices
from ._starlette import Serving, serving_of

BODY_LIMIT = 64 * 1024  # bytes
JOURNAL_PATIENCE = 1.0  # seconds that a scrape waits for what the journal counts
PAGE_LIMIT = 100
FURTHEST = 10_000
LATEST = 4_102_444_800.0  # the year 2100
JOB_ROUTE = "bgruntime:job"

PROBLEM = shown.Problem.model_json_schema()
Handler = Callable[[Request], Coroutine[Any, Any, Response]]


class IdConvertor(Convertor[str]):
    """The id of a job in a path: any text, slashes included, but not none."""

    regex = "(?s:.+)"

    def convert(self, value: str) -> str:
        """The id as it is."""
        return value

    def to_string(self, value: str) -> str:
        """The same: `job_location` has quoted it."""
        return value


register_url_convertor("bgruntime_id", IdConvertor())


class StatusRoute(APIRoute):
    """A route whose errors are problems, and whose bodies are small."""

    def get_route_handler(self) -> Handler:
        handle = super().get_route_handler()

        async def answer(request: Request) -> Response:
            try:
                response = await handle(_limited(request))
            except RequestValidationError as error:
                response = problem(422, _complaints(error))
            except BgRuntimeError as error:
                response = problem_of(error)
            except HTTPException as error:
                response = problem(error.status_code, error.detail, headers=error.headers)
            response.headers["Cache-Control"] = "no-store"
            response.headers["X-Content-Type-Options"] = "nosniff"
            return response

        return answer


def _limited(request: Request) -> Request:
    """The same request, whose body may not be longer than `BODY_LIMIT`."""
    receive, total = request.receive, 0

    async def limited() -> Any:
        nonlocal total
        message = await receive()
        total += len(message.get("body", b""))
        if total > BODY_LIMIT:
            raise HTTPException(413, f"a body here has at most {BODY_LIMIT} bytes")
        return message

    return Request(request.scope, limited)


def _complaints(error: RequestValidationError) -> str:
    """What does not fit and why, without the values: they may be anything."""
    complaints = [f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors()]
    return "; ".join(complaints).encode("ascii", "backslashreplace").decode()[:2000]


def _problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """What a route may answer besides, for the OpenAPI document."""
    content = {ProblemResponse.media_type: {"schema": PROBLEM}}
    described: dict[int | str, dict[str, Any]] = {
        status: {"description": MEANING[status], "content": content} for status in statuses
    }
    return described


MEANING = {
    400: "The body is no JSON.",
    401: "Nobody has said who this is.",
    403: "Not allowed, or not from here.",
    404: "There is no such thing here.",
    409: "Too many match, or it is being done already.",
    413: "The body is too long.",
    422: "A value does not fit.",
    503: "Not now; Retry-After says when.",
}
WRITES = (400, 401, 403, 404, 413, 422, 503)

Id = Annotated[str, Path(min_length=1, max_length=200, description="The id of the job.")]
Queue = Annotated[str, Path(min_length=1, max_length=200, description="The name of the queue.")]
Limit = Annotated[int, Query(ge=1, le=PAGE_LIMIT)]
Offset = Annotated[int, Query(ge=0, le=FURTHEST)]
Name = Annotated[str | None, Query(min_length=1, max_length=300)]
Moment = Annotated[float | None, Query(ge=0, le=LATEST, allow_inf_nan=False)]
Custom = Annotated[
    str | None, Header(alias=HEADER, description="Must be there: a form of another site cannot send it.")
]
ServingDep = Annotated[Serving, Depends(serving_of)]


class Which(BaseModel):
    """Which failures are meant; with `dry_run` they are only counted."""

    task: str | None = Field(None, min_length=1, max_length=300)
    error: str | None = Field(None, min_length=1, max_length=300)
    since: float | None = Field(None, ge=0, le=LATEST, allow_inf_nan=False)
    dry_run: bool = False


class Old(BaseModel):
    """Which records are meant: those that ended so many seconds ago."""

    older_than: float = Field(ge=0, le=LATEST, allow_inf_nan=False)
    state: Literal["completed", "discarded", "quarantined", "cancelled"] | None = None
    dry_run: bool = False


class Count(BaseModel):
    """How many."""

    count: int


class Cancelled(BaseModel):
    """Whether the cancellation could still make a difference."""

    cancelled: bool


class Redriven(BaseModel):
    """The new job that runs again what failed."""

    job_id: str


class QueueState(BaseModel):
    """Whether a queue is paused; `queue` is None for all."""

    queue: str | None
    paused: bool


def status_router(
    prefix: str = "/bgruntime", auth: Auth | None = None, allow: Allow | None = None
) -> APIRouter:
    """A router that shows how the runtime is: probes, numbers, and where a job stands.

    Everybody may read that. What shows arguments, reasons and error texts, what lists, and what
    changes something is there only with *auth*.

    Args:
        prefix: of all its paths.
        auth: from a request to whoever makes it, None for nobody.
        allow: from that one, an action and the request to whether it may; everything unless given.
            Actions: view, view_arguments, cancel, redrive, discard, purge, pause, resume.
    """
    router = APIRouter(prefix=prefix, route_class=StatusRoute, tags=["bgruntime"])
    _add_probes(router)
    _add_numbers(router)
    if auth is not None:
        guard = Guard(auth, allow)
        _add_views(router, guard)
        _add_steering(router, guard)
        _add_failures(router, guard)
    _add_job(router)  # the last: it takes whatever follows /jobs/, as an id may have a slash in it
    return router


def job_location(request: Request, id: str) -> str:
    """The path where the job of that id is shown, as clients of this server ask for it.

    Without scheme and host, which a request could make up. Raises NoMatchFound: there is no router.
    """
    router = request.scope.get("router") or request.app
    root: str = request.scope.get("app_root_path", request.scope.get("root_path", ""))
    return root.rstrip("/") + str(router.url_path_for(JOB_ROUTE, id=quote(id, safe="", errors="replace")))


def _add_probes(router: APIRouter) -> None:
    down: dict[int | str, dict[str, Any]] = {503: {"model": shown.HealthShown, "description": "It is not."}}

    @router.get("/livez", response_model=shown.Liveness, responses={503: {"model": shown.Liveness}})
    async def livez(serving: ServingDep) -> Response:
        """Whether to leave this process alone: 503 means restart it."""
        live = serving.runtime.health().live
        return SafeJSON({"status": "pass" if live else "fail"}, 200 if live else 503)

    @router.get("/readyz", response_model=shown.HealthShown, responses=down)
    async def readyz(serving: ServingDep) -> Response:
        """Whether to send requests here: 503 from the first signal to stop."""
        ready = serving.ready
        return SafeJSON(shown.health_shown(serving.runtime.health(), ready=ready), 200 if ready else 503)

    @router.get("/health", response_model=shown.HealthShown, responses=down)
    async def health(serving: ServingDep) -> Response:
        """Whether the runtime is well, and which of its checks are not: 503 where one fails."""
        health = serving.runtime.health()
        return SafeJSON(
            shown.health_shown(health, ready=serving.ready), 503 if health.status == "fail" else 200
        )


def _add_numbers(router: APIRouter) -> None:
    families = Families()

    @router.get("/metrics/tasks", response_model=shown.RuntimeNumbers)
    async def metrics_tasks(serving: ServingDep) -> Response:
        """The numbers of this process, of each queue and of each task."""
        numbers = await in_slices(shown.numbers_of(serving.runtime.stats()))
        return Response(bytes_of("".join(numbers)), media_type=SafeJSON.media_type)

    @router.get(
        "/metrics",
        response_class=PlainTextResponse,
        responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
    )
    async def metrics(serving: ServingDep) -> Response:
        """The numbers of this process for Prometheus."""
        journal = serving.runtime.journal
        counted = None
        if journal is not None:
            with suppress(JournalUnavailable, TimeoutError):  # its numbers are left out meanwhile
                async with asyncio.timeout(JOURNAL_PATIENCE):
                    counted = await journal.stats()
        stats = serving.runtime.stats()
        # What is worked out when it is read is read here first: a page has it in few and large pieces.
        await in_slices((task.run_time.up_to, task.queue_wait.up_to) for task in stats.tasks.values())
        page = "".join(await in_slices(exposition(families, stats, counted)))
        return Response(page.encode("utf-8", "replace"), media_type=CONTENT_TYPE)


def _add_job(router: APIRouter) -> None:
    @router.get(
        "/jobs/{id:bgruntime_id}",
        name=JOB_ROUTE,
        summary="Job",
        response_model=shown.JobShown,
        responses=_problems(404, 422, 503),
    )
    async def job(
        id: Id,
        serving: ServingDep,
        wait: Annotated[
            float,
            Query(ge=0, le=LONGEST_WAIT, allow_inf_nan=False, description="Seconds to wait for its end."),
        ] = 0.0,
    ) -> Response:
        """Where a job stands. A durable one is found whichever process has it."""
        found = await wait_for(serving, id, wait)
        return SafeJSON(shown.job_shown(found) if isinstance(found, Job) else shown.failure_shown(found))


def _asking(guard: Guard, action: Action) -> Any:
    """A dependency that lets through whom *guard* lets do *action*."""
    if action in ("view", "view_arguments"):

        async def reading(request: Request) -> object:
            return await guard.check(request, action)

        return Depends(reading)

    async def writing(request: Request, header: Custom = None) -> object:
        return await guard.check(request, action)

    return Depends(writing)


def _add_views(router: APIRouter, guard: Guard) -> None:
    viewing = _asking(guard, "view")
    refused = _problems(401, 403, 404, 422, 503)

    @router.get(
        "/health/details",
        response_model=shown.HealthDetails,
        dependencies=[viewing],
        responses=_problems(401, 403),
    )
    async def health_details(serving: ServingDep) -> Response:
        """The state of health with its reasons."""
        return SafeJSON(shown.health_details(serving.runtime.health(), ready=serving.ready))

    @router.get(
        "/jobs", response_model=shown.JobPage, dependencies=[viewing], responses=_problems(401, 403, 422)
    )
    async def jobs(
        serving: ServingDep,
        state: shown.State | None = None,
        task: Name = None,
        limit: Limit = 50,
        offset: Offset = 0,
    ) -> Response:
        """The jobs of this process: live ones, and the last that ended."""
        found = serving.runtime.jobs(state=state, task=task)
        items = [shown.job_details(job, arguments=False) for job in found[offset : offset + limit]]
        return SafeJSON(page_of(items, len(found), offset, limit))

    @router.get("/jobs/{id:bgruntime_id}/details", response_model=shown.JobDetails, responses=refused)
    async def job_details(
        id: Id, request: Request, serving: ServingDep, principal: object = viewing
    ) -> Response:
        """A job with its reason, its error and, for whom may see them, its arguments."""
        found = await find(serving, id)
        arguments = await guard.may(principal, "view_arguments", request)
        if isinstance(found, Failure):
            return SafeJSON(shown.failure_details(found, arguments=arguments))
        kept = None
        if found.done() and serving.runtime.journal is not None:
            kept = await serving.runtime.journal.get(id)
        if kept is not None:
            return SafeJSON(shown.failure_details(kept, arguments=arguments))
        return SafeJSON(shown.job_details(found, arguments=arguments))


def _add_steering(router: APIRouter, guard: Guard) -> None:
    @router.post(
        "/jobs/{id:bgruntime_id}/cancel",
        response_model=Cancelled,
        dependencies=[_asking(guard, "cancel")],
        responses=_problems(*WRITES),
    )
    async def cancel(id: Id, serving: ServingDep) -> Response:
        """Cancel a job of this process."""
        job = serving.runtime.job(id)
        if job is None:
            raise HTTPException(404, "no such job in this process")
        return SafeJSON({"cancelled": job.cancel("cancelled by an operator")})

    def steer(path: str, action: Literal["pause", "resume"], about: str, *, one: bool) -> None:
        def apply(serving: Serving, queue: str | None) -> Response:
            try:
                getattr(serving.runtime, action)(queue)
            except ValueError:
                raise HTTPException(404, "there is no such queue") from None
            return SafeJSON({"queue": queue, "paused": action == "pause"})

        async def of_one(
            queue: Annotated[str, Path(min_length=1, max_length=200)], serving: ServingDep
        ) -> Response:
            return apply(serving, queue)

        async def of_all(serving: ServingDep) -> Response:
            return apply(serving, None)

        router.post(
            path,
            name=f"bgruntime:{action}{'_queue' if one else ''}",
            summary=f"{action} {'queue' if one else 'all'}".title(),
            description=about,
            response_model=QueueState,
            dependencies=[_asking(guard, action)],
            responses=_problems(*WRITES),
        )(of_one if one else of_all)

    steer("/queues/{queue}/pause", "pause", "Start nothing more from one queue.", one=True)
    steer("/queues/{queue}/resume", "resume", "Start jobs from one queue again.", one=True)
    steer("/pause", "pause", "Start nothing more.", one=False)
    steer("/resume", "resume", "Start jobs again.", one=False)


def _add_failures(router: APIRouter, guard: Guard) -> None:
    viewing = _asking(guard, "view")

    @router.get(
        "/failures",
        response_model=shown.JobPage,
        responses=_problems(401, 403, 404, 422, 503),
    )
    async def failures(
        request: Request,
        serving: ServingDep,
        task: Name = None,
        error: Name = None,
        since: Moment = None,
        state: Literal["retryable", "discarded", "quarantined", "cancelled", "completed"] | None = None,
        limit: Limit = 50,
        offset: Offset = 0,
        principal: object = viewing,
    ) -> Response:
        """The failures in the journal, of all processes; those that are open unless a state is named."""
        journal = journal_of(serving)
        arguments = await guard.may(principal, "view_arguments", request)
        found = await journal.failures(task=task, error=error, since=since, state=state, limit=offset + limit)
        total = await journal.count(task=task, error=error, since=since, state=state)
        items = [shown.failure_details(one, arguments=arguments) for one in found[offset:]]
        return SafeJSON(page_of(items, total, offset, limit))

    @router.get(
        "/failures/groups",
        response_model=list[shown.GroupShown],
        dependencies=[viewing],
        responses=_problems(401, 403, 404, 422, 503),
    )
    async def groups(
        serving: ServingDep, task: Name = None, since: Moment = None, limit: Limit = 50
    ) -> Response:
        """Open failures by cause, the most frequent first."""
        found = await journal_of(serving).groups(task=task, since=since, limit=limit)
        return SafeJSON(
            [
                {
                    "task": one.task,
                    "error": one.error,
                    "place": one.place,
                    "count": one.count,
                    "first_seen": one.first_seen,
                    "last_seen": one.last_seen,
                }
                for one in found
            ]
        )

    _add_redrive(router, guard)
    _add_removal(router, guard)


def _add_redrive(router: APIRouter, guard: Guard) -> None:
    redriving = _asking(guard, "redrive")

    @router.post(
        "/failures/redrive",
        status_code=202,
        response_model=Count,
        dependencies=[redriving],
        responses=_problems(*WRITES, 409),
    )
    async def redrive_matching(serving: ServingDep, which: Annotated[Which, Body()]) -> Response:
        """Run failures again, each as a new job; at most 1,000 at once."""
        journal = journal_of(serving)
        await _few(journal.count(task=which.task, error=which.error, since=which.since))
        done = await journal.redrive(
            task=which.task, error=which.error, since=which.since, dry_run=which.dry_run
        )
        return SafeJSON({"count": len(done)}, 202)

    @router.post(
        "/failures/{id:bgruntime_id}/redrive",
        status_code=202,
        response_model=Redriven,
        dependencies=[redriving],
        responses=_problems(*WRITES),
    )
    async def redrive(id: Id, request: Request, serving: ServingDep) -> Response:
        """Run one failure again, as a new job."""
        try:
            [job] = await journal_of(serving).redrive(id)
        except PayloadError:
            raise HTTPException(422, "its arguments no longer fit the task") from None
        except LookupError:
            raise HTTPException(404, "no open failure of that id that can be redriven here and now") from None
        new = job if isinstance(job, str) else job.id
        return SafeJSON({"job_id": new}, 202, {"Location": job_location(request, new)})


def _add_removal(router: APIRouter, guard: Guard) -> None:
    discarding = _asking(guard, "discard")

    @router.post(
        "/failures/discard",
        response_model=Count,
        dependencies=[discarding],
        responses=_problems(*WRITES, 409),
    )
    async def discard_matching(serving: ServingDep, which: Annotated[Which, Body()]) -> Response:
        """Put failures away that match; at least one of task, error and since says which."""
        journal = journal_of(serving)
        if which.task is None and which.error is None and which.since is None:
            raise HTTPException(422, "say which: by task, error or since")
        await _few(journal.count(task=which.task, error=which.error, since=which.since))
        count = await journal.discard(
            task=which.task, error=which.error, since=which.since, dry_run=which.dry_run
        )
        return SafeJSON({"count": count})

    @router.post(
        "/failures/purge",
        response_model=Count,
        dependencies=[_asking(guard, "purge")],
        responses=_problems(*WRITES),
    )
    async def purge(serving: ServingDep, old: Annotated[Old, Body()]) -> Response:
        """Delete records of what ended."""
        count = await journal_of(serving).purge(
            older_than=old.older_than, state=old.state, dry_run=old.dry_run
        )
        return SafeJSON({"count": count})

    @router.post(
        "/failures/{id:bgruntime_id}/discard",
        response_model=Count,
        dependencies=[discarding],
        responses=_problems(*WRITES),
    )
    async def discard(id: Id, serving: ServingDep) -> Response:
        """Put one failure away: it is not redriven and no longer open."""
        count = await journal_of(serving).discard(id)
        if not count:
            raise HTTPException(404, "no open failure of that id")
        return SafeJSON({"count": count})


async def _few(counting: Awaitable[int]) -> None:
    count = await counting
    if count > MOST_AT_ONCE:
        raise HTTPException(
            409, f"{count} failures match, at most {MOST_AT_ONCE} are done at once: say fewer"
        )


__all__ = ["job_location", "status_router"]
