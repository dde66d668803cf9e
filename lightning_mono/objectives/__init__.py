"""What training minimises."""

from lightning_mono.objectives.next_token import next_token_loss

__all__ = ["next_token_loss"]
