"""The parts of a worker, batch_processor.py: leases kept, batches sized and run, results recorded, bells heard."""
