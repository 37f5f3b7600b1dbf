"""Importers, on small samples made from the documented columns of each format."""

from pathlib import Path

import msgspec
import pytest

from skep.arena.driver import SimulationSpec, StopToken
from skep.arena.embedded_driver import EmbeddedDriver
from skep.arena.importers import FORMATS, Request, import_requests, import_trace, read_requests
from skep.arena.importers.alibaba import GPU, MODEL
from skep.arena.trace.info import trace_info
from skep.arena.trace.trace import read_trace
from skep.arena.workload import WorkloadRef
from skep.errors.arena import TraceInvalid, TraceNotFound, TraceUnreadable, UnknownName

PODS = """name,cpu_milli,memory_mib,num_gpu,gpu_milli,gpu_spec,qos,pod_phase,creation_time,deletion_time,scheduled_time
openb-pod-0000,12000,16384,1,1000,,LS,Running,10,100,10.0
openb-pod-0001,6000,12288,1,460,V100M16|V100M32,LS,Running,0,,0.0
openb-pod-0002,4000,8192,0,0,,BE,Succeeded,20,30,20.0
"""
NODES = """sn,cpu_milli,memory_mib,gpu,model
openb-node-0000,64000,262144,2,V100M32
openb-node-0001,96000,524288,0,
"""
AZURE = """TIMESTAMP,ContextTokens,GeneratedTokens
2023-11-16 18:15:46.6805900,374,44
2023-11-16 18:15:50.9951690,396,109
2023-11-16 18:15:48.0,879,55
"""
AZURE_2024 = """TIMESTAMP,ContextTokens,GeneratedTokens
2024-05-10 00:00:00.009930+00:00,2162,5
2024-05-10 00:00:00.017335+00:00,2399,6
"""
MOONCAKE = """{"timestamp": 27482, "input_length": 6955, "output_length": 52, "hash_ids": [46, 47, 48]}
{"timestamp": 30535, "input_length": 6472, "output_length": 26, "hash_ids": [46, 47, 2366]}
"""
BURST = """Timestamp,Session ID,Elapsed time,Model,Request tokens,Response tokens,Total tokens,Log Type
5,s1,1.5,ChatGPT,472,18,490,Conversation log
45,,3.0,GPT-4,1087,230,1317,API log
"""
QWEN = """{"chat_id": 159, "parent_chat_id": -1, "timestamp": 61.1, "input_length": 521, "output_length": 132, "type": "text", "turn": 1, "hash_ids": [1, 2]}
{"chat_id": 160, "parent_chat_id": 159, "timestamp": 70.6, "input_length": 700, "output_length": 12, "type": "text", "turn": 2, "hash_ids": [1, 2, 3]}
"""


def written(folder: Path, text: str, name: str = "source") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def test_alibaba_becomes_a_trace_that_the_cluster_runs(tmp_path: Path) -> None:
    target = tmp_path / "gpu.msgpack"
    count = import_trace(
        written(tmp_path, PODS), target, "alibaba-gpu-2023", written(tmp_path, NODES, "nodes")
    )
    info = trace_info(target)
    assert (count, info.applied, info.deleted) == (5, 5, 2)
    trace = read_trace(target)
    first = trace.event(0)["applied_objs"]
    assert [one["kind"] for one in first] == ["Node", "Node", "Pod"]
    assert first[0]["status"]["allocatable"] == {
        "cpu": "64000m",
        "memory": "262144Mi",
        "pods": "110",
        GPU: "2000",
    }
    shared = first[2]["spec"]
    assert shared["containers"][0]["resources"]["requests"][GPU] == "460"
    term = shared["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"][
        "nodeSelectorTerms"
    ][0]
    assert term["matchExpressions"] == [{"key": MODEL, "operator": "In", "values": ["V100M16", "V100M32"]}]
    with EmbeddedDriver(()) as driver:
        pod = WorkloadRef("openb", "openb-pod-0001")
        driver.create(SimulationSpec(name="s", trace=trace, workload=pod, duration_s=25))
        driver.wait("s", 25, StopToken())
        assert driver.observe("s", pod).ready == 1


