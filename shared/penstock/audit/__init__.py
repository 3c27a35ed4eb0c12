"""What an auditor asks of the log: the story of one request, and the proof that nothing left unjudged."""

from penstock.audit.story import Chapter, concerns, story
from penstock.audit.verification import FAULTS, Fault, Summary, Verification

__all__ = ["FAULTS", "Chapter", "Fault", "Summary", "Verification", "concerns", "story"]
