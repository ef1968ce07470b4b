"""The ASGI application of the gateway: routes, errors, CORS, compression, health."""

from __future__ import annotations

import contextlib
import logging
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from typing import Any, Final

import orjson
from prometheus_client import Gauge, Histogram
from starlette.applications import Starlette
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route as HttpRoute
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.compatible.paths import PATHS, ErrorBody
from gateway.disconnect import ClientGone
from gateway.gateway_calls import GatewayCalls
from gateway.mcp import http_endpoint
from gateway.mcp.http_endpoint import McpEndpoint
from gateway.openapi import openapi
from gateway.origins import check_origin
from gateway.problem import MEDIA_TYPE, HttpError, http_status, problem, problem_headers
from gateway.request_context import REQUEST_ID, TIMEOUT, request_id
from gateway.routes import ROUTES
from gateway.rpc_endpoint import RpcEndpoint
from gateway.settings import GatewaySettings
from gateway.upstream import SERVICES, Upstream
from nearline import __version__
from nearline.calls.method_kinds import slow_limit_ms
from nearline.channel_security import LANE_KEY
from nearline.client_metrics import CALL_BUCKETS
from nearline.errors import InternalError, NearlineError, NotFound
from nearline.tracing.recorded_calls import exemplar
from nearline.tracing.slow_requests import SlowRequestLog
from nearline.tracing.spans import (
    Span,
    begin_request,
    current_span,
    end_span,
    is_tracing,
    trace_id_of,
)
from nearline.tracing.trace_context import TRACE_ID_KEY, TRACEPARENT

# Probes are not traced: they would be most of what is recorded.
_UNTRACED: Final = ("/healthz",)
# What the page at the root names.
_PLACES: Final = {
    "/openapi.json": "every path, with its requests and replies (OpenAPI)",
    "/v1/status": "what is served; needs a key if the services have keys",
    "/healthz": "whether this gateway answers",
}


