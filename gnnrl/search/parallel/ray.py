"""Workers of a search on Ray: this machine's processes, or those of a cluster.

Ray is an optional extra and imported here only, when workers are asked for.
"""

from __future__ import annotations

import contextlib
import math
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

from gnnrl.errors import UserError, first_line
from gnnrl.runtime import seed_everything
from gnnrl.search.parallel.settings import RaySettings
from gnnrl.search.parallel.workers import Call, Lost, Shared

ADDRESS = "RAY_ADDRESS"  # of a cluster's head; Ray's own name for it
OBJECT_STORE = 200_000_000  # bytes at least, of a local cluster; of shared memory
ATTEMPTS = 3  # workers that a call may take down before it is taken to be its fault
HOPELESS = 16  # calls without one result after which it is not the plans' fault
SPEAK_AFTER = 30.0  # seconds without any worker


@contextlib.contextmanager
def ray_workers(
    shared: Shared | Callable[[], Shared], settings: RaySettings | None
) -> Iterator[RayWorkers | None]:
    """Start workers that have copies of `shared`, or make it anew; they end with the block.

    Without settings there are none.

    What is sent must be something that pickle can send; what cannot be is better made there, and
    then it is on the device which the worker has.
    Where the environment variable RAY_ADDRESS names a cluster they run there, else here. A cluster
    that this process is connected to already is used and left running.
    """
    if settings is None:
        yield None
        return
    os.environ.setdefault("RAY_AUTH_MODE", "token")  # its servers listen on every interface
    ray = _ray()
    own = not ray.is_initialized()
    if own:
        with _our_signals():
            _connect(ray, settings)
    try:
        workers = RayWorkers(ray, shared, settings)
        try:
            yield workers
        finally:
            workers.close()
    finally:
        if own:
            ray.shutdown()


@contextlib.contextmanager
def _our_signals() -> Iterator[None]:
    """Put back the handlers that Ray replaces: a search on it ends as every other."""
    main = threading.current_thread() is threading.main_thread()
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            if main and handler is not None:
                signal.signal(number, handler)


def _ray() -> ModuleType:
    try:
        import ray
    except ImportError:
        raise UserError(
            "search.ray: Ray is not installed: pip install 'gnnrl-pipeline[ray]', or leave the "
            "section out to evaluate in this process"
        ) from None
    return ray


def _connect(ray: ModuleType, settings: RaySettings) -> None:
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    if address := os.environ.get(ADDRESS):
        try:
            ray.init(address=address, **quiet)
        except (ConnectionError, ValueError, RuntimeError) as error:
            said = f"no cluster answers there, or not without its token ({first_line(error)})"
            raise UserError(f"{ADDRESS}={address}: {said}") from error
        return
    before = os.umask(0o077)  # the token that it writes is for this user only
    try:
        ray.init(
            address="local",
            num_cpus=math.ceil(settings.workers * settings.cpus),
            object_store_memory=OBJECT_STORE,
            include_dashboard=False,
            **quiet,
        )
    finally:
        os.umask(before)


class _Worker:
    """What runs in the process of a worker."""

    def __init__(self, shared: Shared | Callable[[], Shared], cpus: float) -> None:
        import torch

        seed_everything(0)  # deterministic algorithms; nothing here draws from the global numbers
        torch.set_num_threads(max(1, int(cpus)))
        self.shared = shared() if callable(shared) else shared

    def ready(self) -> int:
        return os.getpid()

    def call(self, call: Call, arguments: tuple[Any, ...]) -> Any:
        try:
            return call(self.shared, *arguments)
        except Exception as error:
            text = " ".join(str(error).split())
            return Lost(f"{type(error).__name__}: {text}" if text else type(error).__name__)


@dataclass
class _Job:
    """A call that is to be made, or is being made."""

    key: Hashable
    call: Call
    arguments: tuple[Any, ...]
    limited: bool
    attempts: int = 0
    started: float = field(default=0.0)


