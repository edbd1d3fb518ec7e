"""What was measured, on disk: written, summarized, opened again."""
