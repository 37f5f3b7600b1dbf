"""How one request went: what metrics, usage counts, logs and request traces are made from."""

import msgspec


class Outcome(msgspec.Struct):
    """Times are the event loop's, in seconds. Exactly one is made for each request that reached routing."""

    started_s: float
    model: str
    streamed: bool
    key_id: str = ""
    ended_s: float = 0.0
    queued_s: float = 0.0
    first_event_s: float | None = None
    first_token_s: float | None = None
    last_event_s: float | None = None
    status: int = 0
    attempts: int = 0
    events: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    cancelled: bool = False
    broken: bool = False
    failed_inside: bool = False
    error_code: str = ""
    replica: str = ""
    pool_id: str = ""
    node_id: str = ""

    @property
    def duration_s(self) -> float:
        """From the whole request to the end of its answer."""
        return self.ended_s - self.started_s

    @property
    def kind(self) -> str:
        """One word for metrics: done, cancelled, broken (in mid-stream), error."""
        if self.cancelled:
            return "cancelled"
        if self.broken or self.failed_inside:
            return "broken"
        return "error" if self.status >= 400 else "done"  # noqa: PLR2004 - the class of errors
