"""The coordinator, the workers, and the executors between them."""
