"""What the paper does not have. One file each, each can be switched off, each says what it was measured to bring."""
