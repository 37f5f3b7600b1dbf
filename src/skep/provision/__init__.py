"""Engines and models brought to a folder: plan (pure), ensure, downloads, builds.

`ensure(EngineSpec, root=…)` and `ensure_model(ModelRef, root=…)` are the two doors; both are idempotent, both tell
their progress, and both may be run by many processes at once.
"""
