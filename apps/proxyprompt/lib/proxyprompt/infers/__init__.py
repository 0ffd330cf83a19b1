"""The tasks that MONAI Label offers for inference."""
