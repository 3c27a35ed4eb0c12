"""Settings of learning online."""

from __future__ import annotations

from datetime import timedelta

from pydantic import BaseModel, Field

from services.evaluation.learning.rules import ClassRules, LearningRules

__all__ = ["LearningSettings"]


class LearningSettings(BaseModel):
    """What the agent ``learning`` reads from the environment."""

    learning_labels: int = Field(
        100, description="Trusted labels (of moderators and systems) that a promotion needs.", ge=20
    )
    learning_authors: int = Field(
        2, description="Trusted authors that a promotion needs; the gain must hold without any one of them.", ge=1
    )
    learning_alpha: float = Field(
        0.01, description="Chance of promoting a challenger that was never better.", gt=0, lt=1
    )
    learning_grace_s: float = Field(
        60.0, description="Seconds until a promotion or roll-back is in force: every replica must have read it.", ge=0
    )
    learning_versions: int = Field(8, description="Versions of a classifier whose weights are kept.", ge=2, le=64)
    learning_influence: float = Field(
        1.0, description="How far one trusted label may move the log-odds of a text.", gt=0, le=4
    )
    learning_user_influence: float = Field(
        0.05,
        description="How far one label of a user may move the log-odds of a text; 0 learns nothing of users.",
        ge=0,
        le=1,
    )
    learning_hourly: int = Field(600, description="Labels taken of moderators, and of systems, an hour.", ge=1)
    learning_user_hourly: int = Field(120, description="Labels taken of all users an hour.", ge=1)
    learning_author_hourly: int = Field(200, description="Labels taken of one moderator or system an hour.", ge=1)
    learning_user_author_hourly: int = Field(10, description="Labels taken of one user an hour.", ge=1)

    def learning_rules(self) -> LearningRules:
        """Return the parameters of the agent. An author's floor is a hundred labels of a moderator, five of a user."""
        return LearningRules(
            trusted=ClassRules(
                influence=self.learning_influence,
                an_hour=self.learning_hourly,
                author_an_hour=self.learning_author_hourly,
                author_floor=100 * self.learning_influence,
                author_share=0.5,
            ),
            users=ClassRules(
                influence=self.learning_user_influence,
                an_hour=self.learning_user_hourly,
                author_an_hour=self.learning_user_author_hourly,
                author_floor=5 * self.learning_user_influence,
                author_share=0.05,
            ),
            least_labels=self.learning_labels,
            authors=self.learning_authors,
            alpha=self.learning_alpha,
            grace=timedelta(seconds=self.learning_grace_s),
            kept=self.learning_versions,
        )
