"""Where rows come from: `plan` the inputs, cut them into shards, and read a shard's rows as batches with `formats`."""
