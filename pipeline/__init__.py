"""Examples to models: families, objectives, optimizers, training, evaluation, export."""
