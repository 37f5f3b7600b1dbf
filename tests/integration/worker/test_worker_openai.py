"""The openai client against real workers: what it reads is what was meant."""

import asyncio
import json

import openai
import pytest

from skep.runtime.models import TINY

pytestmark = pytest.mark.asyncio(loop_scope="module")

ASK = [{"role": "user", "content": "what color is the sky?"}]


async def chat(client, **fields):
    given = {"model": "m", "messages": ASK, "temperature": 0, "max_tokens": 24} | fields
    return await client.chat.completions.create(**given)


async def streamed(client, **fields):
    return [chunk async for chunk in await chat(client, stream=True, **fields)]


def text_of(chunks, index=0):
    return "".join(
        choice.delta.content or "" for chunk in chunks for choice in chunk.choices if choice.index == index
    )


async def test_whole_and_streamed_answers_agree(worker, open_client):
    client = open_client(worker)
    whole = await chat(client)
    chunks = await streamed(client, stream_options={"include_usage": True})
    assert text_of(chunks) == whole.choices[0].message.content
    assert chunks[0].choices[0].delta.role == "assistant"
    reasons = [one.finish_reason for chunk in chunks for one in chunk.choices if one.finish_reason]
    assert reasons == [whole.choices[0].finish_reason]
    assert chunks[-1].choices == []
    assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens
    assert {(chunk.id, chunk.model) for chunk in chunks} == {(chunks[0].id, "m")}
    assert all(chunk.usage is None for chunk in chunks[:-1])


async def test_the_usage_tells_cached_tokens(worker, open_client):
    client = open_client(worker)
    messages = [{"role": "user", "content": "a rather long question about bees and their hives, " * 2}]
    first = await chat(client, messages=messages)
    second = await chat(client, messages=messages)
    assert first.usage.prompt_tokens == second.usage.prompt_tokens
    assert second.usage.prompt_tokens_details.cached_tokens > first.usage.prompt_tokens_details.cached_tokens
    assert second.choices[0].message.content == first.choices[0].message.content


async def test_n_choices_have_seeds_of_their_own(steady_worker, open_client):
    client = open_client(steady_worker)
    whole = await chat(client, n=3, temperature=1.8, seed=5, max_tokens=16)
    assert [choice.index for choice in whole.choices] == [0, 1, 2]
    assert [choice.seed for choice in whole.choices] == [5, 6, 7]
    assert len({choice.message.content for choice in whole.choices}) > 1
    chunks = await streamed(client, n=3, temperature=1.8, seed=5, max_tokens=16)
    for choice in whole.choices:
        assert text_of(chunks, choice.index) == choice.message.content


async def test_logprobs_cover_every_token(worker, open_client):
    client = open_client(worker)
    whole = await chat(client, logprobs=True, top_logprobs=3, max_tokens=6)
    content = whole.choices[0].logprobs.content
    assert len(content) == whole.usage.completion_tokens
    assert all(len(one.top_logprobs) == 3 and one.logprob <= 0 for one in content)
    assert content[0].token == content[0].top_logprobs[0].token
    chunks = await streamed(client, logprobs=True, top_logprobs=3, max_tokens=6)
    pieces = [one for chunk in chunks for c in chunk.choices if c.logprobs for one in c.logprobs.content]
    assert [one.token for one in pieces] == [one.token for one in content]


async def test_json_object_and_schema_are_kept(worker, open_client):
    client = open_client(worker)
    free = await chat(client, response_format={"type": "json_object"}, max_tokens=200)
    if free.choices[0].finish_reason == "stop":
        assert isinstance(json.loads(free.choices[0].message.content), dict)
    schema = {
        "type": "object",
        "properties": {"n": {"enum": [3]}},
        "required": ["n"],
        "additionalProperties": False,
    }
    form = {"type": "json_schema", "json_schema": {"name": "s", "schema": schema, "strict": True}}
    strict = await chat(client, response_format=form, max_tokens=200)
    assert json.loads(strict.choices[0].message.content) == {"n": 3}
    plain = await client.completions.create(
        model="m", prompt="the sky", max_tokens=200, extra_body={"response_format": form}
    )
    assert json.loads(plain.choices[0].text) == {"n": 3}


