"""What a pool runs, decided before anything is started: engine, model file, mask, and what it needs of memory."""

import asyncio
import hashlib
from collections.abc import Callable
from pathlib import Path

import msgspec

from skep.errors.hive import DoesNotFit, EngineUnknown, InvalidMask
from skep.errors.runtime import ModelLoadFailed
from skep.hive.devices.inventory import Inventory
from skep.hive.settings import HiveSettings
from skep.hive.shape import read_shape
from skep.policy import mask as masks
from skep.policy.fit import Demand, FitVerdict, ModelShape, fit
from skep.provision.ensure import ensure
from skep.provision.model import ensure_model
from skep.provision.progress import OnProgress
from skep.runtime.fake.script import FakeScript, parse_reference
from skep.spec.device import DeviceMask
from skep.spec.engine import EngineKind, EngineSpec
from skep.spec.model import ModelRef, ModelSpec, RefKind, parse_ref
from skep.spec.pool import PoolSpec, check_split

FAKE_PREFIX = "fake:"
OWN_ENGINE = EngineSpec(id="skep", kind=EngineKind.SKEP)


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that a replica needs to start. `digest` says whether a running one was started from the same plan."""

    spec: PoolSpec
    mask: DeviceMask
    engine: EngineSpec
    program: str
    engine_version: str
    model_name: str
    model_ref: str
    model_path: str
    model_sha256: str
    model_bytes: int
    chat_template: str | None
    shape: ModelShape | None
    aliases: tuple[str, ...]
    digest: str


def known_engines(settings: HiveSettings) -> dict[str, EngineSpec]:
    """Return the engines that are configured here, and our own, by id."""
    return {OWN_ENGINE.id: OWN_ENGINE} | {one.id: one for one in settings.engines}


def find_engine(settings: HiveSettings, spec: PoolSpec) -> EngineSpec:
    """Return the pool's engine. Raises: EngineUnknown, which lists those that are configured here."""
    known = known_engines(settings)
    if spec.engine not in known:
        raise EngineUnknown(
            f"pool {spec.id}: no engine {spec.engine!r} is configured here; there is {', '.join(sorted(known))}",
            engine=spec.engine,
            available=tuple(sorted(known)),
        )
    return known[spec.engine]


def find_model(settings: HiveSettings, spec: PoolSpec) -> ModelSpec:
    """Return the pool's model: a configured one by name or alias, else the reference itself. Raises: InvalidInput."""
    for model in settings.models:
        if spec.model in (model.name, *model.aliases):
            return model
    ref = (
        ModelRef(kind=RefKind.PATH, text=spec.model, path=spec.model)
        if spec.model.startswith(FAKE_PREFIX)
        else parse_ref(spec.model)
    )
    return ModelSpec(name=_name_of(ref), ref=ref)


def resolve_mask(spec: PoolSpec, inventory: Inventory) -> DeviceMask:
    """Return the pool's mask, resolved and its split checked. Raises: InvalidMask, InvalidInput."""
    found = masks.resolve(spec.devices, inventory.devices)
    check_split(spec.split, devices=len(found.ids))
    return found


async def make_plan(
    settings: HiveSettings,
    spec: PoolSpec,
    mask: DeviceMask,
    *,
    on_progress: OnProgress,
    on_engine: Callable[[], None],
    on_model: Callable[[], None],
) -> Plan:
    """Bring engine and model here and return the plan.

    Raises: everything in `skep.errors.provision`, ModelNotFound, ModelLoadFailed and its kinds, EngineUnknown.
    """
    declared = find_engine(settings, spec)
    model = find_model(settings, spec)
    engine = await ensure(declared, root=settings.engines_root, allow=settings.allow, on_progress=on_progress)
    on_engine()
    path, shape, size = await _bring_model(settings, declared, spec, model, on_progress)
    on_model()
    return Plan(
        spec=spec,
        mask=mask,
        engine=declared,
        program=engine.program,
        engine_version=engine.version or own_version(declared),
        model_name=spec.name or model.name,
        model_ref=model.ref.text,
        model_path=path,
        model_sha256=model.ref.sha256,
        model_bytes=size,
        chat_template=model.chat_template,
        shape=shape,
        aliases=tuple(dict.fromkeys((*spec.aliases, *model.aliases))),
        digest=digest(spec, mask, path, engine.key),
    )


