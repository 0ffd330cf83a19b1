"""What is added to OHIF's page."""
