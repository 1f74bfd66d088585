"""Neural building blocks and lanes: torch and nothing of ours."""
