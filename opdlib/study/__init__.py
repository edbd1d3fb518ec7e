"""The study: its runs trained, measured and collected."""