@pytest.mark.parametrize(
    ("format_name", "text", "expected"),
    [
        ("azure-llm", AZURE, [(0.0, 374, 44), (1.31941, 879, 55), (4.314579, 396, 109)]),
        ("azure-llm", AZURE_2024, [(0.0, 2162, 5), (0.007405, 2399, 6)]),
        ("mooncake", MOONCAKE, [(0.0, 6955, 52), (3.053, 6472, 26)]),
        ("burstgpt", BURST, [(0.0, 472, 18), (40.0, 1087, 230)]),
        ("qwen-bailian", QWEN, [(0.0, 521, 132), (9.5, 700, 12)]),
    ],
)
def test_request_traces(
    tmp_path: Path, format_name: str, text: str, expected: list[tuple[float, int, int]]
) -> None:
    target = tmp_path / "requests.jsonl"
    assert import_trace(written(tmp_path, text), target, format_name) == len(expected)
    found = list(read_requests(target))
    for one, (arrival_s, input_tokens, output_tokens) in zip(found, expected, strict=True):
        assert one.arrival_s == pytest.approx(arrival_s, abs=1e-5)
        assert (one.input_tokens, one.output_tokens) == (input_tokens, output_tokens)


def test_prefixes_models_and_sessions_are_kept(tmp_path: Path) -> None:
    assert import_requests(written(tmp_path, MOONCAKE), "mooncake")[1].prefix_hashes == (46, 47, 2366)
    burst = import_requests(written(tmp_path, BURST), "burstgpt")
    assert [(one.model, one.session) for one in burst] == [("ChatGPT", "s1"), ("GPT-4", "")]
    assert [one.session for one in import_requests(written(tmp_path, QWEN), "qwen-bailian")] == ["159", "159"]


@pytest.mark.parametrize(
    ("format_name", "text"),
    [
        ("azure-llm", ""),
        ("azure-llm", "TIMESTAMP,ContextTokens\n2023-11-16 18:15:46,1\n"),
        ("azure-llm", AZURE.replace("374", "many")),
        ("azure-llm", AZURE.replace("374", "-1")),
        ("azure-llm", AZURE.replace("374", "1e99")),
        ("azure-llm", AZURE.replace("2023-11-16 18:15:50", "yesterday")),
        ("azure-llm", AZURE + "2023-11-16 18:15:46\n"),
        ("azure-llm", "TIMESTAMP,ContextTokens,GeneratedTokens\n"),
        ("mooncake", MOONCAKE[:-20]),
        ("mooncake", '{"timestamp": 1}\n'),
        ("mooncake", MOONCAKE.replace("[46, 47, 48]", '["a"]')),
        ("burstgpt", BURST.replace("45,", "soon,")),
        ("qwen-bailian", QWEN.replace("61.1", "NaN")),
        ("alibaba-gpu-2023", PODS.replace("12000", "-5")),
        ("alibaba-gpu-2023", PODS.replace("openb-pod-0000", "")),
        ("alibaba-gpu-2023", PODS.replace(",20,30,", ",20,5,")),
        ("alibaba-gpu-2023", PODS.splitlines()[0]),
    ],
)
def test_malformed_source_is_told_and_nothing_is_written(tmp_path: Path, format_name: str, text: str) -> None:
    source = written(tmp_path, text)
    with pytest.raises(TraceInvalid) as told:
        import_trace(source, tmp_path / "target", format_name)
    assert str(source) in str(told.value)
    assert list(tmp_path.iterdir()) == [source]


def test_missing_files_and_formats_are_told(tmp_path: Path) -> None:
    for format_name in FORMATS:
        with pytest.raises(TraceNotFound):
            import_trace(tmp_path / "none", tmp_path / "target", format_name)
    with pytest.raises(UnknownName, match="mooncake"):
        import_trace(tmp_path / "none", tmp_path / "target", "parquet")
    source = tmp_path / "binary"
    source.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(TraceUnreadable):
        import_trace(source, tmp_path / "target", "azure-llm")


def test_own_form_is_checked_when_read(tmp_path: Path) -> None:
    early, late = (
        Request(arrival_s=1.0, input_tokens=1, output_tokens=1),
        Request(arrival_s=2.0, input_tokens=1, output_tokens=1),
    )
    path = tmp_path / "r.jsonl"
    path.write_bytes(msgspec.json.encode(late) + b"\n" + msgspec.json.encode(early) + b"\n")
    with pytest.raises(TraceInvalid, match=":2"):
        list(read_requests(path))
    with pytest.raises(TraceNotFound):
        list(read_requests(tmp_path / "none"))
