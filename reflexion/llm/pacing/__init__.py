"""How fast an endpoint is asked: requests at a time, waits, and tries."""
