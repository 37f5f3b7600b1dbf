"""The node daemon: devices, provisioning, pools, supervision, handoff, registration."""
