"""What may change the logits of a request, and what may not, on every backend."""

import numpy as np

from skep.runtime.models import TINY
from skep.testkit.logits import Condition, Logits, in_a_process, logits_under


def condition(backend: str, **changes: object) -> Condition:
    model = {"fake": "fake:x?batch_noise=1", "llama": str(TINY)}[backend]
    return Condition(model=model, backend=backend, tokens=24, **changes)


def is_same(first: Logits, second: Logits) -> bool:
    return first.tobytes() == second.tobytes()


def test_in_deterministic_mode_the_logits_are_the_same_bit_for_bit(backend_name: str) -> None:
    alone = logits_under(condition(backend_name, deterministic=True))
    assert len(alone) == 24
    for neighbours, warm in ((32, False), (0, True), (32, True)):
        found = logits_under(condition(backend_name, deterministic=True, neighbours=neighbours, warm=warm))
        assert is_same(alone, found), (neighbours, warm)


def test_in_deterministic_mode_neighbours_that_are_cancelled_in_every_phase_change_no_bit(
    backend_name: str,
) -> None:
    """Of 24 neighbours eight have a slot, read their prompts or decode; the others wait."""
    alone = logits_under(condition(backend_name, deterministic=True))
    among = condition(backend_name, deterministic=True, neighbours=24, cancels=True, slots=9)
    assert is_same(alone, logits_under(among))


def test_in_deterministic_mode_a_restart_changes_no_bit(backend_name: str) -> None:
    before = logits_under(condition(backend_name, deterministic=True))
    after = in_a_process(condition(backend_name, deterministic=True, neighbours=8, warm=True, slots=9))
    assert is_same(before, after)


def test_in_the_default_mode_neighbours_change_low_bits_and_no_more(backend_name: str) -> None:
    alone = logits_under(condition(backend_name))
    assert is_same(alone, logits_under(condition(backend_name)))
    among = logits_under(condition(backend_name, neighbours=32))
    assert not is_same(alone, among)
    assert np.abs(alone[0] - among[0]).max() < 0.1