class RequestTrace:
    """An ASGI application whose requests are recorded as spans, some of them.

    The reply to one that is recorded has its trace in the header x-trace-id.

    Args:
        application: The application.
    """

    def __init__(self, application: ASGIApp) -> None:
        self._application = application

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers a request."""
        span: Span | None = None
        if is_tracing() and scope["type"] == "http" and scope["path"] not in _UNTRACED:
            span = begin_request(scope["method"], Headers(scope=scope).get(TRACEPARENT))
        if span is None:
            await self._application(scope, receive, send)
            return
        await self._record(span, scope, receive, send)

    async def _record(self, span: Span, scope: Scope, receive: Receive, send: Send) -> None:
        error = ""
        span.set_attribute("http.request.method", scope["method"])

        async def send_traced(message: Message) -> None:
            nonlocal error
            if message["type"] == "http.response.start":
                status: Any = message["status"]
                span.set_attribute("http.response.status_code", status)
                error = str(status) if status >= 500 else ""
                MutableHeaders(scope=message)[TRACE_ID_KEY] = trace_id_of(span)
            await send(message)

        try:
            await self._application(scope, receive, send_traced)
        except BaseException as failure:
            error = type(failure).__name__
            raise
        finally:
            end_span(span, error)


def note_route(verb: str, path: str) -> Span | None:
    """Names the span of the request that runs now after its route.

    Args:
        verb: Its method.
        path: Path of the route, without values of parameters.
    Returns: The span; None if the request is not recorded.
    """
    span = current_span()
    if span is not None:
        span.update_name(f"{verb} {path}")
        span.set_attribute("http.route", path)
    return span


_log = logging.getLogger(__name__)
_Endpoint = Callable[[Request], Awaitable[Response]]
# Smaller replies are sent as they are: compressing them saves no packet.
_COMPRESS_BYTES = 4_096
_requests = Histogram(
    "nearline_gateway_request_seconds",
    "Time until a reply, or the first event of a stream, by path and status.",
    ("path", "status"),
    buckets=CALL_BUCKETS,
)
_running = Gauge("nearline_gateway_running_requests", "Requests whose reply has not begun.")


def make_application(settings: GatewaySettings, upstream: Upstream) -> Starlette:
    """Returns the application; it closes the upstream when it ends."""
    mcp_endpoint = McpEndpoint(upstream, settings)
    slow = SlowRequestLog(settings.slow_request_ms)

    def slow_log(service: str, name: str) -> SlowRequestLog:
        descriptor = SERVICES[service]
        limit_ms = slow_limit_ms(
            descriptor.full_name,
            name,
            streams_in=descriptor.methods_by_name[name].client_streaming,
            search_ms=settings.slow_request_ms,
            answer_ms=settings.slow_answer_ms if settings.slow_request_ms else 0.0,
        )
        return slow.with_limit(limit_ms)

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        async with mcp_endpoint.running():
            yield
        await upstream.close()

    calls = GatewayCalls(upstream, settings)
    answering = partial(_answering, partial(check_origin, settings=settings))
    routes = [
        HttpRoute(
            route.path,
            answering(
                slow_log(service, name), route.path, RpcEndpoint(calls, service, name, route)
            ),
            methods=[route.verb],
        )
        for service, methods in ROUTES.items()
        for name, route in methods.items()
    ]
    routes += [
        HttpRoute(
            one.path,
            answering(
                slow_log(one.service, one.method),
                one.path,
                partial(one.answer, calls),
                one.error_body,
            ),
            methods=[one.verb],
        )
        for one in PATHS
    ]
    document = orjson.dumps(openapi(__version__))

    async def openapi_document(request: Request) -> Response:
        return Response(document, media_type="application/json")

    routes += [
        HttpRoute(
            http_endpoint.PATH,
            # Its slowest tool answers questions.
            answering(slow_log("GenerationService", "Generate"), http_endpoint.PATH, mcp_endpoint),
            methods=["POST"],
        ),
        HttpRoute("/", _start_page, methods=["GET"]),
        HttpRoute("/healthz", _alive, methods=["GET"]),
        HttpRoute("/openapi.json", openapi_document, methods=["GET"]),
    ]
    middleware = [
        Middleware(RequestTrace),
        Middleware(GZipMiddleware, minimum_size=_COMPRESS_BYTES, compresslevel=1),
    ]
    if settings.origins:
        middleware.insert(
            1,
            Middleware(
                CORSMiddleware,
                allow_origins=settings.origins,
                allow_methods=["GET", "POST", "PUT", "DELETE"],
                allow_headers=[
                    *("authorization", "content-type", REQUEST_ID, TIMEOUT, LANE_KEY, TRACEPARENT),
                    *http_endpoint.HEADERS,
                ],
                expose_headers=[REQUEST_ID, TRACE_ID_KEY, "ratelimit", "retry-after"],
                max_age=600,
            ),
        )
    return Starlette(
        routes=routes,
        middleware=middleware,
        lifespan=lifespan,
        exception_handlers={HTTPException: _no_such_path},  # type: ignore[dict-item]
    )


def _answering(
    check: Callable[[Request], None],
    slow: SlowRequestLog,
    path: str,
    endpoint: _Endpoint,
    error_body: ErrorBody | None = None,
) -> _Endpoint:
    """Returns an endpoint whose errors are problem details, or have a body of another shape.

    `check` raises the error of a request that may not be answered.
    """

    async def answer(request: Request) -> Response:
        start = time.perf_counter()
        own_id = request_id(request)
        span = note_route(request.method, path)
        try:
            check(request)
            with _running.track_inprogress():
                response = await endpoint(request)
        except NearlineError as error:
            response = _failed(error, own_id, error_body)
        except (ClientGone, ClientDisconnect):
            response = Response(status_code=499)
        except Exception:
            error_id = secrets.token_hex(8)
            _log.exception(
                "unexpected error in a request",
                extra={"error_id": error_id, "request_id": own_id, "path": request.url.path},
            )
            failure = InternalError(
                f"internal error {error_id}; the gateway's log has the cause under this id"
            )
            response = _failed(failure, own_id, error_body)
        response.headers[REQUEST_ID] = own_id
        seconds = time.perf_counter() - start
        _requests.labels(path, response.status_code).observe(seconds, exemplar(span))
        if slow.is_slow(seconds):
            slow.write(f"{request.method} {path}", str(response.status_code), seconds, {}, span)
        return response

    return answer


def _failed(error: NearlineError, own_id: str, error_body: ErrorBody | None) -> Response:
    return Response(
        problem(error, own_id) if error_body is None else orjson.dumps(error_body(error)),
        status_code=http_status(error),
        media_type=MEDIA_TYPE if error_body is None else "application/json",
        headers=problem_headers(error),
    )


async def _no_such_path(request: Request, error: HTTPException) -> Response:
    """Says which methods a path takes, also to OPTIONS, or that there is no such path."""
    own_id, path, verb = request_id(request), request.url.path, request.method
    routes: list[Any] = [one for one in request.app.routes if one.path_regex.match(path)]
    allowed = ", ".join(sorted({"OPTIONS", *(verb for one in routes for verb in one.methods)}))
    if not routes:
        lost = NotFound(f"there is no {verb} {path}; /openapi.json lists what there is")
        found = _failed(lost, own_id, None)
    elif verb == "OPTIONS":
        found = Response(status_code=204)
    else:
        found = _failed(HttpError(f"{path} takes {allowed}, not {verb}", 405), own_id, None)
    if routes:
        found.headers["allow"] = allowed
    found.headers[REQUEST_ID] = own_id
    return found


async def _start_page(request: Request) -> Response:
    """Says what is here: a page for a browser, JSON for others."""
    if "text/html" not in request.headers.get("accept", ""):
        facts = {"name": "Nearline", "version": __version__, "paths": _PLACES}
        return Response(orjson.dumps(facts), media_type="application/json")
    links = "".join(f'<li><a href="{path}">{path}</a>: {use}' for path, use in _PLACES.items())
    page = f"<!doctype html><title>Nearline</title><h1>Nearline {__version__}</h1><ul>{links}</ul>"
    return Response(page, media_type="text/html")


async def _alive(request: Request) -> Response:
    """Says that the process answers; whether services do, `/v1/status` says."""
    return Response(b"ok\n", media_type="text/plain")
