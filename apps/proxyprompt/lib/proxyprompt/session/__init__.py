"""What happens while people annotate: proposals, the journal, and the report of it."""
