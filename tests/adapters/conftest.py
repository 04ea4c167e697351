"""Coroutines among the tests of adapters run in an event loop of their own; the standard suites have many. Haystack
would report each pipeline that runs to its makers; tests, and the processes that they start, ask it not to."""

from __future__ import annotations

import asyncio
import inspect
import os

import pytest

os.environ["HAYSTACK_TELEMETRY_ENABLED"] = "False"


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    names = inspect.signature(pyfuncitem.obj).parameters
    asyncio.run(pyfuncitem.obj(**{name: pyfuncitem.funcargs[name] for name in names}))
    return True
