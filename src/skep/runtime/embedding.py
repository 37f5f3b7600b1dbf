"""Embeddings beside generation: a session of its own, opened when the first one is asked for, one text at a time."""

from collections import deque
from collections.abc import Callable

import msgspec
import numpy as np

from skep.errors.runtime import DecodeAborted, DecodeFailed
from skep.runtime.backend import BackendModel, BackendSession, Row
from skep.runtime.job import Job
from skep.runtime.options import EngineOptions
from skep.runtime.request import Embedded


class EmbeddingLane:
    """Belongs to the engine's thread. The whole text goes through in one decode, as pooling needs it."""

    def __init__(self, model: BackendModel, options: EngineOptions) -> None:
        self.waiting: deque[Job] = deque()
        self.context = options.embedding_context or options.session.context
        if model.info.only_embeds:  # An encoder has no positions beyond those that it learned.
            self.context = min(self.context, model.info.context_train)
        self._model = model
        self._options = msgspec.structs.replace(
            options.session,
            sequences=1,
            context=self.context,
            batch_rows_max=self.context,
            unified_cache=False,
            embeddings=True,
        )
        self._session: BackendSession | None = None

    def open(self) -> BackendSession:
        """Return the session, opened now if it was not. Raises: as `BackendModel.open_session`."""
        if self._session is None:
            self._session = self._model.open_session(self._options)
        return self._session

    def embed(self, job: Job, *, in_flight: Callable[[BackendSession], None]) -> Embedded:
        """Return the unit vector of a job's text; `in_flight` is told the session that may be interrupted.

        Raises: what a decode raises; the lane is usable afterwards.
        """
        session = self.open()
        prompt = job.request.prompt
        in_flight(session)
        try:
            rows = [Row(token, at, 0, wants_logits=True) for at, token in enumerate(prompt)]
            session.decode(rows)
            vector = session.embedding(0)
        except DecodeAborted:
            session.resume()
            session.sequence_remove(0, 0, -1)
            raise
        except BaseException:
            self.close()  # Whatever state it is in: the next text gets a fresh one.
            raise
        session.sequence_remove(0, 0, -1)
        norm = float(np.linalg.norm(vector))
        if not np.isfinite(norm) or norm == 0.0:
            raise DecodeFailed("the model gave an embedding that has no direction", job_id=job.id)
        return Embedded(vector=vector / np.float32(norm), prompt_tokens=len(prompt))

    def close(self) -> None:
        """Free the session."""
        if self._session is not None:
            self._session.close()
            self._session = None
