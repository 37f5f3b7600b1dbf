"""Frozen nouns and the skep.toml schema: ids, device, mask, model, engine, pool, node, host. No I/O."""
