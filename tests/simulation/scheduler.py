"""Time, processes and threads of the simulation: one step at a time, each chosen by a seeded random number generator.

A process has an event loop of its own and threads that run only when the scheduler lets them: never two at a time. So a
process can be killed, or stopped and continued, between any two steps, and the same seed gives the same history.
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import random
import threading
from asyncio import events
from collections import deque
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

POOL_THREADS = 8  # of an executor that does not say
STEP_TYPES = ("TaskStepMethWrapper", "builtin_function_or_method")  # how a task's next step stands in a handle
EPOCH_NS = 1_700_000_000 * 10**9


class Killed(BaseException):
    """The process is gone: what its threads would do does not happen. No error, so that no handler catches it."""


class Scheduler:
    """The clock, what is due, and whose turn it is. steps: deliveries, awaits, faults and queries so far."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.now_s = 0.0
        self.steps = 0
        self.processes: list[Process] = []
        self.fiber: Fiber | None = None
        self.on_step: Callable[[], None] = lambda: None
        self._timers: list[tuple[float, int, Process | None, Callable[[], object]]] = []
        self._due: list[tuple[Process | None, Callable[[], object]]] = []
        self._count = 0

    def time_ns(self) -> int:
        """The wall clock."""
        return EPOCH_NS + int(self.now_s * 1e9)

    def after(self, delay_s: float, call: Callable[[], object], process: Process | None = None) -> None:
        """Call at that time or later; what belongs to a process waits while it is stopped and is dropped with it."""
        self._count += 1
        heapq.heappush(self._timers, (self.now_s + delay_s, self._count, process, call))

    def soon(self, call: Callable[[], object], process: Process | None = None, most_s: float = 0.05) -> None:
        """Call after a random time: mostly short, now and then much longer than most_s."""
        delay_s = self.rng.random() * most_s
        self.after(delay_s * 20 if self.rng.random() < 0.05 else delay_s, call, process)

    def step(self) -> bool:
        """Run one thing that is due, the clock moves when nothing is. False: nothing will ever happen again."""
        while True:
            self._collect()
            ready = [process for process in self.processes if process.ready and process.runs]
            choices = len(ready) + len(self._due)
            if choices:
                break
            if not self._timers:
                return False
            self.now_s = max(self.now_s, self._timers[0][0])
        at = int(self.rng.random() * choices)
        if at < len(ready):
            ready[at].run_one()
        else:
            process, call = self._due.pop(at - len(ready))
            if process is None or process.alive:
                self.steps += 1
                call()
        self.on_step()
        return True

    def _collect(self) -> None:
        while self._timers and self._timers[0][0] <= self.now_s:
            _, _, process, call = heapq.heappop(self._timers)
            if process is None or (process.runs and not process.held):
                self._due.append((process, call))
            elif process.alive:
                process.held.append(call)

    def release(self, process: Process) -> None:
        """A stopped process goes on: what came for it meanwhile is due, in order."""

        def next_one() -> None:
            if process.held:
                process.held.popleft()()
                self._due.append((process, next_one))

        self._due.append((process, next_one))

    def hold(self, process: Process) -> None:
        """A process is stopped: what was due for it waits."""
        process.held += [call for owner, call in self._due if owner is process]
        self._due = [pair for pair in self._due if pair[0] is not process]


