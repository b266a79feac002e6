"""gunicorn's threaded worker, hardened: nobody's slowness is another's, and its own refusals are in the API's form.

The loop accepts, reads heads, sends what readers have yet to take, and lingers after refusals; it never waits for one
caller. A request gets a thread once its head is whole: a small call one of WEB_THREADS, which are for nothing else;
what has a body, a file or a long wait a thread of its own, of at most WEB_WAITING. This module does not know the app.
"""

from __future__ import annotations

import resource
import selectors
import socket
import sys
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from gunicorn.http.errors import NoMoreData  # type: ignore[import-untyped]
from gunicorn.http.parser import RequestParser  # type: ignore[import-untyped]
from gunicorn.workers.gthread import ThreadWorker  # type: ignore[import-untyped]

from backend.api.streaming import Stream
from backend.errors import (
    BadFraming,
    RequestTooSlow,
    ServiceError,
    StorageFull,
    StoreUnavailable,
    TooManyRequestsAtOnce,
)
from backend.periodic import endless_retries
from backend.serve.connections import LINGER, Connection, Stage
from backend.serve.exchange import answer, is_small
from backend.serve.refusals import as_response, check_request, check_start, refusal
from backend.serve.stream_sink import ConnectionSink
from backend.serve.threads import SpareThreads
from backend.serve.turns import Turns
from backend.telemetry.sums import MANY, Sums

_HEAD_SECONDS = 5.0
"""How long a request line and its headers may take to come."""
_MOST_LINGERING = 256
_SPARE_FILES = 512
"""Open files left for everything that is no connection."""
_MOST_AT_ONCE = 32
"""Connections that are taken before those that are there have their turn."""
_MOST_UNSENT = 1 << 20
"""Bytes of a stream that its listener may leave lying."""
_LOOK_SECONDS = 0.25
_SUM_SECONDS = 60.0
_MOST_SUMS = 1000
_OPEN_RETRIES = endless_retries(1.0, 1.0)
"""Pauses between two tries to open what is away."""


