from itertools import product

import pytest

from skep.policy.health import Answer, Ending, Finding, Probes, crash_reason, judge
from skep.policy.restart import CrashReason


@pytest.mark.parametrize(("misses", "answer"), list(product(range(3), Answer)))
def test_every_answer_in_every_state_has_a_verdict(misses: int, answer: Answer) -> None:
    verdict = judge(Probes(misses=misses), answer)
    expected = {
        Answer.WELL: Finding.ANSWERED,
        Answer.FOREIGN: Finding.EXHAUSTED,
        Answer.DEVICE_ERROR: Finding.DEVICE_ERROR,
    }.get(answer, Finding.EXHAUSTED if misses == 2 else Finding.MISSED)
    assert verdict.finding is expected


def test_three_misses_in_a_row_are_one_crash_and_an_answer_forgives_two() -> None:
    probes, findings = Probes(), []
    for answer in (Answer.SILENT, Answer.MUTE, Answer.WELL, Answer.MUTE, Answer.SILENT, Answer.SILENT):
        verdict = judge(probes, answer)
        probes = verdict.probes
        findings.append(verdict.finding)
    missed, answered, exhausted = Finding.MISSED, Finding.ANSWERED, Finding.EXHAUSTED
    assert findings == [missed, missed, answered, missed, missed, exhausted]


@pytest.mark.parametrize(
    ("ending", "reason"),
    [
        (Ending(exit_code=0), CrashReason.NORMAL_EXIT),
        (Ending(exit_code=1), CrashReason.EXIT_CODE),
        (Ending(exit_code=1, error_code="not_a_gguf"), CrashReason.EXIT_CODE),
        (Ending(exit_code=1, error_code="insufficient_memory"), CrashReason.OUT_OF_MEMORY),
        (Ending(exit_code=1, error_code="device_out_of_memory"), CrashReason.OUT_OF_MEMORY),
        (Ending(exit_code=1, error_code="device_missing"), CrashReason.DEVICE_ERROR),
        (Ending(exit_code=1, error_code="device_error"), CrashReason.DEVICE_ERROR),
        (Ending(exit_code=1, log_tail="CUDA error: an illegal memory access"), CrashReason.DEVICE_ERROR),
        (Ending(exit_code=1, log_tail="CUDA error: out of memory"), CrashReason.OUT_OF_MEMORY),
        (Ending(signal=6, log_tail="ggml_cuda: device-side assert triggered"), CrashReason.DEVICE_ERROR),
        (Ending(signal=11), CrashReason.SIGNAL),
        (Ending(signal=9), CrashReason.SIGNAL),
        (Ending(signal=9, oom_kills=1), CrashReason.OUT_OF_MEMORY),
        (Ending(signal=9, log_tail="CUDA error seen long ago and survived"), CrashReason.SIGNAL),
        (Ending(exit_code=1, error_code="not_a_gguf", log_tail="CUDA error"), CrashReason.EXIT_CODE),
        (Ending(), CrashReason.EXIT_CODE),
    ],
)
def test_a_crash_has_one_reason(ending: Ending, reason: CrashReason) -> None:
    assert crash_reason(ending) is reason
