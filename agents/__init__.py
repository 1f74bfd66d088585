"""Deep-RL learners, one file each, and their environments."""
