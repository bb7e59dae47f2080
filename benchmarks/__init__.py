"""Measurements that a person runs, beside the peers that do the same job."""
