"""Who is next: in turn over clients, in order within one, so that nobody's hundred jobs starve another's first."""

from collections import OrderedDict, deque
from collections.abc import Iterator

from skep.runtime.job import Job


class AdmissionQueue:
    """Jobs that wait for a slot. Its bound is kept by the engine, which counts all its jobs."""

    def __init__(self) -> None:
        self._by_client: OrderedDict[str, deque[Job]] = OrderedDict()
        self._length = 0

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[Job]:
        for jobs in self._by_client.values():
            yield from jobs

    def push(self, job: Job) -> None:
        """Put a job behind its client's others; a new client comes last."""
        self._by_client.setdefault(job.request.client, deque()).append(job)
        self._length += 1

    def pop(self) -> Job:
        """Take the next job, which must be there; its client's turn comes again after the others'."""
        client, jobs = next(iter(self._by_client.items()))
        job = jobs.popleft()
        self._length -= 1
        self._by_client.move_to_end(client)
        if not jobs:
            del self._by_client[client]
        return job

    def remove(self, job: Job) -> None:
        """Take out a job that waits."""
        client = job.request.client
        self._by_client[client].remove(job)
        self._length -= 1
        if not self._by_client[client]:
            del self._by_client[client]
