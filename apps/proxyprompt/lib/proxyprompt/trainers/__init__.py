"""The task that MONAI Label offers for training."""
