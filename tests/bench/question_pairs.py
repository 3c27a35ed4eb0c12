"""Made-up questions, each with others that ask for the same and others that do not: a measure of the semantic cache."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["PAIRS", "Questions"]


@dataclass(frozen=True, slots=True)
class Questions:
    """A question, others that the same answer serves, and close ones that need another answer."""

    question: str
    same: tuple[str, ...]
    other: tuple[str, ...]


PAIRS = (
    Questions(
        "How do I reset my password?",
        ("How can I reset my password?", "Please tell me how to reset my password.",
         "I forgot my password, how do I reset it?"),
        ("How do I reset my phone?", "How often do I reset my password?", "Why can I not reset my password?"),
    ),
    Questions(
        "What is the deadline for tax form 27?",
        ("When is the deadline for tax form 27?", "What's the deadline of tax form 27?",
         "Could you tell me the tax form 27 deadline?"),
        ("What is the deadline for tax form 72?", "What was the deadline for tax form 27?",
         "What is the penalty for tax form 27?"),
    ),
    Questions(
        "Can I return opened items?",
        ("Is it possible to return opened items?", "May I return an opened item?", "Can opened items be returned?"),
        ("Can I return unopened items?", "Can I not return opened items?", "Who can return opened items?"),
    ),
    Questions(
        "Which trains go from Aldersby to Norwick on Sunday?",
        ("What trains go from Aldersby to Norwick on Sundays?", "Which train goes from Aldersby to Norwick on Sunday?"),
        ("Which trains go from Norwick to Aldersby on Sunday?", "Which trains go from Aldersby to Norwick on Saturday?",
         "Which buses go from Aldersby to Norwick on Sunday?"),
    ),
    Questions(
        "How much does the family ticket cost?",
        ("What is the price of the family ticket?", "What does the family ticket cost?",
         "How much is a family ticket?"),
        ("How much does the day ticket cost?", "How much did the family ticket cost?", "Who needs a family ticket?"),
    ),
    Questions(
        "Who founded the Harlow observatory?",
        ("Can you tell me who founded the Harlow observatory?", "By whom was the Harlow observatory founded?"),
        ("When was the Harlow observatory founded?", "Who founded the Marlow observatory?",
         "Who funded the Harlow observatory?"),
    ),
    Questions(
        "Is the east gate open at night?",
        ("Is the east gate open during the night?", "At night, is the east gate open?"),
        ("Is the west gate open at night?", "Is the east gate closed at night?", "Was the east gate open at night?"),
    ),
    Questions(
        "What is the maximum file size for uploads?",
        ("What's the max file size for an upload?", "What is the largest file I can upload?"),
        ("What is the minimum file size for uploads?", "What is the maximum file size for downloads?",
         "What is the maximum file count for uploads?"),
    ),
    Questions(
        "How do I enable two-factor login?",
        ("How can I enable two-factor login?", "What are the steps to enable 2-factor login?",
         "How do I turn on two-factor login?"),
        ("How do I disable two-factor login?", "Why do I enable two-factor login?",
         "How do I enable single-factor login?"),
    ),
    Questions(
        "Does the warranty cover water damage?",
        ("Is water damage covered by the warranty?", "Does the warranty cover damage by water?"),
        ("Does the warranty exclude water damage?", "Does the warranty cover fire damage?",
         "Does the insurance cover water damage?"),
    ),
    Questions(
        "How many days of leave do new employees get?",
        ("How many leave days do new employees get?", "How many days of leave does a new employee get?"),
        ("How many days of leave do senior employees get?", "How many weeks of leave do new employees get?",
         "How many days of sick leave do new employees get?"),
    ),
    Questions(
        "When does the summer course begin?",
        ("When does the summer course start?", "What time of year does the summer course start?",
         "Tell me when the summer course begins."),
        ("When does the winter course begin?", "When does the summer course end?",
         "Where does the summer course begin?"),
    ),
    Questions(
        "Which vaccines are required before travelling to Morvania?",
        ("What vaccines are needed before travelling to Morvania?",
         "Which vaccines do I need before I travel to Morvania?"),
        ("Which vaccines are required after travelling to Morvania?",
         "Which vaccines are recommended before travelling to Morvania?",
         "Which vaccines are required before travelling to Merovia?"),
    ),
    Questions(
        "How do I export my contacts as CSV?",
        ("How can I export contacts as CSV?", "How to export my contacts as a CSV?"),
        ("How do I import my contacts as CSV?", "How do I export my contacts as PDF?",
         "How do I export my calendar as CSV?"),
    ),
    Questions(
        "Who approves expenses above 500 euros?",
        ("Who approves an expense above 500 euros?", "Who has to approve expenses above 500 euros?"),
        ("Who approves expenses below 500 euros?", "Who approves expenses above 5000 euros?",
         "Who audits expenses above 500 euros?"),
    ),
    Questions(
        "What happens if I miss an appointment?",
        ("What happens when I miss an appointment?", "What happens if an appointment is missed?"),
        ("What happens if I cancel an appointment?", "What happens if you miss an appointment?",
         "What happens if I miss a payment?"),
    ),
    Questions(
        "Can children under 6 travel without a ticket?",
        ("May children under six travel without a ticket?", "Can a child under 6 travel without ticket?"),
        ("Can children over 6 travel without a ticket?", "Can children under 16 travel without a ticket?",
         "Can children under 6 travel with a ticket?"),
    ),
    Questions(
        "What did the council decide in March 2021?",
        ("What did the council decide in march 2021?", "Please tell me what the council decided in March 2021."),
        ("What did the council decide in May 2021?", "What did the council decide in March 2012?",
         "What did the court decide in March 2021?"),
    ),
    Questions(
        "Is the museum free on the first Monday of the month?",
        ("Is entry to the museum free on the first Monday of the month?",
         "Is the museum free the first Monday of the month?"),
        ("Is the museum free on the last Monday of the month?", "Is the museum open on the first Monday of the month?",
         "Is the museum free on the first Friday of the month?"),
    ),
    Questions(
        "How does a heat pump work?",
        ("Please explain how a heat pump works.", "How do heat pumps work?", "Can you explain how heat pumps work?"),
        ("How does a heat exchanger work?", "How much does a heat pump work?", "Why does a heat pump work?"),
    ),
    Questions(
        "Does Bruno owe Clara money?",
        ("Does Bruno owe money to Clara?", "Does Bruno owe Clara any money?"),
        ("Does Clara owe Bruno money?", "Did Bruno owe Clara money?", "Does Bruno owe Carla money?"),
    ),
    Questions(
        "What is the boiling point of water in Fahrenheit?",
        ("What's water's boiling point in Fahrenheit?", "Tell me the boiling point of water in Fahrenheit."),
        ("What is the boiling point of water in Celsius?", "What is the freezing point of water in Fahrenheit?",
         "What is the boiling point of oil in Fahrenheit?"),
    ),
    Questions(
        "How do I delete a user from the group?",
        ("How do I remove a user from the group?", "How can I delete users from a group?"),
        ("How do I add a user to the group?", "How do I delete a group from the user?",
         "How do I delete every user from the group?"),
    ),
    Questions(
        "Where do I park with a disabled badge?",
        ("Where can I park with a disabled badge?", "Where may I park if I have a disabled badge?"),
        ("Where do I park without a disabled badge?", "When do I park with a disabled badge?",
         "Where do I get a disabled badge?"),
    ),
    Questions(
        "Which medicines must not be taken with grapefruit?",
        ("What medicines must not be taken with grapefruit?", "Which medicine must not be taken with a grapefruit?"),
        ("Which medicines must be taken with grapefruit?", "Which medicines must not be taken with milk?",
         "Which medicines may be taken with grapefruit?"),
    ),
)  # fmt: skip
