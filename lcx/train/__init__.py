"""Training: state, step, loss, optimizer, stages, the loop, checkpoints and metrics."""