class Process:
    """One process: an event loop, threads, and whatever they hold in memory."""

    def __init__(self, scheduler: Scheduler, name: str) -> None:
        self.scheduler, self.name = scheduler, name
        self.alive, self.stopped = True, False
        self.ready: deque[asyncio.Handle] = deque()
        self.held: deque[Callable[[], object]] = deque()
        self.fibers: set[Fiber] = set()
        self.tasks: list[asyncio.Task[Any]] = []
        self.errors: list[str] = []
        self.pools: dict[int, _Pool] = {}
        self.on_thread: Callable[[Callable[..., object], tuple[Any, ...]], None] = lambda call, given: None
        self.loop = Loop(self)
        scheduler.processes.append(self)

    @property
    def runs(self) -> bool:
        """Neither gone nor stopped."""
        return self.alive and not self.stopped

    def spawn(self, work: Coroutine[Any, Any, Any], name: str = "") -> asyncio.Task[Any]:
        """Start a task in it. An error that ends it is noted in `errors`."""
        task = self.loop.create_task(work, name=name)
        task.add_done_callback(self._note)
        return task

    def thread(self, work: Callable[[], Any]) -> None:
        """Start a thread of its own."""
        Fiber(self, work, self._thread_ended).resume()

    def run_one(self) -> None:
        """The next step of the event loop."""
        handle = self.ready.popleft()
        if handle._cancelled:
            return
        if type(handle._callback).__name__ in STEP_TYPES:
            self.scheduler.steps += 1
        events._set_running_loop(self.loop)
        try:
            handle._run()
        finally:
            events._set_running_loop(None)

    def stop(self) -> None:
        """SIGSTOP."""
        self.stopped = True
        self.scheduler.hold(self)

    def go_on(self) -> None:
        """SIGCONT."""
        self.stopped = False
        self.scheduler.release(self)

    def kill(self) -> None:
        """kill -9: nothing of it runs any more."""
        self.alive = False
        self.scheduler.processes.remove(self)
        self.ready.clear()
        self.held.clear()
        for fiber in list(self.fibers):
            fiber.end()

    def bury(self) -> None:
        """Free what is left of its tasks; after the world has ended, since their last words could still be heard."""
        for task in self.tasks:
            if not task.done():
                coroutine = task.get_coro()
                task._log_destroy_pending = False  # type: ignore[attr-defined]
                with contextlib.suppress(RuntimeError):
                    coroutine.close()
        self.ready.clear()

    def _note(self, task: asyncio.Task[Any]) -> None:
        if self.alive and not task.cancelled() and (error := task.exception()) is not None:
            self.errors.append(f"{self.name}: task {task.get_name()} ended with {error!r}")

    def _thread_ended(self, _result: Any, error: BaseException | None) -> None:
        if error is not None and not isinstance(error, Killed):
            self.errors.append(f"{self.name}: a thread ended with {error!r}")


class Loop(asyncio.AbstractEventLoop):
    """An event loop that does nothing by itself."""

    def __init__(self, process: Process) -> None:
        self._process, self._scheduler = process, process.scheduler

    def time(self) -> float:
        return self._scheduler.now_s

    def get_debug(self) -> bool:
        return False

    def is_running(self) -> bool:
        return True

    def is_closed(self) -> bool:
        return False

    def create_future(self) -> asyncio.Future[Any]:
        return asyncio.Future(loop=self)

    def create_task(self, coro: Any, *, name: str | None = None, context: Any = None) -> asyncio.Task[Any]:
        task: asyncio.Task[Any] = asyncio.Task(coro, loop=self, name=name, context=context)
        self._process.tasks.append(task)
        return task

    def call_soon(self, callback: Any, *args: Any, context: Any = None) -> asyncio.Handle:
        handle = asyncio.Handle(callback, args, self, context)
        if self._process.alive:
            self._process.ready.append(handle)
        return handle

    call_soon_threadsafe = call_soon

    def call_later(self, delay: float, callback: Any, *args: Any, context: Any = None) -> asyncio.TimerHandle:
        return self.call_at(self.time() + delay, callback, *args, context=context)

    def call_at(self, when: float, callback: Any, *args: Any, context: Any = None) -> asyncio.TimerHandle:
        handle = asyncio.TimerHandle(when, callback, args, self, context)

        def due() -> None:
            self._scheduler.steps -= 1  # counted when it runs
            if not handle._cancelled:
                self._process.ready.append(handle)

        self._scheduler.after(when - self.time(), due, self._process)
        return handle

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> asyncio.Future[Any]:  # type: ignore[override]
        pools = self._process.pools
        if id(executor) not in pools:
            pools[id(executor)] = _Pool(self._process, executor)
        return pools[id(executor)].submit(func, args)

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        if self._process.alive and (error := context.get("exception")) is not None:
            self._process.errors.append(f"{self._process.name}: {context.get('message')}: {error!r}")

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        pass


class _Pool:
    """An executor's threads: what is submitted starts in order, as soon as one is free."""

    def __init__(self, process: Process, executor: Any) -> None:
        self._process, self._executor = process, executor  # held, so that its identity stays its own
        self._free = getattr(executor, "_max_workers", POOL_THREADS)
        self._waiting: deque[tuple[Callable[..., Any], tuple[Any, ...], asyncio.Future[Any]]] = deque()

    def submit(self, func: Callable[..., Any], args: tuple[Any, ...]) -> asyncio.Future[Any]:
        future = self._process.loop.create_future()
        self._waiting.append((func, args, future))
        self._start_next()
        return future

    def _start_next(self) -> None:
        if self._free and self._waiting:
            self._free -= 1
            func, args, future = self._waiting.popleft()
            self._process.scheduler.soon(partial(self._start, func, args, future), self._process, 0.01)

    def _start(self, func: Callable[..., Any], args: tuple[Any, ...], future: asyncio.Future[Any]) -> None:
        if future.cancelled():
            self._free += 1
            self._start_next()
            return
        self._process.on_thread(func, args)
        Fiber(self._process, partial(func, *args), partial(self._ended, future)).resume()

    def _ended(self, future: asyncio.Future[Any], result: Any, error: BaseException | None) -> None:
        if not self._process.alive:
            return

        def tell() -> None:
            if not future.done():
                if error is None:
                    future.set_result(result)
                else:
                    future.set_exception(error)

        self._process.scheduler.soon(tell, self._process, 0.01)
        self._free += 1
        self._start_next()


