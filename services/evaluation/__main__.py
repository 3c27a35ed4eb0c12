"""python -m services.evaluation"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from penstock.bus import Hop
from penstock.embedding import EmbedderError, embedder_from_settings, packaged_embedder
from penstock.embedding.recent import RecentVectors
from penstock.service import Runtime, run_service
from penstock.settings import SettingsError

from services.evaluation.adapters import ToxicityInForce
from services.evaluation.app import Classifiers, evaluation_worker
from services.evaluation.evaluators.registry import EvaluatorError, all_evaluators
from services.evaluation.experiments.projection import observations_hop
from services.evaluation.judging.tasks import judge_tasks
from services.evaluation.learning import Champions
from services.evaluation.learning.toxicity_learner import ToxicityLearner
from services.evaluation.scoring import Scorer, scoring_hop
from services.evaluation.settings import Settings
from services.evaluation.toxicity import ToxicityModel


async def build(runtime: Runtime[Settings]) -> Sequence[Hop]:
    """Load the models, start the Faust worker and return the hops.

    Raises:
        SettingsError: the embedder or an evaluator cannot be used as it is set.
        penstock.stateful.PartitionMismatch: topics that are joined differ in partitions, or one is missing.
    """
    settings = runtime.settings
    model = ToxicityModel.load()
    learner = ToxicityLearner(model)
    champions = await Champions.open(
        runtime.bus, runtime.codec, [learner], timeout_s=settings.start_timeout_s, clock=runtime.clock
    )
    runtime.on_stop(champions.close)
    runtime.background(champions.follow(runtime.stopping))
    packaged = packaged_embedder(settings.embedding_threads)
    # Its own memory, for it reads the whole of a piece. Most of what it costs are embeddings, and many answers are the same.
    remembered = None if packaged is None else RecentVectors(packaged, most_pieces=None)
    toxicity = ToxicityInForce(model, champions, remembered, settings.toxicity_mode)
    try:
        # One model in memory, where both are the packaged one.
        own = packaged is not None and (settings.embedding_base_url, settings.embedding_model) == (None, packaged.name)
        embedder = packaged if packaged is not None and own else embedder_from_settings(settings)
        quality = all_evaluators(embedder, settings.evaluator_modules.split(","), instead={"toxicity": []})
    except (EmbedderError, EvaluatorError) as error:
        raise SettingsError(str(error)) from error
    worker = await evaluation_worker(
        settings,
        config=runtime.config,
        classifiers=Classifiers({"toxicity": toxicity.featuriser}, {"toxicity": learner}),
        codec=runtime.codec,
        output=runtime.producer(),
        clock=runtime.clock,
        ready=lambda: runtime.ready("tables"),
    )
    runtime.not_ready("tables")
    runtime.background(worker.run(runtime.stopping))
    executor = ThreadPoolExecutor(1, "evaluators")
    return [
        scoring_hop(
            Scorer(quality, toxicity, runtime.config),
            lambda completion: judge_tasks(completion, runtime.config),
            executor,
        ),
        observations_hop(runtime.config),
    ]


def main() -> None:
    """Run evaluation."""
    raise SystemExit(run_service("evaluation", Settings, build))


if __name__ == "__main__":
    main()
