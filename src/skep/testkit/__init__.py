"""Proving that inference infrastructure works: steps, harness, hosts, faults, conformance, pytest plugin."""
