"""What can go wrong between a model file and a token."""

from skep.errors import Conflict, InternalFault, InvalidInput, NotFound, SkepError, Timeout, Unavailable


class ModelNotFound(NotFound):
    """No file stands at the model's path."""

    code = "model_not_found"


class ModelLoadFailed(SkepError):
    """The model file could not be loaded. Base of the causes below."""

    code, http_status = "model_load_failed", 500


class NotAGguf(ModelLoadFailed):
    """The file does not start as a GGUF does (magic or version)."""

    code = "not_a_gguf"


class GgufTruncated(ModelLoadFailed):
    """The file ends before its header says that it should."""

    code = "gguf_truncated"


class GgufMalformed(ModelLoadFailed):
    """The header contradicts itself, or holds what the library would abort on."""

    code = "gguf_malformed"


class TensorMissing(ModelLoadFailed):
    """A tensor that the architecture needs is missing or has another shape."""

    code = "tensor_missing"


class UnsupportedArchitecture(ModelLoadFailed):
    """The library does not know this model architecture."""

    code = "unsupported_architecture"


class InsufficientMemory(Unavailable):
    """Weights, cache or buffers do not fit into the memory that is free."""

    code = "insufficient_memory"


class DeviceMissing(SkepError):
    """A device of the mask is not on this machine, or its backend is not in this library."""

    code, http_status = "device_missing", 500


class DeviceOutOfMemory(SkepError):
    """The device ran out of memory; the worker survives."""

    code, http_status, retryable = "device_out_of_memory", 500, True


class DeviceError(SkepError):
    """The driver or the device reported an error."""

    code, http_status, retryable = "device_error", 500, True


class LibraryUnavailable(SkepError):
    """No llama.cpp library that passes the ABI probe was found."""

    code, http_status = "library_unavailable", 500


class AbiMismatch(LibraryUnavailable):
    """A llama.cpp library was found, but its structures are not ones that we know."""

    code = "abi_mismatch"


class ContextOverflow(InvalidInput):
    """The prompt (and what it asks for) is longer than the context of a slot."""

    code = "context_length_exceeded"


class InvalidToken(InvalidInput):
    """A token id outside the vocabulary."""

    code = "invalid_token"


class InvalidSampling(InvalidInput):
    """A sampling parameter outside its range."""

    code = "invalid_sampling"


class InvalidGrammar(InvalidInput):
    """A grammar or JSON schema that cannot be compiled."""

    code = "invalid_grammar"


class InvalidBatch(InternalFault):
    """Rows that the backend cannot decode: too many, a position gap, a bad sequence. The context is unchanged."""

    code = "invalid_batch"


class WrongThread(InternalFault):
    """A session was used from a thread that does not own it; nothing was changed."""

    code = "wrong_thread"


class NoCacheSlot(Unavailable):
    """No KV room for this batch; the context is unchanged, and a smaller batch may fit."""

    code = "no_cache_slot"


class DecodeAborted(SkepError):
    """`interrupt()` stopped a decode; the context is usable, read positions again."""

    code, http_status, retryable = "decode_aborted", 500, True


class DecodeFailed(InternalFault):
    """The backend failed inside a decode; the session is spoiled and must be closed."""

    code = "decode_failed"


class Cancelled(SkepError):
    """The job was cancelled."""

    code, http_status = "cancelled", 499


class ConsumerStalled(Cancelled):
    """The job's reader took nothing for longer than the stall limit, so it was cancelled."""

    code = "consumer_stalled"


class QueueFull(Unavailable):
    """The engine's bounded queue holds as many jobs as it may."""

    code, http_status = "queue_full", 429


class DeadlineExceeded(Timeout):
    """The job did not end before its deadline."""

    code = "timeout"


class Draining(Unavailable):
    """The engine admits nothing more: it is draining."""

    code = "draining"


class Closed(Conflict):
    """The model, session or engine is closed."""

    code = "closed"


class ModelInUse(Conflict):
    """The model has open sessions and refuses to close."""

    code = "model_in_use"


class DuplicateJob(Conflict):
    """A job of this id is queued or running."""

    code = "duplicate_job"


class EngineFault(InternalFault):
    """The engine can no longer decode, and says why; its worker must be restarted."""

    code = "engine_fault"


class InvalidTemplate(InvalidInput):
    """A chat template that cannot be compiled, refuses these messages, or is too expensive."""

    code = "invalid_template"


class UnsupportedContent(InvalidInput):
    """A message part that this runtime does not take: only text for now."""

    code = "unsupported_content"
