"""The paper's method: support pairs and a target's features to a proxy prompt. Knows no files and no server."""
