"""The update rule: optimizers written as the equations they are."""
