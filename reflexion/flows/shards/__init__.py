"""The flow runs of a dataset in shards: where they come from, and how they are followed."""
