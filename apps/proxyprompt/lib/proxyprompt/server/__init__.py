"""Routes and rules around MONAI Label's server."""
