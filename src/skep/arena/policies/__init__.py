"""Who decides: from a situation to an action. `base` is the seam; a plug-in is an entry point of `skep.policies`."""
