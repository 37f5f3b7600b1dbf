"""The fake transport: answers that a test scripted, commands recorded; anything unexpected is a failure."""

import re
from collections import deque
from collections.abc import Sequence
from pathlib import Path

from skep.errors import InternalFault
from skep.rollout.transport import OnLine, Result
from skep.spec.host import HiveHost


class Expectation:
    """A script that contains `pattern` (a regular expression) is answered with `answer`, or the error is raised."""

    def __init__(self, pattern: str, answer: Result | Exception) -> None:
        self.pattern, self.answer = re.compile(pattern, re.DOTALL), answer


class ScriptedTransport:
    """Answers in the order of `expect` calls. `$NONCE` in an answer becomes the nonce of the script it answers.

    `answers` is what each line of output was answered with: a text, a file to send, or nothing.
    """

    def __init__(self) -> None:
        self._expected: deque[Expectation] = deque()
        self.scripts: list[str] = []
        self.answers: list[str | Path | None] = []
        self.is_closed = False

    def expect(self, pattern: str, *, stdout: str = "", stderr: str = "", exit_status: int = 0) -> None:
        """Answer the next script, which must match `pattern`."""
        self._expected.append(Expectation(pattern, Result(exit_status, stdout, stderr)))

    def expect_error(self, pattern: str, error: Exception) -> None:
        """Raise `error` at the next script, which must match `pattern`."""
        self._expected.append(Expectation(pattern, error))

    async def run(
        self,
        script: str,
        *,
        limit_s: float,  # noqa: ARG002 - what a script says takes no time here
        on_line: OnLine | None = None,
        is_brief: bool = False,  # noqa: ARG002 - nothing is left behind here
    ) -> Result:
        """See `Transport.run`. Raises also: InternalFault for a script that nobody expected."""
        self.scripts.append(script)
        if not self._expected or not self._expected[0].pattern.search(script):
            raise InternalFault(f"unexpected script: {script[:200]!r}", script=script)
        answer = self._expected.popleft().answer
        if isinstance(answer, Exception):
            raise answer
        nonce = re.search(r"N='?([0-9a-f]{16})'?", script)
        stdout = answer.stdout.replace("$NONCE", nonce[1] if nonce else "")
        for line in stdout.splitlines() if on_line else ():
            self.answers.append(on_line(line))  # type: ignore[misc]
        return Result(answer.exit_status, stdout, answer.stderr)

    async def aclose(self) -> None:
        """See `Transport.aclose`."""
        self.is_closed = True

    def assert_all_used(self) -> None:
        """Raises: AssertionError when an expected script never came."""
        assert not self._expected, f"never asked: {[expected.pattern.pattern for expected in self._expected]}"


class ScriptedConnector:
    """Hands out one scripted transport, or error, a connection, for each alias."""

    def __init__(self, transports: dict[str, Sequence[ScriptedTransport | Exception]]) -> None:
        self._left = {alias: deque(given) for alias, given in transports.items()}

    async def connect(self, host: HiveHost) -> ScriptedTransport:
        """See `Connector.connect`."""
        left = self._left[host.alias]
        if not left:
            raise InternalFault(f"{host.alias}: connected more often than expected", alias=host.alias)
        given = left.popleft()
        if isinstance(given, Exception):
            raise given
        return given