async def test_a_forced_tool_is_called(worker, open_client):
    client = open_client(worker)
    parameters = {
        "type": "object",
        "properties": {"on": {"enum": [True]}},
        "required": ["on"],
        "additionalProperties": False,
    }
    tools = [{"type": "function", "function": {"name": "lamp", "parameters": parameters}}]
    try:
        whole = await chat(client, tools=tools, tool_choice="required", max_tokens=200)
    except openai.BadRequestError as error:
        assert error.code == "invalid_template"  # noqa: PT017 - a model whose template takes no tools says so
        return
    [call] = whole.choices[0].message.tool_calls
    assert (whole.choices[0].finish_reason, call.function.name) == ("tool_calls", "lamp")
    assert json.loads(call.function.arguments) == {"on": True}
    chunks = await streamed(client, tools=tools, tool_choice="required", max_tokens=200)
    [part] = [one for chunk in chunks for c in chunk.choices for one in c.delta.tool_calls or []]
    assert (part.index, part.function.name) == (0, "lamp")


async def test_text_completions(worker, open_client):
    client = open_client(worker)
    made = await client.completions.create(
        model="m", prompt=["the sky", "grass"], max_tokens=4, temperature=0, n=2, echo=True
    )
    assert [choice.index for choice in made.choices] == [0, 1, 2, 3]
    assert made.choices[0].text.startswith("the sky")
    assert made.choices[2].text.startswith("grass")
    stream = await client.completions.create(
        model="m", prompt="the sky", max_tokens=4, temperature=0, stream=True
    )
    text = "".join([choice.text async for chunk in stream for choice in chunk.choices])
    assert "the sky" + text == made.choices[0].text
    scored = await client.completions.create(
        model="m", prompt="the sky", max_tokens=4, temperature=0, logprobs=2
    )
    assert len(scored.choices[0].logprobs.tokens) == scored.usage.completion_tokens


async def test_embeddings_are_unit_vectors_in_both_encodings(worker, open_client):
    client = open_client(worker)
    made = await client.embeddings.create(
        model="m", input=["a bee", "a bee", "a hive"], encoding_format="float"
    )
    coded = await client.embeddings.create(model="m", input="a bee")
    first, second, third = (one.embedding for one in made.data)
    assert sum(value * value for value in first) == pytest.approx(1.0, abs=1e-4)
    assert first == pytest.approx(second)
    assert first != pytest.approx(third)
    assert coded.data[0].embedding == pytest.approx(first, abs=1e-6)


async def test_models_and_tokens(worker, open_client):
    client = open_client(worker)
    [model] = (await client.models.list()).data
    assert (model.id, model.max_model_len) == ("m", 512)
    text = "what color is the sky?"
    made = await worker.post("/tokenize", {"prompt": text, "add_special_tokens": False})
    assert made["count"] == len(made["tokens"])
    assert (await worker.post("/detokenize", {"tokens": made["tokens"]}))["prompt"] == text
    chat_tokens = await worker.post("/tokenize", {"messages": ASK})
    assert chat_tokens["count"] > made["count"]


async def test_utf8_is_whole_in_every_chunk(start_worker, open_client):
    client = open_client(await start_worker("fake:m?text=%F0%9F%90%9D+h%C3%A9+%E2%82%AC+%F0%9F%8D%AF"))
    chunks = await streamed(client, max_tokens=60)
    assert "\ufffd" not in text_of(chunks)
    assert "🍯" in text_of(chunks)


async def test_stop_strings_end_a_choice(start_worker, open_client):
    client = open_client(await start_worker("fake:m?text=one+two+three"))
    whole = await chat(client, stop=["thr"], max_tokens=60)
    assert whole.choices[0].finish_reason == "stop"
    assert "thr" not in whole.choices[0].message.content


