"""Request traces of every known form are read; what cannot be is told with its line."""

import pytest

from skep.arena.fleet.requests import TracedRequest, generated_requests, read_requests
from skep.errors.arena import TraceInvalid, TraceNotFound, TraceUnreadable

AZURE = """TIMESTAMP,ContextTokens,GeneratedTokens
2023-11-16 18:15:46.6805900,374,44
2023-11-16 18:15:50.9951690,396,109
"""
MOONCAKE = """{"timestamp": 1000, "input_length": 1024, "output_length": 52, "hash_ids": [46, 47]}
{"timestamp": 4000, "input_length": 600, "output_length": 1, "hash_ids": [46, 99]}
"""
RECORDED = """{"at_s":0.5,"prompt_tokens":10,"output_tokens":5,"blocks":[1,2],"block_tokens":64,"session":"a","priority":1}
{"at_s":0.75,"prompt_tokens":11,"output_tokens":6,"unknown":true}
"""
IMPORTED = """{"arrival_s":0.0,"input_tokens":100,"output_tokens":5,"prefix_hashes":[1,2]}
"""


def read(tmp_path, text):
    path = tmp_path / "requests"
    path.write_text(text)
    return list(read_requests(path))


def test_azure_rows_start_at_zero(tmp_path):
    found = read(tmp_path, AZURE)
    assert [(one.prompt_tokens, one.output_tokens) for one in found] == [(374, 44), (396, 109)]
    assert [round(one.at_s, 3) for one in found] == [0, 4.315]


def test_mooncake_keeps_its_blocks(tmp_path):
    found = read(tmp_path, MOONCAKE)
    assert [one.at_s for one in found] == [0, 3]
    assert found[0].blocks == (46, 47)
    assert found[0].block_tokens == 512


def test_a_queens_recording_is_read_with_sessions_and_priorities(tmp_path):
    found = read(tmp_path, RECORDED)
    assert found[0] == TracedRequest(
        at_s=0, prompt_tokens=10, output_tokens=5, blocks=(1, 2), block_tokens=64, session="a", priority=1
    )
    assert found[1].at_s == 0.25


def test_the_recorders_lines_are_the_arenas_own():
    from skep.queen.record import RecordedRequest

    assert RecordedRequest.__struct_fields__ == TracedRequest.__struct_fields__


def test_what_was_imported_is_read(tmp_path):
    assert read(tmp_path, IMPORTED)[0].block_tokens == 50


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("", TraceUnreadable),
        ("hello\n", TraceUnreadable),
        ('{"a": 1}\n', TraceUnreadable),
        (RECORDED + '{"at_s":', TraceInvalid),
        (RECORDED + '{"at_s":0.1,"prompt_tokens":1,"output_tokens":1}\n', TraceInvalid),
        ('{"at_s":0,"prompt_tokens":-1,"output_tokens":1}\n', TraceInvalid),
        ('{"at_s":0,"prompt_tokens":1e99,"output_tokens":1}\n', TraceInvalid),
        ('{"at_s":"x","prompt_tokens":1,"output_tokens":1}\n', TraceInvalid),
        (AZURE + "soon,1,1\n", TraceInvalid),
        (AZURE + "2023-11-16 18:16:50.99,many,1\n", TraceInvalid),
        (MOONCAKE + '{"timestamp": 5000, "input_length": "x", "output_length": 1}\n', TraceInvalid),
    ],
)
def test_what_is_no_request_trace_is_told(tmp_path, text, error):
    with pytest.raises(error):
        read(tmp_path, text)


def test_a_missing_file_is_told(tmp_path):
    with pytest.raises(TraceNotFound):
        list(read_requests(tmp_path / "none"))


def test_generated_requests_are_seeded_and_about_as_asked():
    one, two = (list(generated_requests(2000, 10, 5, shared_prefixes=20)) for _ in range(2))
    assert one == two != list(generated_requests(2000, 10, 6, shared_prefixes=20))
    assert sum(request.prompt_tokens for request in one) / 2000 == pytest.approx(512, rel=0.1)
    assert one[-1].at_s == pytest.approx(200, rel=0.1)
    assert max(len(request.blocks) * request.block_tokens - request.prompt_tokens for request in one) <= 64
