"""What to label next: how far supports disagree, how unlike a study is, and which labels look wrong."""
