"""What a worker refuses, beside what its engine and its web server do."""

from skep.errors import InvalidInput, NotFound, SkepError, Unavailable


class ModelUnknown(NotFound):
    """The request names a model that this worker does not serve."""

    code = "model_not_found"


class NotReady(Unavailable):
    """The model is not resident yet."""

    code = "model_loading"


class EmbeddingsUnsupported(InvalidInput):
    """The model gives no embeddings of the kind that was asked for."""

    code = "embeddings_unsupported"


class StartTimedOut(Unavailable):
    """The first token did not come in time."""

    code, http_status = "start_timed_out", 504


class ModelFileChanged(SkepError):
    """The file that is mapped was rewritten in place: what runs is no longer what was loaded."""

    code, http_status, retryable = "model_file_changed", 500, True
