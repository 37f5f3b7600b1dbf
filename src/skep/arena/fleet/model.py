"""A worker as numbers: how fast it reads prompts and writes tokens, alone and in company.

One engine step decodes a token for each of `b` sequences and takes `step_s + sequence_s * b`; a step that also reads a
chunk of a prompt takes `prompt_token_s` more for each of the chunk's tokens. The numbers come from `calibrate.py`.
"""

import math
from pathlib import Path

import msgspec

from skep.errors import InvalidConfig


class WorkerModel(msgspec.Struct, frozen=True, kw_only=True):
    """A worker. Times in seconds; `cache_tokens` is what it keeps of past prompts; `start_s` is a cold start."""

    name: str = "worker"
    slots: int = 4
    step_s: float = 0.010
    sequence_s: float = 0.001
    prompt_token_s: float = 0.0005
    chunk_tokens: int = 256
    overhead_s: float = 0.005
    cache_tokens: int = 16_384
    start_s: float = 5.0
    cost_per_hour: float = 1.0

    def __post_init__(self) -> None:
        """Refuse numbers with which nothing would ever end."""
        times = (self.step_s, self.sequence_s, self.prompt_token_s, self.overhead_s, self.start_s)
        if self.slots < 1 or self.chunk_tokens < 1 or not all(0 <= value < math.inf for value in times):
            raise InvalidConfig(f"the worker model {self.name} needs slots, a chunk, and times of 0 or more")
        if self.step_s + self.sequence_s <= 0:
            raise InvalidConfig(f"the worker model {self.name}: a step must take time")

    def decode_step_s(self, sequences: int) -> float:
        """Return how long a step without prompts takes."""
        return self.step_s + self.sequence_s * sequences

    def mixed_step_s(self, sequences: int) -> float:
        """Return how long a step with a full chunk of a prompt takes."""
        return self.step_s + self.sequence_s * sequences + self.prompt_token_s * self.chunk_tokens


def read_model(path: Path) -> WorkerModel:
    """Return the model that `calibrate` wrote. Raises: InvalidConfig."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=WorkerModel)
    except (OSError, msgspec.MsgspecError) as error:
        raise InvalidConfig(f"{path} is no worker model: {error}; make one with --calibrate URL") from error
