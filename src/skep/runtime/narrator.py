"""What a reader is told of each token, and when its job is finished."""

from skep.runtime.request import Finished, Started, Token, TokenLogprob
from skep.runtime.sequence import Sequence

MAX_TOKENS, STOP_SEQUENCE, END_OF_TEXT = "max_tokens", "stop_sequence", "end_of_text"


class Narrator:
    """Puts events into outboxes; decides by the model's end tokens, the stop strings and the limits."""

    def __init__(self, end_tokens: frozenset[int]) -> None:
        self._end_tokens = end_tokens

    def start(self, seq: Sequence) -> None:
        """Tell the admission, the seed and what the prefix cache spared."""
        job = seq.job
        job.outbox.put(
            Started(
                seed=job.seed,
                prompt_tokens=len(job.request.prompt),
                cached_tokens=job.cached_tokens,
            )
        )

    def tell(
        self,
        seq: Sequence,
        token: int,
        logprob: TokenLogprob | None = None,
        top: tuple[TokenLogprob, ...] = (),
    ) -> str | None:
        """Take a sampled token and tell its text; return why the job is finished, or None. Raises: InvalidGrammar."""
        if token in self._end_tokens and not seq.ignore_end:
            return END_OF_TEXT
        job, stream = seq.job, seq.stream
        seq.tokens.append(token)
        job.tokens_out = index = job.tokens_out + 1
        text = stream.push(token)
        untold = seq.untold + 1
        if text or logprob is not None:
            job.outbox.put(Token(text=text, index=index - untold, tokens=untold, logprob=logprob, top=top))
            untold = 0
        seq.untold = untold
        if seq.matcher is not None:
            seq.matcher.accept(token)
        if stream.matched is not None:
            return STOP_SEQUENCE
        if seq.matcher is not None and seq.matcher.is_complete:
            return END_OF_TEXT
        return MAX_TOKENS if index >= seq.max_tokens else None

    def finish(self, seq: Sequence, reason: str, *, now: float) -> None:
        """Tell the text that was held back, then the end."""
        job, stream = seq.job, seq.stream
        if reason != STOP_SEQUENCE:
            text = stream.flush()
            reason = reason if stream.matched is None else STOP_SEQUENCE
            if text:
                job.outbox.put(Token(text=text, index=job.tokens_out - seq.untold, tokens=seq.untold))
        first_token_at = seq.first_token_at or now
        job.outbox.put(
            Finished(
                stop_reason=reason,
                tokens_out=job.tokens_out,
                prompt_tokens=len(job.request.prompt),
                cached_tokens=job.cached_tokens,
                prefill_s=first_token_at - seq.admitted_at,
                decode_s=now - first_token_at,
                stop_matched=stream.matched,
            )
        )
