"""The orchestrator: registry, dispatch, gateway, dashboard."""
