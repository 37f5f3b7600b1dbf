"""What an engine counted since it was opened. Written by its thread, read by any."""


class Counters:
    """Totals; each only grows."""

    def __init__(self) -> None:
        self.prompt_tokens = 0
        self.generated_tokens = 0
        self.prefix_queries = 0
        self.prefix_hits = 0
        self.finished = 0
        self.cancelled = 0
        self.failed = 0
        self.preempted = 0
        self.interrupted = 0
        self.reopened = 0
        self.steps = 0
