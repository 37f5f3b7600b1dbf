"""Every error of the runtime has its code on /execute, from a closed list or as something that says "not now"."""

import typing

import pytest

import skep.errors.runtime as errors
from skep.errors import SkepError
from skep.errors.web import UnsupportedMediaType
from skep.errors.wire import InvalidRequest
from skep.wire.events import ErrorCode
from skep.worker.execute import code_of

ALL = [one for one in vars(errors).values() if isinstance(one, type) and issubclass(one, SkepError)]
CLOSED = set(typing.get_args(ErrorCode))
MAY_KEEP_THEIR_OWN = (404, 409, 503)


@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.__name__)
def test_every_runtime_error_has_a_code(kind):
    code = code_of(kind())
    assert code in CLOSED or (code == kind.code and kind.http_status in MAY_KEEP_THEIR_OWN)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.QueueFull(), "queue_full"),
        (errors.DeadlineExceeded(), "timeout"),
        (errors.Cancelled(), "cancelled"),
        (errors.ConsumerStalled(), "cancelled"),
        (errors.ContextOverflow(), "invalid_request"),
        (errors.InvalidSampling(), "invalid_request"),
        (InvalidRequest(), "invalid_request"),
        (errors.GgufTruncated(), "model_load_failed"),
        (errors.DeviceOutOfMemory(), "device_out_of_memory"),
        (errors.InsufficientMemory(), "insufficient_memory"),
        (errors.NoCacheSlot(), "insufficient_memory"),
        (errors.DeviceError(), "device_error"),
        (errors.DecodeFailed(), "internal"),
        (errors.Draining(), "draining"),
        (errors.DuplicateJob(), "duplicate_job"),
        (UnsupportedMediaType(), "unsupported_media_type"),
    ],
)
def test_codes(error, code):
    assert code_of(error) == code
