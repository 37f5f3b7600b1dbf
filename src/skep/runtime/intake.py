"""What the engine refuses before it queues anything."""

from skep.errors import InvalidInput
from skep.errors.runtime import ContextOverflow, InvalidToken
from skep.runtime.request import GenerationRequest
from skep.runtime.sampling import LOGPROBS_MAX, STOP_STRINGS_MAX

STOP_CHARS_MAX = 1024


def check_prompt(prompt: tuple[int, ...], *, vocab_size: int, context: int) -> None:
    """Raises: InvalidInput (empty), ContextOverflow (no room to generate one token), InvalidToken."""
    if not prompt:
        raise InvalidInput("the prompt is empty", field="prompt")
    if len(prompt) >= context:
        raise ContextOverflow(
            f"the prompt has {len(prompt)} tokens, and a slot has room for {context - 1} and one to generate",
            prompt_tokens=len(prompt),
            context=context,
        )
    if min(prompt) < 0 or max(prompt) >= vocab_size:
        raise InvalidToken(f"a token of the prompt is outside the vocabulary of {vocab_size}")


def check_request(request: GenerationRequest) -> None:
    """Raises: InvalidInput with the first field that is wrong."""
    if request.max_tokens < 1:
        raise InvalidInput("max_tokens must be at least 1", field="max_tokens")
    if request.deadline_s <= 0:
        raise InvalidInput("deadline_s must be positive", field="deadline_s")
    if len(request.stop) > STOP_STRINGS_MAX:
        raise InvalidInput(f"at most {STOP_STRINGS_MAX} stop strings are allowed", field="stop")
    if any(not 1 <= len(stop) <= STOP_CHARS_MAX for stop in request.stop):
        raise InvalidInput(f"a stop string has 1 to {STOP_CHARS_MAX} characters", field="stop")
    if request.logprobs is not None and not 0 <= request.logprobs <= LOGPROBS_MAX:
        raise InvalidInput(f"logprobs must be between 0 and {LOGPROBS_MAX}", field="logprobs")
