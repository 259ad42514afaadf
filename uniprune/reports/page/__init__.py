"""The report: one page with leaderboard, curves, methods, runs and items, which needs no other file and no network."""
