"""Reports on stored runs: papers' tables, papers' findings, cards of the methods."""
