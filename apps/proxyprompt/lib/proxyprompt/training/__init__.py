"""Fine-tuning on labelled studies: episodes, losses, strategies, validation and the promotion check."""
