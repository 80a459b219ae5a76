"""Redis for cache, memory and results: one address, one client, one lock."""