@pytest.mark.parametrize(
    ("fields", "status", "code", "param"),
    [
        ({"model": "other"}, 404, "model_not_found", "model"),
        ({"messages": []}, 400, "invalid_request", "messages"),
        ({"temperature": 5}, 400, "invalid_request", "temperature"),
        ({"messages": [{"role": "user", "content": "word " * 4000}]}, 400, "context_length_exceeded", None),
        ({"logit_bias": {"99999999": 1}}, 400, "invalid_sampling", "logit_bias"),
        ({"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "bogus"}}}}, 400,
         "invalid_grammar", None),
    ],
)  # fmt: skip
async def test_mistakes_are_openai_s_error_objects(start_worker, open_client, fields, status, code, param):
    client = open_client(await start_worker("fake:m"))
    with pytest.raises(openai.APIStatusError) as caught:
        await chat(client, **fields)
    assert (caught.value.status_code, caught.value.code) == (status, code)
    assert caught.value.type == "invalid_request_error"
    assert caught.value.param == param


async def test_closing_a_stream_frees_the_slot(worker, open_client):
    client = open_client(worker)
    stream = await chat(client, stream=True, max_tokens=400, extra_body={"ignore_eos": True})
    async for _ in stream:
        break
    await stream.close()
    await worker.until_health(lambda found: found["slots_free"] == found["slots_total"])


async def test_a_failure_in_mid_stream_is_in_band_and_no_clean_end(start_worker, open_client):
    client = open_client(
        await start_worker("fake:m?fail_decode=device_error&fail_decode_after=15&fail_decode_times=1")
    )
    seen = []

    async def read():
        async for chunk in await chat(client, stream=True, max_tokens=200, extra_body={"ignore_eos": True}):
            seen.append(chunk)

    with pytest.raises(openai.APIError) as caught:
        await read()
    assert caught.value.code == "device_error"
    assert text_of(seen)
    assert not [one for chunk in seen for one in chunk.choices if one.finish_reason]


@pytest.mark.parametrize("stream", [True, False], ids=["streaming", "whole"])
async def test_a_failure_of_one_of_n_choices_fails_the_answer(start_worker, open_client, stream):
    client = open_client(
        await start_worker("fake:m?fail_decode=device_error&fail_decode_after=15&fail_decode_times=1")
    )
    ask = streamed if stream else chat
    with pytest.raises(openai.APIError) as caught:
        await ask(client, n=3, max_tokens=200, extra_body={"ignore_eos": True})
    assert caught.value.code == "device_error"


async def test_many_long_choices_are_read_side_by_side(start_worker, open_client):
    client = open_client(await start_worker("fake:m", slots=2, context=2048, extra=("--stall-s", "0.5")))
    whole = await chat(client, n=4, max_tokens=1500, extra_body={"ignore_eos": True})
    assert whole.usage.completion_tokens == 4 * 1500


async def test_reasoning_is_split_off(start_worker, open_client):
    template = "{{ '</think>' if false }}{% for m in messages %}{{ m.content }}{% endfor %}"
    worker = await start_worker(
        "fake:m?text=go%3Cthink%3Ehm%3C%2Fthink%3Eyes", extra=("--chat-template", template)
    )
    client = open_client(worker)
    ask = {"messages": [{"role": "user", "content": "go"}], "max_tokens": 60}
    message = (await chat(client, **ask)).choices[0].message
    assert (message.reasoning_content, message.content) == ("hm", "yes")
    chunks = await streamed(client, **ask)
    deltas = [choice.delta for chunk in chunks for choice in chunk.choices]
    assert "".join(getattr(delta, "reasoning_content", None) or "" for delta in deltas) == "hm"
    assert text_of(chunks) == "yes"


async def test_an_alias_is_another_name_and_a_job_id_may_be_given(start_worker):
    worker = await start_worker(extra=("--served-name", "m", "--alias", "other"))
    body = {"model": "other", "messages": ASK, "max_tokens": 2}
    async with worker.client.post(
        "/v1/chat/completions", json=body, headers={"x-skep-job-id": "mine"}
    ) as response:
        made = await response.json()
    assert (made["id"], made["model"]) == ("mine", "m")
    async with worker.client.post(
        "/v1/chat/completions", json=body, headers={"x-skep-job-id": "a b"}
    ) as response:
        assert response.status == 400


@pytest.mark.llama
async def test_the_tiny_model_tells_eight_clients_at_once_the_color_of_the_sky(start_worker, open_client):
    worker = await start_worker(str(TINY), slots=8, extra=("--served-name", "m", "--threads", "1"))
    client = open_client(worker)
    answers = await asyncio.gather(*(chat(client) for _ in range(4)), *(streamed(client) for _ in range(4)))
    texts = [one.choices[0].message.content for one in answers[:4]] + [text_of(one) for one in answers[4:]]
    assert texts == ["the sky is blue."] * 8
