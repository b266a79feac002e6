"""How the demo checkpoint is made: procedural data, training, evaluation, export."""
