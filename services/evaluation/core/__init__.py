"""The pure part of evaluation: what a call cost, what a team has spent, what a text is like."""