def judge_fit(plan: Plan, inventory: Inventory, *, replicas: int = 1) -> FitVerdict:
    """Return whether so many more replicas fit now, beside each other. Raises: InvalidMask (a device is gone), InvalidInput (split)."""
    gone = masks.missing(plan.mask, inventory.devices)
    if gone:
        raise InvalidMask(
            f"pool {plan.spec.id}: device {', '.join(gone)} is no longer here", mask=plan.spec.devices
        )
    if plan.shape is None:
        return FitVerdict(fits=True, devices=(), because="the engine sizes itself")
    demand = Demand(slots=plan.spec.slots, context=plan.spec.context, split=plan.spec.split)
    rooms = inventory.rooms(plan.mask)
    one = fit(plan.shape, demand, rooms)
    if replicas <= 1:
        return one
    others = {
        need.device_id: (need.needed_bytes - need.headroom_bytes) * (replicas - 1) for need in one.devices
    }
    crowded = [
        msgspec.structs.replace(room, promised_bytes=room.promised_bytes + others[room.device_id])
        for room in rooms
    ]
    return fit(plan.shape, demand, crowded)


def require_fit(plan: Plan, inventory: Inventory, *, replicas: int = 1) -> FitVerdict:
    """Return the verdict when it fits. Raises: DoesNotFit, and as `judge_fit`."""
    verdict = judge_fit(plan, inventory, replicas=replicas)
    if not verdict.fits:
        raise DoesNotFit(
            f"pool {plan.spec.id}: {plan.model_name} does not fit: {verdict.because}",
            because=verdict.because,
            needed_bytes=verdict.needed_bytes,
        )
    return verdict


def digest(spec: PoolSpec, mask: DeviceMask, model_path: str, engine_key: str) -> str:
    """Return what tells two plans apart; fields that a running worker does not feel are left out."""
    felt = msgspec.structs.replace(spec, replicas=1, ttl_s=None, priority=0, node=None, aliases=())
    text = msgspec.json.encode([felt, mask.ids, model_path, engine_key])
    return hashlib.sha256(text).hexdigest()[:32]


async def _bring_model(
    settings: HiveSettings, engine: EngineSpec, spec: PoolSpec, model: ModelSpec, on_progress: OnProgress
) -> tuple[str, ModelShape | None, int]:
    ref = model.ref
    if ref.text.startswith(FAKE_PREFIX):
        return ref.text, _fake_shape(parse_reference(ref.text).memory_bytes), 0
    if engine.kind is EngineKind.VLLM and ref.kind is not RefKind.HTTPS and not Path(ref.path).is_file():
        return (f"{ref.repo}" if ref.kind is RefKind.HUB else ref.path), None, 0
    path = await ensure_model(ref, root=settings.models_root, allow=settings.allow, on_progress=on_progress)
    if engine.kind is EngineKind.SKEP and spec.backend == "fake":
        return str(path), _fake_shape(FakeScript().memory_bytes), 0
    if engine.kind is EngineKind.COMMAND:
        return str(path), None, await asyncio.to_thread(lambda: path.stat().st_size)
    try:
        _, shape = await asyncio.to_thread(read_shape, path)
    except ModelLoadFailed:
        if engine.kind is EngineKind.VLLM:
            return str(path), None, 0
        raise
    return str(path), shape, shape.weights_bytes


def _fake_shape(memory_bytes: int) -> ModelShape:
    return ModelShape(
        weights_bytes=memory_bytes,
        cache_values_k=0,
        cache_values_v=0,
        embedding=0,
        feed_forward=0,
        vocabulary=0,
    )


def own_version(engine: EngineSpec) -> str:
    """Return our version for our own engine, "" for another."""
    from skep import __version__

    return __version__ if engine.kind is EngineKind.SKEP else ""


def _name_of(ref: ModelRef) -> str:
    if ref.text.startswith(FAKE_PREFIX):
        return ref.text.removeprefix(FAKE_PREFIX).partition("?")[0] or "fake"
    return Path(ref.file or ref.path).stem
