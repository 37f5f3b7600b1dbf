from skep.proof.diff import diff_bundles
from skep.proof.reading import read_bundle


def test_a_diff_tells_what_broke_came_and_went(start, fill_bundle) -> None:
    before, after = start(run_id="before"), start(run_id="after")
    fill_bundle(before, failing="f.feature:0", count=3)
    fill_bundle(after, failing="f.feature:1", count=2)
    before.finish()
    after.finish()
    found = {
        (change.what, change.scenario)
        for change in diff_bundles(read_bundle(before.folder), read_bundle(after.folder))
    }
    assert found == {("fixed", "f.feature:0"), ("broke", "f.feature:1"), ("removed", "f.feature:2")}
