"""`POST /tokenize` and `/detokenize`."""

import msgspec

from skep.wire.openai import DetokenizeRequest, DetokenizeResponse, TokenizeRequest, TokenizeResponse
from skep.worker.chat import plain_messages
from skep.worker.chunks import encode_json
from skep.worker.request import Request
from skep.worker.service import Service


async def tokenize(service: Service, request: Request) -> None:
    """Answer the token ids of a text, or of a conversation as the chat template renders it."""
    body = await request.parse(TokenizeRequest, service.metrics.unknown_fields)
    if body.messages is not None:
        tokens = await service.chat_prompt(
            plain_messages(body.messages), add_generation_prompt=body.add_generation_prompt
        )
    else:
        tokens = await service.tokenize(
            body.prompt or "", add_special=body.add_special_tokens, parse_special=True
        )
    found = TokenizeResponse(count=len(tokens), max_model_len=service.options.context, tokens=tokens)
    await request.answer(encode_json(msgspec.to_builtins(found)))


async def detokenize(service: Service, request: Request) -> None:
    """Answer the text of token ids."""
    body = await request.parse(DetokenizeRequest, service.metrics.unknown_fields)
    text = await service.detokenize(body.tokens)
    await request.answer(encode_json(msgspec.to_builtins(DetokenizeResponse(prompt=text))))
