"""What a request may say: options, clicks, ids."""
