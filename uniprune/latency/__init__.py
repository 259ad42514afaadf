"""`bench`: how long models take under methods, beside what was computed and what that could at best have saved."""
