"""The step cache: local folder or Redis, time to live, and one computation for identical steps."""