class Fiber:
    """Blocking code of a process, in a real thread that runs while the scheduler waits for it, and the other way."""

    def __init__(
        self, process: Process, work: Callable[[], Any], ended: Callable[[Any, BaseException | None], None]
    ) -> None:
        self.process, self.work, self.ended = process, work, ended
        self.thread = _Thread.idle.pop() if _Thread.idle else _Thread()
        self.thread.fiber = self
        self.over = False
        self.result: Any = None
        self.error: BaseException | None = None
        process.fibers.add(self)

    def resume(self) -> None:
        """Let it run up to its next wait or its end."""
        scheduler = self.process.scheduler
        before, scheduler.fiber = scheduler.fiber, self
        self.thread.go.release()
        self.thread.back.acquire()
        scheduler.fiber = before
        if self.over:
            self.process.fibers.discard(self)
            _Thread.idle.append(self.thread)
            self.ended(self.result, self.error)

    def pause(self) -> None:
        """Called by itself: let others run until it is resumed."""
        self.thread.back.release()
        self.thread.go.acquire()
        if not self.process.alive:
            raise Killed

    def end(self) -> None:
        """Unwind it: its process is gone, so that each thing it tries raises Killed."""
        while not self.over:
            self.resume()

    def sleep(self, seconds: float) -> None:
        """Wait."""
        self.process.scheduler.after(seconds, self.wake, self.process)
        self.pause()

    def wake(self) -> None:
        """Resume, unless it has ended meanwhile."""
        if not self.over:
            self.resume()


class _Thread:
    """A real thread that runs one fiber after another."""

    idle: list[_Thread] = []  # noqa: RUF012 - shared by all worlds of this process

    def __init__(self) -> None:
        self.go, self.back = threading.Lock(), threading.Lock()
        self.go.acquire()
        self.back.acquire()
        self.fiber: Fiber | None = None
        threading.Thread(target=self._run, name="fiber", daemon=True).start()

    def _run(self) -> None:
        while True:
            self.go.acquire()
            fiber, self.fiber = self.fiber, None
            assert fiber is not None
            try:
                fiber.result = fiber.work()
            except BaseException as error:  # handed on to whoever waits
                fiber.error = error
            fiber.over = True
            del fiber
            self.back.release()


class Condition:
    """Something that blocking code waits for, and that comes once. Value: what came."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self._waiting: list[Fiber] = []
        self.came = False
        self.value: Any = None

    def set(self, value: Any = None) -> None:
        """It has come."""
        self.came, self.value = True, value
        waiting, self._waiting = self._waiting, []
        for fiber in waiting:
            self._scheduler.after(0.0, fiber.wake, fiber.process)

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait for it; False: it did not come in time."""
        fiber = self._scheduler.fiber
        assert fiber is not None, "only threads wait"
        if self.came:
            return True
        self._waiting.append(fiber)
        if timeout_s is not None:
            self._scheduler.after(timeout_s, partial(self._time_out, fiber), fiber.process)
        fiber.pause()
        return self.came

    def _time_out(self, fiber: Fiber) -> None:
        if fiber in self._waiting:
            self._waiting.remove(fiber)
            fiber.wake()


class Mutex:
    """threading.Lock for code that holds it while it waits for something simulated."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self._held = False
        self._free = Condition(scheduler)

    def __enter__(self) -> None:
        while self._held:
            self._free.wait()
        self._held, self._free = True, Condition(self._scheduler)

    def __exit__(self, *_: object) -> None:
        self._held = False
        self._free.set()


class Event:
    """threading.Event for code in simulated threads."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._condition = Condition(scheduler)

    def set(self) -> None:
        """Set it."""
        self._condition.set()

    def is_set(self) -> bool:
        """Whether it is set."""
        return self._condition.came

    def wait(self, timeout: float | None = None) -> bool:
        """Wait for it."""
        return self._condition.wait(timeout)
