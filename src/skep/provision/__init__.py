"""Engines and models brought to a folder: plan (pure), ensure, downloads, builds."""
