from pathlib import Path

import pytest

from skep.runtime.llama.threads import cgroup_cpus, default_threads


@pytest.mark.parametrize(
    ("text", "cpus"),
    [
        ("200000 100000\n", 2),
        ("150000 100000\n", 1),
        ("50000 100000\n", 1),
        ("max 100000\n", None),
        ("junk\n", None),
    ],
)
def test_cgroup_v2_quota_is_read_in_whole_cpus(tmp_path: Path, text: str, cpus: int | None) -> None:
    (tmp_path / "cpu.max").write_text(text)
    assert cgroup_cpus(tmp_path) == cpus


@pytest.mark.parametrize(("quota", "cpus"), [("400000", 4), ("-1", None)])
def test_cgroup_v1_quota_is_read_too(tmp_path: Path, quota: str, cpus: int | None) -> None:
    (tmp_path / "cpu").mkdir()
    (tmp_path / "cpu" / "cpu.cfs_quota_us").write_text(quota)
    (tmp_path / "cpu" / "cpu.cfs_period_us").write_text("100000")
    assert cgroup_cpus(tmp_path) == cpus


def test_no_cgroup_means_no_limit(tmp_path: Path) -> None:
    assert cgroup_cpus(tmp_path) is None


def test_default_is_within_the_quota(tmp_path: Path) -> None:
    (tmp_path / "cpu.max").write_text("100000 100000")
    assert default_threads(cgroup_root=tmp_path) == 1


def test_default_is_at_least_one_and_within_the_affinity() -> None:
    import os

    assert 1 <= default_threads() <= len(os.sched_getaffinity(0))
