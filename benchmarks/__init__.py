"""Speed, side by side with a peer, as a ratio."""
