"""Hosts brought to the state that skep.toml declares: facts, plan (pure), apply."""
