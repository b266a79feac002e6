"""The device's memory, batch sizes, the heap."""
