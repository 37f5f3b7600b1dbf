"""HTTP and SSE over one runtime engine. Knows neither hive nor queen."""
