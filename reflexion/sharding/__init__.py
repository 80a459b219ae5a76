"""A run in shards: what a shard is told, how its episodes travel, and how they become one run again."""
