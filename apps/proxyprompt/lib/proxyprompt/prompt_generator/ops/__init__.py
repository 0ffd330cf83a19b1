"""Operators that torch does not have: the selective scan, and the convolution before it."""
