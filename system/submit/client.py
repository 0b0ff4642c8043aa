"""RAY'S JOBS BEGIN HERE: a cluster behind its dashboard, over HTTP."""

from __future__ import annotations

import asyncio
import http.client
import os
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar

from ray.exceptions import AuthenticationError
from ray.job_submission import JobSubmissionClient

from system.errors import ClusterError, SystemFault
from system.submit.follow import RUNNING, Seen, UnreachableError
from system.submit.order import Order, number_of, submission_id

T = TypeVar("T")
# How long an answer may take, and a body of some MB on its way there; a job's words are asked for anew where none came
# for so long, since a connection that a laptop's sleep or a router cut may never say so. Seconds.
ANSWER_S = 60.0
UPLOAD_S = 600.0
SILENCE_S = 60.0
# Longest wait for a dashboard's answer to a stranger, seconds.
STRANGER_S = 10.0


def takes_strangers(address: str) -> bool | None:
    """Say whether a dashboard lists its jobs to somebody who sends no token: anybody who reaches it could submit.

    Returns:
        None: it does not say.
    """
    try:
        with urllib.request.urlopen(f"{address.rstrip('/')}/api/jobs/", timeout=STRANGER_S):
            return True
    except urllib.error.HTTPError as error:
        return False if error.code in (401, 403) else None
    except (OSError, ValueError, http.client.HTTPException):  # the last is of a port without HTTP
        return None


def is_open(address: str) -> bool:
    """Say whether a dashboard takes strangers; one that does not say is left to whoever speaks to it next."""
    return takes_strangers(address) is True


def check_open(address: str, *, elsewhere: bool) -> str | None:
    """Refuse a cluster that takes jobs from anybody on its network; return a warning for one on this machine.

    Raises:
        ClusterError: if it is not on this machine and asks for no token.
    """
    if not is_open(address):
        return None
    what = f"{address} takes jobs from anybody who reaches it: it asks for no token"
    if elsewhere:
        raise ClusterError(
            f"{what}. Start it with RAY_AUTH_MODE=token, as the files in cluster/ do, and keep its dashboard to its own"
            " machine; then submit through a tunnel (docs/clusters.md)"
        )
    return f"{what} (docs/security.md)"


class _Timely(JobSubmissionClient):
    """Ray's client, which by itself waits for ever."""

    def _do_request(self, method: str, endpoint: str, *, data: bytes | None = None, **words: Any) -> Any:
        limit = ANSWER_S if data is None else UPLOAD_S
        return super()._do_request(method, endpoint, data=data, timeout=limit, **words)


class Dashboard:
    """A cluster's jobs.

    Args:
        address: of its dashboard, `http://host:port`.

    Raises:
        ClusterError: if it refuses this user's token, or is none.
        UnreachableError: if it does not answer.
    """

    def __init__(self, address: str) -> None:
        self._address = address
        os.environ["RAY_API_SERVER_ADDRESS"] = address  # which Ray would otherwise prefer to the one that it is given
        self._client: Any = self._try(lambda: _Timely(address))

    def newest(self, name: str) -> int:
        """Return the number of a run's newest submission; 0: it has none."""
        return max((number_of(name, job.submission_id) for job in self._try(self._client.list_jobs)), default=0)

    def submit(self, order: Order) -> tuple[str, bool]:
        """Submit a run unless a submission of it is under way; return the submission, and whether it is a new one."""
        while True:
            number = self.newest(order.name)
            if number and self.status(submission_id(order.name, number)).status in RUNNING:
                return submission_id(order.name, number), False
            job = submission_id(order.name, number + 1)
            try:
                words = {"entrypoint": order.entrypoint, "runtime_env": order.runtime_env, "submission_id": job}
                self._try(partial(self._client.submit_job, **words))
            except SystemFault:
                if self.newest(order.name) <= number:  # else somebody else was quicker: theirs is followed
                    raise
            else:
                return job, True

    def stop(self, job: str) -> None:
        """Send a job SIGTERM; it writes a checkpoint and ends."""
        self._try(lambda: self._client.stop_job(job))

    def status(self, job: str) -> Seen:
        """Say how a job stands."""
        found = self._try(lambda: self._client.get_job_info(job))
        return Seen(str(getattr(found.status, "value", found.status)), found.message or "", found.driver_exit_code)

    def words(self, job: str) -> str:
        """Return all that a job has printed so far."""
        return str(self._try(lambda: self._client.get_job_logs(job)))

    def more_words(self, job: str) -> Iterator[str]:
        """Yield what a job prints, from its beginning, until it or the connection ends, or nothing comes for long."""
        stream = self._client.tail_job_logs(job)
        with asyncio.Runner() as runner:
            while True:
                try:
                    part = self._try(lambda: runner.run(_within(SILENCE_S, stream)))
                except (StopAsyncIteration, _SilenceError):
                    return
                yield part

    def _try(self, ask: Callable[[], T]) -> T:
        """Ask the cluster, and turn what goes wrong into ours."""
        try:
            return ask()
        except (StopAsyncIteration, _SilenceError):
            raise
        except AuthenticationError as error:
            raise ClusterError(
                f"{self._address} refuses this user: set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH"
                " to the cluster's token"
            ) from error
        except OSError as error:  # a timeout and a broken connection are such
            raise UnreachableError(f"{self._address}: {_first_line(error)}") from error
        except RuntimeError as error:
            raise _judged(self._address, error) from error
        except Exception as error:
            if type(error).__module__.partition(".")[0] in ("aiohttp", "requests", "urllib3"):
                raise UnreachableError(f"{self._address}: {_first_line(error)}") from error
            raise


class _SilenceError(Exception):
    """A job has said nothing for long, or its connection is gone without a word."""


async def _within(seconds: float, stream: AsyncIterator[str]) -> str:
    try:
        return await asyncio.wait_for(anext(stream), seconds)
    except TimeoutError:
        raise _SilenceError from None


def _first_line(error: BaseException) -> str:
    with suppress(IndexError):
        return str(error).strip().splitlines()[0][:300]
    return type(error).__name__


def _judged(address: str, error: RuntimeError) -> Exception:
    """Return what Ray's error means: a connection that broke, an answer of somebody in between, or the cluster's."""
    text = str(error)
    if text.startswith("WebSocket") or any(f"status code {code}" in text for code in (502, 503, 504)):
        return UnreachableError(f"{address}: {_first_line(error)}")
    return SystemFault(f"{address}: {_first_line(error)}")
