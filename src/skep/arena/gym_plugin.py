"""gymnasium's way to find our environment without an import: the entry point of `gymnasium.envs`."""


def register() -> None:
    """Make `skep/Arena-v0` known; doing so again changes nothing."""
    from gymnasium.envs.registration import register as register_environment
    from gymnasium.envs.registration import registry

    if "skep/Arena-v0" not in registry:
        register_environment(
            "skep/Arena-v0",
            entry_point="skep.arena.gym:ArenaEnv",
            vector_entry_point="skep.arena.vector:ArenaVectorEnv",
        )
