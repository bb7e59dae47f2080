"""What is particular to each command inside a shard: one module a command, one picklable value each."""

from transforms.work.protocol import Work

__all__ = ["Work"]
