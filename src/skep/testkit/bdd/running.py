"""How a step function is called: async ones are awaited, and a `Then` is watched.

pytest-bdd calls `step_func` as a fixture; each is replaced by a plain function of the same signature.
"""

import functools
import inspect
from collections.abc import AsyncGenerator, Callable
from typing import Any

from pytest_bdd.parser import Step

from skep.testkit.bdd.asserting import Watch, has_source
from skep.testkit.bdd.definitions import all_contexts
from skep.testkit.portal import Portal


class HollowThen(AssertionError):
    """A `Then` ended without having asserted anything."""


class StepRunner:
    """Calls the steps of one scenario after the other. The portal's loop lives as long as a scenario."""

    def __init__(self, *, is_async: bool) -> None:
        self._is_async = is_async
        self.portal = Portal()
        self.current: Step | None = None
        self._open: list[AsyncGenerator[Any, None]] = []

    def install(self) -> None:
        """Replace the step functions that were imported; doing it again takes the new ones."""
        for context in all_contexts():
            function = context.step_func
            if not hasattr(function, "__skep_step__") and not inspect.isgeneratorfunction(function):
                context.step_func = self._wrapped(function)

    def end_steps(self) -> None:
        """Run the clean-up halves of async generator steps, the last first."""
        self.current = None
        try:
            while self._open:
                self.portal.call(_exhaust(self._open.pop()))
        finally:
            self._open.clear()

    def end_scenario(self) -> None:
        """End the loop."""
        self.current = None
        self.portal.close()

    def _wrapped(self, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            __tracebackhide__ = True
            step = self.current
            if step is None or step.type != "then" or not has_source(function):
                return self._call(function, args, kwargs, None)
            watch = Watch(function)
            result = self._call(function, args, kwargs, watch)
            if not watch.has_run:
                code = function.__code__
                raise HollowThen(
                    f"{code.co_filename}:{code.co_firstlineno}: the step 'Then {step.name}' ended without having "
                    "asserted anything: assert what must hold on every path through it"
                )
            return result

        call.__skep_step__ = True  # type: ignore[attr-defined]
        return call

    def _call(self, function: Callable[..., Any], args: Any, kwargs: Any, watch: Watch | None) -> Any:
        __tracebackhide__ = True
        if self._is_async and inspect.isasyncgenfunction(function):
            generator = function(*args, **kwargs)
            self._open.append(generator)
            return self.portal.call(_traced(anext(generator), watch))
        if watch is None:
            result = function(*args, **kwargs)
        else:
            with watch.watching():
                result = function(*args, **kwargs)
        if self._is_async and inspect.isawaitable(result):
            return self.portal.call(_traced(result, watch))
        return result


async def _traced(awaitable: Any, watch: Watch | None) -> Any:
    if watch is None:
        return await awaitable
    with watch.watching():
        return await awaitable


async def _exhaust(generator: AsyncGenerator[Any, None]) -> None:
    async for _ in generator:
        raise RuntimeError(f"{generator!r} yields twice; a step yields once")
