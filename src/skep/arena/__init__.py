"""A simulated cluster on which scheduling policies are tried before a real one feels them."""
