"""How well masks agree with the truth; knows no files and no models."""
