"""Many studies: a queue that goes on whatever one of them does, over threads, processes or a Ray cluster."""