class RayWorkers:
    """Calls functions on actors; a call whose worker dies is made again by another, one that takes
    too long loses its worker, and whatever was lost is replaced."""

    def __init__(self, ray: ModuleType, shared: Any, settings: RaySettings) -> None:
        self.size = settings.workers
        self._ray, self._settings = ray, settings
        self._shared = ray.put(shared)  # weights and images are sent once to every machine
        self._kind = ray.remote(
            num_cpus=settings.cpus, num_gpus=settings.gpus, max_restarts=0, max_task_retries=0
        )(_Worker)
        self._waiting: deque[_Job] = deque()
        self._starting: dict[Any, Any] = {}  # what says that it is ready: the actor
        self._free: list[Any] = []
        self._busy: dict[Any, tuple[Any, _Job]] = {}  # the result to come: actor, call
        self._results = self._failures = self._deaths = 0
        self._began = time.monotonic()
        for _ in range(self.size):
            self._start()

    def submit(self, key: Hashable, call: Call, *arguments: Any, limited: bool = False) -> None:
        """Have `call(shared, *arguments)` called by the next worker that is free."""
        self._waiting.append(_Job(key, call, arguments, limited))
        self._hand_out()

    def completed(self) -> tuple[Hashable, Any]:
        """Wait for any of the calls; return its key and what it returned, or `Lost`."""
        while True:
            self._hand_out()
            pending = [*self._starting, *self._busy]
            if not pending:
                raise ValueError("no call is under way that could be completed")
            done, _ = self._ray.wait(pending, num_returns=1, timeout=self._patience())
            for reference in done:
                if reference in self._starting:
                    self._welcome(reference)
                elif (result := self._collect(reference)) is not None:
                    return result
            if (late := self._late()) is not None:
                return late
            self._speak()

    def all_started(self) -> None:
        """Wait until every worker is ready."""
        while self._starting:
            done, _ = self._ray.wait(list(self._starting), num_returns=1)
            self._welcome(done[0])

    def close(self) -> None:
        """End the workers."""
        for actor in [*self._starting.values(), *self._free, *(a for a, _ in self._busy.values())]:
            self._ray.kill(actor)

    def _start(self) -> None:
        actor = self._kind.remote(self._shared, self._settings.cpus)
        self._starting[actor.ready.remote()] = actor

    def _welcome(self, reference: Any) -> None:
        actor = self._starting.pop(reference)
        try:
            self._ray.get(reference)
        except self._ray.exceptions.RayError as error:
            self._deaths += 1
            if self._deaths >= ATTEMPTS:
                reason = str(error).strip().splitlines()[-1]
                raise UserError(f"search.ray: no worker can be started: {reason}") from error
            self._start()
        else:
            self._deaths = 0
            self._free.append(actor)

    def _hand_out(self) -> None:
        while self._waiting and self._free:
            actor, job = self._free.pop(), self._waiting.popleft()
            job.attempts, job.started = job.attempts + 1, time.monotonic()
            self._busy[actor.call.remote(job.call, job.arguments)] = actor, job

    def _collect(self, reference: Any) -> tuple[Hashable, Any] | None:
        """Return what a call returned; None where its worker died and it is made again."""
        actor, job = self._busy.pop(reference)
        try:
            result = self._ray.get(reference)
        except self._ray.exceptions.RayError:
            self._ray.kill(actor)
            self._start()
            if job.attempts < ATTEMPTS:
                self._waiting.appendleft(job)
                return None
            return self._counted(job, Lost(f"{job.attempts} workers died of it"))
        self._free.append(actor)
        return self._counted(job, result)

    def _counted(self, job: _Job, result: Any) -> tuple[Hashable, Any]:
        """Refuse to go on where no call ever gives a result."""
        self._failures += isinstance(result, Lost)
        self._results += not isinstance(result, Lost)
        if self._failures >= HOPELESS and not self._results:
            raise UserError(f"ray: the first {HOPELESS} plans gave no result: {result.reason}")
        return job.key, result

    def _patience(self) -> float:
        """Return the seconds until a call is late."""
        now = time.monotonic()
        left = [j.started + self._settings.timeout_s - now for _, j in self._limited()]
        return max(0.0, min([*left, SPEAK_AFTER]))

    def _limited(self) -> list[tuple[Any, _Job]]:
        return [(reference, job) for reference, (_, job) in self._busy.items() if job.limited]

    def _late(self) -> tuple[Hashable, Any] | None:
        """Give up a call that takes too long, and its worker."""
        limit = self._settings.timeout_s
        for reference, job in self._limited():
            if time.monotonic() - job.started >= limit:
                actor, _ = self._busy.pop(reference)
                self._ray.kill(actor)
                self._start()
                return self._counted(job, Lost(f"no result within {limit:g} s"))
        return None

    def _speak(self) -> None:
        """Say once what is missing where no worker has started."""
        if self._free or self._busy or time.monotonic() - self._began < SPEAK_AFTER:
            return
        self._began = math.inf
        has, wants = self._ray.cluster_resources(), self._settings
        given = f"each takes {wants.cpus:g} CPUs and {wants.gpus:g} GPUs"
        print(f"search: waiting for workers; {given}, the cluster has {has}", flush=True)
