"""Proof bundles: records, files, verify, diff and the HTML page."""
