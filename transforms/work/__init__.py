"""The work of each command inside a shard: one module a command."""
