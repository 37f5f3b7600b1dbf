"""A simulated fleet: recorded requests, workers with measured rates, and the very policies that the queen runs."""
