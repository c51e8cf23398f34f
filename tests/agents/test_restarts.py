"""Actors that end together come back together, and the worker goes on."""

from __future__ import annotations

import asyncio

from mode import Service

from agents.app import make_app
from agents.restarts import PatientSupervisor
from topics.settings import Settings

ACTORS = 20


class Actor(Service):
    """One that does nothing."""


def test_twenty_actors_that_crash_at_once_are_all_started_again() -> None:
    async def run() -> list[int]:
        actors = [Actor() for _ in range(ACTORS)]
        supervisor = PatientSupervisor(*actors)
        for actor in actors:
            actor.supervisor = supervisor
        await supervisor.start()
        for actor in actors:
            await actor.crash(RuntimeError("cancelled"))
        supervisor.wakeup()
        async with asyncio.timeout(10):
            while any(not actor.restart_count or actor.crashed for actor in actors):
                await asyncio.sleep(0.01)
        await supervisor.stop()
        return [actor.restart_count for actor in actors]

    assert asyncio.run(run()) == [1] * ACTORS


def test_the_app_has_it() -> None:
    assert make_app(Settings()).conf.agent_supervisor is PatientSupervisor
