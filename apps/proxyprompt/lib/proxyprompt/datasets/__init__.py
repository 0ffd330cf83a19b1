"""Labelled images to train and measure on: published collections, drawn samples, drawn training data."""
