"""Two checkpoints to numbers: aligned, then measured tensor by tensor."""
