"""From options to a worker that has proved itself: the model resident, and one token out of it."""

import asyncio
import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import Literal, cast

from skep.errors import InternalFault, InvalidConfig, SkepError
from skep.errors.worker import StartTimedOut
from skep.runtime.backend import BackendModel, CacheType, LoadOptions, SessionOptions
from skep.runtime.engine import Engine
from skep.runtime.open import open_backend
from skep.runtime.options import EngineOptions
from skep.runtime.request import EmbeddingRequest, Failed, Finished, GenerationRequest
from skep.runtime.sampling import SamplingParams
from skep.runtime.templates import template_of
from skep.spec.model import parse_ref
from skep.worker.devices import check_split, resolve
from skep.worker.options import WorkerOptions
from skep.worker.reasoning import thinks
from skep.worker.service import Service
from skep.worker.weights import WeightsWatch

PROOF_TEXT = "Hi"
PROOF_JOB = "start-proof"
REMOTE = ("hf:", "https://", "http://")


def served_name(options: WorkerOptions) -> str:
    """Return the name under which the model is asked for: as given, else the file's stem."""
    if options.served_name:
        return options.served_name
    if options.model.startswith("fake:"):
        return options.model.removeprefix("fake:").partition("?")[0] or "fake"
    if options.model.startswith(REMOTE):
        ref = parse_ref(options.model)
        return PurePosixPath(ref.file or ref.path).stem
    return Path(options.model).stem


async def _local_path(model: str) -> Path:
    """Return the path of a model's file, brought here first when it is somewhere else."""
    if not model.startswith(REMOTE):
        return Path(model)
    from skep.provision.model import (
        ensure_model,
    )  # Not needed by a worker that a hive starts, and costs its start.
    from skep.spec.folders import folders

    return await ensure_model(parse_ref(model), root=folders(os.environ).models)


def claim_devices(options: WorkerOptions) -> tuple[int, ...]:
    """Hide every device outside the mask from this process; return the library's indices of the rest.

    Must come before the library is loaded. Raises: InvalidConfig, DeviceMissing.
    """
    visible = resolve(options.devices, os.environ)
    check_split(options.split, visible.indices)
    os.environ.update(visible.environment)
    return visible.indices


async def open_engine(service: Service, on_progress: Callable[[float], None]) -> Engine:
    """Load the model and start its engine; a cancel, or running out of time, stops the load at its next progress.

    Raises: what a load raises, StartTimedOut.
    """
    options = service.options
    devices = claim_devices(options)
    loop = asyncio.get_running_loop()
    stopped = False

    def progress(share: float) -> None:
        if stopped:
            raise StartTimedOut("the load was stopped")
        service.loading = share
        with suppress(RuntimeError):  # As below.
            loop.call_soon_threadsafe(on_progress, share)

    path = await _local_path(options.model)
    loading: asyncio.Future[BackendModel] = loop.create_future()

    def load() -> None:
        with suppress(OSError):  # The load says what is wrong with the file; a fake's model is none.
            service.weights = WeightsWatch(path, now_s=time.monotonic())
        try:
            found = _load(options, path, devices, progress)
        except BaseException as error:  # noqa: BLE001 - handed to whoever waits
            _tell(loop, loading, error=error)
        else:
            _tell(loop, loading, model=found)

    # Not in the loop's pool: a stopped worker must not wait for a load that cannot be stopped.
    threading.Thread(target=load, name="load", daemon=True).start()
    try:
        async with asyncio.timeout(options.start_s):
            model = await loading
    except TimeoutError:
        raise StartTimedOut(f"the model was not loaded within {options.start_s:g} s") from None
    finally:
        stopped = True
    engine = Engine(model, engine_options(options))
    await asyncio.to_thread(engine.start)
    source = _template_source(options)
    service.open(engine, template_of(model, source=source), thinks=thinks(source or model.info.chat_template))
    return engine


def _tell(
    loop: asyncio.AbstractEventLoop,
    waiting: "asyncio.Future[BackendModel]",
    *,
    model: BackendModel | None = None,
    error: BaseException | None = None,
) -> None:
    def settle() -> None:
        if waiting.done():
            return
        if model is not None:
            waiting.set_result(model)
        else:
            waiting.set_exception(error or InternalFault())

    with suppress(RuntimeError):  # The loop is closed: the process is ending.
        loop.call_soon_threadsafe(settle)


async def prove(service: Service) -> None:
    """Take one token out of the engine, or a vector when the model gives none. Raises: the job's error."""
    engine = service.engine
    tokens = tuple(engine.model.tokenize(PROOF_TEXT)) or (0,)
    try:
        async with asyncio.timeout(service.options.start_s):
            if engine.model.info.only_embeds:
                job = engine.embed(EmbeddingRequest(job_id=PROOF_JOB, prompt=tokens))
            else:
                sampling = SamplingParams(temperature=0.0, seed=0)
                job = engine.submit(
                    GenerationRequest(job_id=PROOF_JOB, prompt=tokens, max_tokens=1, sampling=sampling)
                )
            async for event in job:
                if isinstance(event, Failed):
                    raise event.error
                if (
                    isinstance(event, Finished)
                    and event.tokens_out < 1
                    and event.stop_reason != "end_of_text"
                ):
                    raise SkepError("the model is loaded, but no token came out of it")
    except TimeoutError:
        raise StartTimedOut(f"no token came within {service.options.start_s:g} s") from None
    service.is_ready = True


def engine_options(options: WorkerOptions) -> EngineOptions:
    """Return the engine's part of the options."""
    cache_type = cast("CacheType", options.cache_type)
    return EngineOptions(
        session=SessionOptions(
            sequences=options.slots,
            context=options.context,
            batch_rows_max=max(options.batch, options.slots),
            threads=options.threads,
            threads_batch=options.threads,
            unified_cache=options.unified_cache and not options.deterministic,
            cache_type_k=cache_type,
            cache_type_v=cache_type,
            flash_attention=cast("Literal['auto', 'on', 'off']", options.flash_attention),
        ),
        queue_max=options.queue_max,
        prefill_share=options.prefill_share,
        deterministic=options.deterministic,
        stall_s=options.stall_s,
        embedding_context=options.embedding_context,
    )


def _load(
    options: WorkerOptions, path: Path, devices: tuple[int, ...], progress: Callable[[float], None]
) -> BackendModel:
    load = LoadOptions(
        devices=devices,
        gpu_layers=options.gpu_layers if devices else 0,
        split=options.split,
        lora_adapters=options.lora,
    )
    return open_backend(options.backend).load(path, load, on_progress=progress)


def _template_source(options: WorkerOptions) -> str | None:
    given = options.chat_template
    if not given or "{" in given:
        return given or None
    try:
        return Path(options.chat_template).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidConfig(f"cannot read the chat template {options.chat_template}: {error}") from error
