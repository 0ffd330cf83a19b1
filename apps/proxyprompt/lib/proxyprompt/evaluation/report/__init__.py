"""What was measured, next to what the paper reports: tables, figures, and which of its findings hold here."""