class AgentWorker(ThreadWorker):  # type: ignore[misc]
    """A worker whose threads no slow caller can keep from others."""

    alive: bool
    worker_connections: int
    most_waiting = 1000
    """WEB_WAITING, once gunicorn_conf.py has set it."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._waiting: dict[Connection, None] = {}
        self._lingering: dict[Connection, None] = {}
        self._looked = 0.0
        self._turns = Turns(max(2, self.cfg.threads // 8))
        self._stop_at: float | None = None
        self._refused: Sums[tuple[str, str]] = Sums(_SUM_SECONDS, _MOST_SUMS)

    def load_wsgi(self) -> None:
        """Open the app, waiting for a job table that is away or full.

        gunicorn ends the whole service when one new process cannot start: one that died while the job table was away
        would take all others with it, which still answer.
        """
        reported = ""
        pauses = _OPEN_RETRIES.pauses()
        while self.alive:
            try:
                super().load_wsgi()
            except (StoreUnavailable, StorageFull) as error:
                if error.message != reported:
                    self.log.warning("This process waits to start: %s", error.message)
                reported = error.message
                self.notify()
                time.sleep(next(pauses))
            else:
                return
        sys.exit(0)

    def init_process(self) -> None:
        """Take as many open files as connections need, or fewer connections, and become the worker."""
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        wanted = self.worker_connections + _SPARE_FILES
        if soft < wanted:
            soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        self.worker_connections = max(64, min(self.worker_connections, soft - _SPARE_FILES))
        self._spare = SpareThreads(self.most_waiting)
        super().init_process()

    # On the loop

    def accept(self, listener: socket.socket) -> None:
        """Take new connections; where there are too many, those that have been idle longest make room."""
        for _ in range(_MOST_AT_ONCE):
            try:
                sock, client = listener.accept()
            except (BlockingIOError, ConnectionAbortedError):
                return
            except OSError as error:
                # No open files are left: who waits is taken as soon as one is.
                self.log.warning("A connection cannot be taken now: %s", error)
                if not self._make_room():
                    time.sleep(_LOOK_SECONDS)
                return
            self.nr_conns += 1
            if self.nr_conns >= self.worker_connections:
                self._make_room()
            self._await_head(Connection(sock, client, listener.getsockname()))
            if self.nr_conns >= self.worker_connections:
                return

    def _make_room(self) -> bool:
        """Hang up on the connection that has been idle longest; return whether there was one."""
        idle = next((other for other in self._waiting if other.stage is Stage.HEAD), None)
        if idle is not None:
            self._close(idle)
        return idle is not None

    def murder_keepalived(self, force: bool = False) -> None:
        """Give up the connections whose time is over; all of them if forced."""
        now = time.monotonic()
        if not force and now < self._looked + _LOOK_SECONDS:
            return
        self._looked = now
        for (text, origin), count in self._refused.take(all_of_them=force):
            self.log.warning(
                "Not a request: %s %d more in %.0f s", text, count, _SUM_SECONDS, extra={"address": origin}
            )
        for connection in list(self._waiting):
            paced = connection.pace is not None and connection.pace.expires < now
            if force or connection.deadline < now or paced:
                self._give_up(connection)

    def murder_pending(self) -> None:
        """Do nothing: `murder_keepalived` sees to all of them."""

    def _cap_keepalive(self, deadline: float) -> None:
        """Keep no connection for a further request beyond this time: the worker stops."""
        self._stop_at = deadline
        for connection in self._waiting:
            if connection.stage is not Stage.FLUSH:
                connection.deadline = min(connection.deadline, deadline)

    def _wait(self, connection: Connection, stage: Stage, seconds: float, event: int) -> None:
        """Have the loop go on with a connection when its socket is ready, or give it up in so many seconds."""
        connection.stage = stage
        if stage is Stage.HEAD:
            connection.pace = None
        connection.deadline = time.monotonic() + seconds
        if self._stop_at is not None and stage is not Stage.FLUSH:
            connection.deadline = min(connection.deadline, self._stop_at)
        self._waiting[connection] = None
        self.poller.register(connection, event, partial(self._go_on, connection))

    def _unwait(self, connection: Connection) -> None:
        if self._waiting.pop(connection, 0) is None:
            self.poller.unregister(connection)
        self._lingering.pop(connection, None)

    def _go_on(self, connection: Connection, _: object) -> None:
        steps: dict[Stage, Callable[[Connection], None]] = {
            Stage.HEAD: self._read_head,
            Stage.FLUSH: self._flush,
            Stage.STREAM: self._go_on_streaming,
            Stage.LINGER: self._discard,
        }
        self._safely(steps[connection.stage], connection)

    def _safely(self, step: Callable[[Connection], None], connection: Connection) -> None:
        """Do a step for one connection; whatever goes wrong with it is nobody else's."""
        try:
            step(connection)
        except OSError:
            self._close(connection)
        except Exception:
            self.log.exception("A connection could not be handled.")
            self._close(connection)

    def _await_head(self, connection: Connection) -> None:
        """Wait for a request; one that has come already is handled at once."""
        if connection.unread and connection.is_head_whole:
            self._dispatch(connection)
            return
        # A connection that was never used, or has half a head, does not wait as long as one between two requests.
        seconds = self.cfg.keepalive if connection.is_kept and not connection.unread else _HEAD_SECONDS
        self._wait(connection, Stage.HEAD, seconds, selectors.EVENT_READ)

    def _read_head(self, connection: Connection) -> None:
        began = not connection.unread
        if not connection.read_some():
            self._unwait(connection)
            if connection.unread:
                self._refuse(connection, BadFraming("The request broke off before the end of its headers."))
            else:
                self._close(connection)
        elif connection.is_head_whole:
            self._unwait(connection)
            self._dispatch(connection)
        elif began:
            connection.deadline = time.monotonic() + _HEAD_SECONDS

    def _dispatch(self, connection: Connection) -> None:
        """Give a request whose head is whole to a thread, or refuse it."""
        connection.stage = Stage.BUSY
        connection.arrived = time.monotonic()
        try:
            parser, request = _parse(self.cfg, connection)
        except StopIteration:
            self._close(connection)
            return
        except Exception as error:  # noqa: BLE001 - whatever came
            self._refuse(connection, error)
            return
        self.nr += 1
        if self.nr >= self.max_requests and self.alive:
            self.log.info("This process has answered max_requests requests and is replaced.")
            self.alive = False
        if is_small(request):
            self.tpool.submit(self._serve, connection, parser, request, None)
        elif not self._spare.run(partial(self._serve, connection, parser, request, self._turns)):
            self._refuse(connection, TooManyRequestsAtOnce())

    def _refuse(self, connection: Connection, error: BaseException) -> None:
        """Answer what could not be read as a request, and end its connection."""
        said = refusal(error)
        response, request_id, status = as_response(said)
        address = connection.client[0] if isinstance(connection.client, tuple) else ""
        extra = {"refusal_id": request_id, "address": address}
        if type(said) is ServiceError:
            self.log.error("A request could not be handled.", exc_info=error, extra=extra)
        else:
            self._log_refused(f"{status} {said.message}", address, extra)
        try:
            connection.begin(0, None)
            connection.sendall(response)
        except OSError:
            self._close(connection)
            return
        self._after_answer(connection, keep=False)

    def _log_refused(self, text: str, address: str, extra: Mapping[str, str]) -> None:
        """Log what was not a request; of many from one address the first, and later how many followed."""
        if self._refused.is_first((address, text), (text, address), ("Of any kind.", MANY)):
            self.log.warning("Not a request: %s", text, extra=extra)

    def _after_answer(self, connection: Connection, *, keep: bool) -> None:
        """Send the rest of an answer, then wait for the next request or for the caller to hang up."""
        connection.is_kept = keep
        if connection.has_unsent:
            self._wait(connection, Stage.FLUSH, float("inf"), selectors.EVENT_WRITE)
        elif keep:
            self._await_head(connection)
        else:
            self._linger(connection)

    def _flush(self, connection: Connection) -> None:
        if connection.flush_some():
            self._unwait(connection)
            self._after_answer(connection, keep=connection.is_kept)

    def _begin_stream(self, stream: Stream, chunked: bool, connection: Connection) -> None:
        """Keep a connection for whoever sends into its stream; what comes in is for the stream, too."""
        connection.stream = stream
        self._wait(connection, Stage.STREAM, float("inf"), selectors.EVENT_READ)
        stream.begin(ConnectionSink(connection, chunked, partial(self.method_queue.defer, self._push)))
        self._watch_stream(connection)

    def _push(self, connection: Connection, data: bytes, is_last: bool) -> None:
        """Put bytes of a stream on its connection, whose end they may be."""
        if connection.stage is Stage.STREAM and connection in self._waiting:
            connection.keep(data)
            connection.ends = connection.ends or is_last
            self._safely(self._send_stream, connection)

    def _send_stream(self, connection: Connection) -> None:
        """Send what can be sent now; hang up on who takes nothing, or when all was sent."""
        is_sent = connection.flush_some()
        if connection.unsent_bytes > _MOST_UNSENT:
            self._close(connection)
        elif is_sent and connection.ends:
            self._unwait(connection)
            self._end_stream(connection)
            self._linger(connection)
        else:
            self._watch_stream(connection)

    def _watch_stream(self, connection: Connection) -> None:
        events = selectors.EVENT_READ | (selectors.EVENT_WRITE if connection.has_unsent else 0)
        self.poller.modify(connection, events, partial(self._go_on, connection))

    def _go_on_streaming(self, connection: Connection) -> None:
        """Take what has come, and send what waits."""
        data = connection.take_some()
        if data == b"":
            self._close(connection)
            return
        if data and connection.stream is not None:
            connection.stream.received(data)
        self._send_stream(connection)

    def _end_stream(self, connection: Connection) -> None:
        stream, connection.stream = connection.stream, None
        if stream is not None:
            stream.ended()

    def _linger(self, connection: Connection) -> None:
        """Read on until the caller has ended: an answer is lost when its connection is closed on what was unread."""
        connection.linger()
        self._wait(connection, Stage.LINGER, LINGER.start_seconds, selectors.EVENT_READ)
        self._lingering[connection] = None
        if len(self._lingering) > _MOST_LINGERING:
            self._close(next(iter(self._lingering)))

    def _discard(self, connection: Connection) -> None:
        if not connection.discard_some():
            self._close(connection)

    def _give_up(self, connection: Connection) -> None:
        self._unwait(connection)
        if connection.stage is Stage.HEAD and connection.unread and self._stop_at is None:
            self._refuse(connection, RequestTooSlow(details={"seconds": _HEAD_SECONDS}))
        else:
            self._close(connection)

    def _close(self, connection: Connection) -> None:
        self._unwait(connection)
        self._end_stream(connection)
        self.nr_conns -= 1
        connection.close()

    # On a thread

    def _serve(self, connection: Connection, parser: Any, request: Any, turns: Turns | None) -> None:
        """Answer a request, and give its connection back to the loop."""
        keeps = bool(self.alive and self.cfg.keepalive)
        try:
            kept = answer(self.wsgi, request, connection, self.cfg, turns, keeps=keeps)
        except (OSError, NoMoreData) as error:
            self.log.debug("The caller has gone: %s", error)
            step: Callable[[Connection], None] = self._close
        except BaseException as error:  # noqa: BLE001 - the thread's edge
            step = partial(self._fail, error)
        else:
            connection.unread = parser.unreader.take_buffered() if kept.keep else b""
            if kept.stream is not None:
                step = partial(self._begin_stream, kept.stream, kept.chunked)
            else:
                step = partial(self._after_answer, keep=kept.keep)
        self.method_queue.defer(self._safely, step, connection)

    def _fail(self, error: BaseException, connection: Connection) -> None:
        """End a request at which the app itself failed: once its answer has begun nothing can be said any more."""
        if connection.has_begun:
            self.log.error("An answer could not be ended.", exc_info=error)
            self._close(connection)
        else:
            self._refuse(connection, error)


def _parse(config: Any, connection: Connection) -> tuple[Any, Any]:
    """Return a parser that holds what came behind the head, and the request. Raises gunicorn's errors, BadRequest."""
    check_start(connection.unread, connection.starts_well)
    parser = RequestParser(config, connection, connection.client)
    parser.unreader.unread(connection.unread)
    connection.unread = b""
    connection.begin(0, None)
    request = next(parser)
    check_request(request)
    return parser, request
