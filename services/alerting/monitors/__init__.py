"""What watches the platform itself: dead letters, lag and health."""
