"""The ways to on-call: one module each, behind one protocol."""
