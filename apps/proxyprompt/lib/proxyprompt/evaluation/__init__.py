"""How well methods segment from supports: runs, scores, baselines, comparison models and reports."""
