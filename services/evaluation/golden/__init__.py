"""Golden sets: questions with what a good answer must keep, asked of several ways to answer, and compared."""
