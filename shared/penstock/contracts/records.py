"""The records that travel on the topics, as Python reads and writes them.

The Avro files under ``schemas/avro`` are the contract; a contract test holds each class here equal to the newest version
of its Avro record: names, types, defaults and docs. Every record starts with the envelope (:class:`Record`). Names follow
OpenAI's API and OpenTelemetry's ``gen_ai`` conventions. Money is an exact decimal in USD, never a float.
"""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import Annotated

import msgspec
from msgspec import Meta

__all__ = [
    "AdmittedRequest", "Alert", "AlertAction", "AlertDelivery", "Alternative", "AnnotationTask", "Cancellation", "Completion",
    "CompletionChunk",
    "ConfigEntry", "Context", "Cost", "DeadLetter", "Document", "DocumentIndexed", "DriftCommand", "DriftEvent", "Energy", "Evaluation",
    "ExperimentEvent", "Feedback", "Finding", "GroundedRequest", "JudgeTask", "Label", "LlmRequest", "LlmResult", "LogRange",
    "Message", "ModelCommand", "ModelWeights", "Observation", "Passage", "Priority", "Purpose", "Record", "Refusal", "Release", "RequestConflict", "ResultChunk",
    "Review", "ReviewDecision", "Sampling", "Score", "ScoredSentence", "ScreenedDocument", "ScreenedRequest", "Severity",
    "Signal", "Status", "TargetFailure", "TeamSpend", "Timings", "TokenLogprob", "ToolCall", "Usage", "Verdict",
]  # fmt: skip


class Status(StrEnum):
    """How a request ended: the values of ``LlmResult.status`` and ``Refusal.status``."""

    COMPLETED = "completed"
    BLOCKED = "blocked"
    REJECTED = "rejected"
    FAILED = "failed"
    EXPIRED = "expired"
    CANCELLED = "cancelled"


class Priority(StrEnum):
    """Who is served first where requests wait: the values of ``LlmRequest.priority``, the first of them first."""

    INTERACTIVE = "interactive"
    STANDARD = "standard"
    BATCH = "batch"


class Purpose(StrEnum):
    """What a request is for: the values of ``Context.purpose``. Only what is served counts as traffic. What runs in shadow
    nobody can ask for: inference asks another target, too."""

    SERVE = "serve"
    JUDGE = "judge"
    EVALUATION = "evaluation"
    SHADOW = "shadow"
    EMBED = "embed"


class Severity(StrEnum):
    """How soon a person should look at an alert: the values of ``Alert.severity``."""

    INFO = "info"
    WARNING = "warning"
    CRITICAL = "critical"


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """The envelope: the first fields of every record on every topic."""

    event_id: Annotated[str, Meta(description="Identity of this event; uuid5(causation_id, stage, ordinal), so a replayed step gives the same. Sinks upsert by it.")]
    request_id: Annotated[str, Meta(description="The request (or document, or configuration entry) this event belongs to, chosen by the producer; empty where there is none.")]
    tenant_id: Annotated[str, Meta(description="The team that the event belongs to and that pays for it.")]
    occurred_at: Annotated[datetime, Meta(description="When the event occurred, UTC.")]
    causation_id: Annotated[str, Meta(description="event_id of the event that caused this one; empty for the first of a chain.")]


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """Base of the records that stand inside other records."""


class ToolCall(Part, frozen=True, kw_only=True):
    """A tool that a model wants called. Who calls it is the producer."""

    id: Annotated[str, Meta(description="Identity of the call, which the tool's message repeats.")]
    name: Annotated[str, Meta(description="Name of the function.")]
    arguments: Annotated[str, Meta(description="Arguments as the model wrote them: JSON, if it kept to it.")] = ""


class Message(Part, frozen=True, kw_only=True):
    """One message of a conversation, as in OpenAI's chat API."""

    role: Annotated[str, Meta(description="system, user, assistant or tool.")]
    content: Annotated[str, Meta(description="Text of the message.")]
    name: Annotated[str | None, Meta(description="Name of the participant, where several share a role.")] = None
    tool_calls: Annotated[list[ToolCall], Meta(description="Tools that the assistant called in this message.")] = []
    tool_call_id: Annotated[str | None, Meta(description="Call that a message of a tool answers.")] = None


class Sampling(Part, frozen=True, kw_only=True):
    """How the model is asked to generate; null leaves the choice to the route."""

    temperature: Annotated[float | None, Meta(description="Sampling temperature, 0 or more.")] = None
    top_p: Annotated[float | None, Meta(description="Nucleus sampling mass, above 0 and up to 1.")] = None
    max_completion_tokens: Annotated[int | None, Meta(description="Most tokens to generate.")] = None
    stop: Annotated[list[str], Meta(description="Strings that end the generation.")] = []
    seed: Annotated[int | None, Meta(description="Seed of the sampling, where the model honours one.")] = None
    response_format: Annotated[str | None, Meta(description="JSON schema (as JSON) that the answer must follow, where the backend can hold a model to one; null for free text.")] = None
    n: Annotated[int, Meta(description="Answers to generate; those after the first are alternatives.")] = 1
    top_logprobs: Annotated[int | None, Meta(description="Log-probabilities of the answer's tokens are wanted, each with so many of the likeliest tokens in its place; null for none.")] = None
    regex: Annotated[str | None, Meta(description="Regular expression that the whole answer must match, where the backend can hold a model to one; null for none.")] = None
    frequency_penalty: Annotated[float | None, Meta(description="From -2 to 2: above 0, words are repeated less the more often they stand there.")] = None
    presence_penalty: Annotated[float | None, Meta(description="From -2 to 2: above 0, words that stand there are repeated less.")] = None
    top_k: Annotated[int | None, Meta(description="Tokens are drawn from so many of the likeliest, where the backend can; null for no limit.")] = None
    min_p: Annotated[float | None, Meta(description="Tokens less likely than this share of the likeliest one are not drawn, where the backend can.")] = None
    tools: Annotated[str | None, Meta(description="Tools that the model may call, as JSON: OpenAI's list of tools; null for none.")] = None
    tool_choice: Annotated[str | None, Meta(description="Which of them it calls, as JSON: OpenAI's tool_choice; null leaves it to the model.")] = None
    parallel_tool_calls: Annotated[bool | None, Meta(description="Whether it may call several at once; null leaves it to the backend.")] = None


class Context(Part, frozen=True, kw_only=True):
    """What admission knows of a request and every later event repeats."""

    conversation_id: Annotated[str | None, Meta(description="Conversation the request belongs to; its events keep their order.")] = None
    user_id: Annotated[str | None, Meta(description="End user, as the team names them.")] = None
    route: Annotated[str, Meta(description="Name of the route that was asked for.")] = "default"
    prompt_name: Annotated[str | None, Meta(description="Registered prompt that was rendered; null where messages were sent as they are.")] = None
    prompt_version: Annotated[str | None, Meta(description="Content hash of the prompt version that was rendered.")] = None
    policy_name: Annotated[str, Meta(description="Guardrail policy that applies.")] = "default"
    policy_version: Annotated[str | None, Meta(description="Content hash of the policy that was applied; null before guardrails.")] = None
    tags: Annotated[dict[str, str], Meta(description="Free labels for cost allocation and analysis, e.g. feature.")] = {}
    requested_at: Annotated[datetime, Meta(description="When the producer made the request, UTC.")]
    deadline_at: Annotated[datetime | None, Meta(description="After this the answer is of no use: the request ends as expired.")] = None
    key_id: Annotated[str | None, Meta(description="Identity of the credential the request came with; never the credential.")] = None
    admitted_at: Annotated[datetime | None, Meta(description="When intake admitted the request, UTC: decides the budget windows that its calls count in.")] = None
    purpose: Annotated[str, Meta(description="What the request is for: serve, judge (an evaluator asks a model), evaluation (a run over a golden set) or shadow (another target is asked beside the one that serves). Only what is served counts as traffic.")] = "serve"
    experiments: Annotated[dict[str, str], Meta(description="Arm of every experiment that the request takes part in, by the experiment's name.")] = {}
    experiment_versions: Annotated[dict[str, str], Meta(description="What of each of these experiments was in force (Experiment.design), by its name: an observation counts for that alone.")] = {}
    priority: Annotated[str, Meta(description="Who is served first where requests wait: interactive, standard or batch.")] = "standard"
    prompt_label: Annotated[str | None, Meta(description="Label by which the prompt's version was found, e.g. production; null where no prompt was rendered.")] = None


class TokenLogprob(Part, frozen=True, kw_only=True):
    """A token of an answer, and how likely it was."""

    token: Annotated[str, Meta(description="Text of the token.")]
    logprob: Annotated[float, Meta(description="Natural logarithm of its probability.")]
    top: Annotated[dict[str, float], Meta(description="The likeliest tokens in its place, with theirs.")] = {}


class RetrievalFilter(Part, frozen=True, kw_only=True):
    """Which documents may ground a request, beside those of its team and of the route's own conditions."""

    collection: Annotated[str | None, Meta(description="Collection to search; null for the route's.")] = None
    tags: Annotated[dict[str, str], Meta(description="Labels that a document must carry, all of them.")] = {}
    language: Annotated[str | None, Meta(description="Language of the document, ISO 639-1; null for any.")] = None
    as_of: Annotated[datetime | None, Meta(description="Instant at which the document must be valid, UTC; null for that of the search.")] = None


class Alternative(Part, frozen=True, kw_only=True):
    """Another answer to the same request."""

    content: Annotated[str, Meta(description="The answer.")]
    finish_reason: Annotated[str, Meta(description="As in Completion.")] = "stop"
    logprobs: Annotated[list[TokenLogprob], Meta(description="Its tokens, where they are wanted.")] = []
    tool_calls: Annotated[list[ToolCall], Meta(description="Tools that it wants called.")] = []


class TargetFailure(Part, frozen=True, kw_only=True):
    """A target of a route that gave no answer, so that another one was asked."""

    target: Annotated[str, Meta(description="Name of the target in its route.")]
    reason: Annotated[str, Meta(description="Why.")]


class Energy(Part, frozen=True, kw_only=True):
    """What a call took from the grid: always an estimate, from figures that the configuration states."""

    joules: Annotated[float, Meta(description="Energy of the call, J.")]
    co2e_grams: Annotated[float | None, Meta(description="Emissions of that energy, grams of CO2 equivalent; null where no grid intensity is stated.")] = None
    basis: Annotated[str, Meta(description="Entry of config-energy that the figures come from, as name@version.")]


class Usage(Part, frozen=True, kw_only=True):
    """Tokens used by one model call."""

    input_tokens: Annotated[int, Meta(description="Tokens of the prompt, cached ones included.")] = 0
    output_tokens: Annotated[int, Meta(description="Tokens generated.")] = 0
    cached_input_tokens: Annotated[int, Meta(description="Prompt tokens served from the provider's prefix cache.")] = 0
    cache_write_input_tokens: Annotated[int, Meta(description="Prompt tokens written to the provider's prefix cache, where it charges for that.")] = 0
    reasoning_tokens: Annotated[int, Meta(description="Generated tokens that were spent on reasoning; part of output_tokens.")] = 0


class Timings(Part, frozen=True, kw_only=True):
    """Where the time of one model call went, in microseconds."""

    queue_us: Annotated[int, Meta(description="From occurred_at of the request event to the call.")] = 0
    first_token_us: Annotated[int | None, Meta(description="From the call to the first token; null where the backend does not stream.")] = None
    model_us: Annotated[int, Meta(description="From the call to its end.")] = 0
    compute_us: Annotated[int | None, Meta(description="Accelerator time of the call, its share where calls are batched; null where the backend does not say.")] = None
    engine_queue_us: Annotated[int | None, Meta(description="Part of model_us that the call waited in the engine's own queue; null where the backend does not say.")] = None
    submitted_to_first_token_us: Annotated[int | None, Meta(description="From the producer's request (requested_at) to the first token; null where the answer was not streamed.")] = None


class Passage(Part, frozen=True, kw_only=True):
    """A piece of a document attached to a request as evidence."""

    passage_id: Annotated[str, Meta(description="Identity of the chunk in the vector store.")]
    document_id: Annotated[str, Meta(description="Document it was cut from.")]
    title: Annotated[str, Meta(description="Title of the document or section.")] = ""
    source: Annotated[str, Meta(description="Where the document came from: a path or an address.")] = ""
    start: Annotated[int, Meta(description="Offset of the first character in the cleaned document.")] = 0
    end: Annotated[int, Meta(description="Offset after the last character in the cleaned document.")] = 0
    text: Annotated[str, Meta(description="Text of the chunk.")]
    score: Annotated[float, Meta(description="Relevance as retrieval scored it; higher is better.")]


class CachedAnswer(Part, frozen=True, kw_only=True):
    """An answer to another question that means the same, as the semantic cache keeps it. The passages that it quotes are
    those of the request that it is given to."""

    event_id: Annotated[str, Meta(description="event_id of the completion that it was given in.")]
    request_id: Annotated[str, Meta(description="Request that it was given to first.")]
    similarity: Annotated[float, Meta(description="Cosine of the two questions, -1 to 1.")]
    content: Annotated[str, Meta(description="The answer, as it was released.")]
    citations: Annotated[list[str], Meta(description="passage_id of the passages that it quotes.")] = []
    model: Annotated[str, Meta(description="Model that answered, as it names itself.")]
    backend: Annotated[str, Meta(description="Backend that was called.")]
    request_model: Annotated[str | None, Meta(description="Model that was asked for, as the route names it.")] = None
    usage: Annotated[Usage, Meta(description="Tokens that the call used.")] = Usage()


class Finding(Part, frozen=True, kw_only=True):
    """What one scanner found; never the text itself."""

    scanner: Annotated[str, Meta(description="Scanner that found it.")]
    kind: Annotated[str, Meta(description="What was found, e.g. EMAIL_ADDRESS, prompt_injection.")]
    start: Annotated[int, Meta(description="Offset of the first character in the scanned text.")] = 0
    end: Annotated[int, Meta(description="Offset after the last character.")] = 0
    score: Annotated[float, Meta(description="Confidence from 0 to 1.")]
    action: Annotated[str, Meta(description="What the policy made of it: flag, pseudonymise, hash, mask, ask_again, review or block.")]
    fingerprint: Annotated[str, Meta(description="Keyed hash of the matched text: equal finds are recognised, the text is not.")] = ""
    rule: Annotated[str, Meta(description="The policy's name of the rule, where it is not the scanner's.")] = ""
    enforced: Annotated[bool, Meta(description="False for a rule in shadow: nothing follows from it.")] = True


class LogRange(Part, frozen=True, kw_only=True):
    """A stretch of one partition from which a verdict can be derived again; both ends included."""

    topic: Annotated[str, Meta(description="Topic.")]
    partition: Annotated[int, Meta(description="Partition.")]
    first_offset: Annotated[int, Meta(description="First offset.")]
    last_offset: Annotated[int, Meta(description="Last offset.")]


class LlmRequest(Record, frozen=True, kw_only=True):
    """A request for an answer. Public: written by producers."""

    conversation_id: Annotated[str | None, Meta(description="Conversation the request belongs to; the record's key where set, else request_id is.")] = None
    user_id: Annotated[str | None, Meta(description="End user, as the team names them.")] = None
    route: Annotated[str, Meta(description="Route to answer it, by name.")] = "default"
    prompt_name: Annotated[str | None, Meta(description="Registered prompt to render; its rendering comes before messages.")] = None
    prompt_label: Annotated[str, Meta(description="Which version of the prompt: a label such as production, or a version's content hash.")] = "production"
    prompt_variables: Annotated[dict[str, str], Meta(description="Values for the prompt's variables.")] = {}
    messages: Annotated[list[Message], Meta(description="The conversation so far, oldest first.")] = []
    sampling: Annotated[Sampling, Meta(description="Generation parameters.")] = Sampling()
    stream: Annotated[bool, Meta(description="Whether released pieces of the answer are wanted on result-chunks.")] = False
    deadline_at: Annotated[datetime | None, Meta(description="After this the answer is of no use: the request ends as expired.")] = None
    tags: Annotated[dict[str, str], Meta(description="Free labels for cost allocation and analysis, e.g. feature.")] = {}
    key_id: Annotated[str | None, Meta(description="Identity of the credential the request came with; never the credential.")] = None
    purpose: Annotated[str, Meta(description="As in Context: serve, judge or evaluation; or embed: the vectors of its messages are wanted, no answer.")] = "serve"
    policy_name: Annotated[str | None, Meta(description="Guardrail policy to apply instead of the route's or the team's; the team must list it in allowed_policies.")] = None
    priority: Annotated[str, Meta(description="As in Context: interactive, standard or batch.")] = "standard"
    retrieval: Annotated[RetrievalFilter | None, Meta(description="Which documents may ground it; null for those of the route.")] = None


class AdmittedRequest(Record, frozen=True, kw_only=True):
    """A request that was admitted: team known, limits kept, prompt rendered, duplicate dropped."""

    context: Annotated[Context, Meta(description="What is known of the request.")]
    messages: Annotated[list[Message], Meta(description="The conversation to answer, rendered.")]
    sampling: Annotated[Sampling, Meta(description="Generation parameters, the route's defaults filled in.")] = Sampling()
    stream: Annotated[bool, Meta(description="Whether released pieces are wanted.")] = False
    reserved_cost: Annotated[Decimal | None, Meta(description="Worst-case cost of the request, USD, all its calls together; null where a target of the route has no price.")] = None
    inserted: Annotated[list[str], Meta(description="Values of the prompt's variables that stand in the system's messages: not the platform's own words, so guardrails judge them.")] = []
    retrieval: Annotated[RetrievalFilter | None, Meta(description="Which documents may ground it; null for those of the route.")] = None


class ScreenedRequest(Record, frozen=True, kw_only=True):
    """A request that guardrails let through, masked where the policy says so."""

    context: Annotated[Context, Meta(description="What is known of the request; policy_version is set.")]
    messages: Annotated[list[Message], Meta(description="The conversation to answer, personal data masked.")]
    sampling: Annotated[Sampling, Meta(description="Generation parameters.")] = Sampling()
    stream: Annotated[bool, Meta(description="Whether released pieces are wanted.")] = False
    action: Annotated[str, Meta(description="The verdict: allow, flag or mask.")] = "allow"
    findings: Annotated[list[Finding], Meta(description="What the scanners found.")] = []
    retrieval: Annotated[RetrievalFilter | None, Meta(description="Which documents may ground it; null for those of the route.")] = None


class GroundedRequest(Record, frozen=True, kw_only=True):
    """A request with the evidence that retrieval found for it."""

    context: Annotated[Context, Meta(description="What is known of the request.")]
    messages: Annotated[list[Message], Meta(description="The conversation to answer.")]
    sampling: Annotated[Sampling, Meta(description="Generation parameters.")] = Sampling()
    stream: Annotated[bool, Meta(description="Whether released pieces are wanted.")] = False
    grounding: Annotated[str, Meta(description="off (the route asks for none), grounded, empty (nothing above the floor) or unavailable (the store was away and the route goes on).")] = "off"
    passages: Annotated[list[Passage], Meta(description="Evidence, best first.")] = []
    embedding: Annotated[bytes | None, Meta(description="Embedding of the question, float32 little-endian, unit length; null where retrieval is off.")] = None
    embedder: Annotated[str | None, Meta(description="Name of the embedding model.")] = None
    attempt: Annotated[int, Meta(description="0 for the request itself, 1 where guardrails ask for its answer again.")] = 0
    embedding_tokens: Annotated[int, Meta(description="Tokens that were embedded for this request; 0 where the embedding was there before.")] = 0
    cached: Annotated[CachedAnswer | None, Meta(description="Answer that is given again instead of calling the model; null where the model is to be asked.")] = None
    embeddings: Annotated[list[bytes], Meta(description="Vectors of the messages, float32 little-endian, unit length, in their order; empty unless the purpose is embed.")] = []


class Completion(Record, frozen=True, kw_only=True):
    """What a model answered, before it is screened. Priced whether or not it is released."""

    context: Annotated[Context, Meta(description="What is known of the request.")]
    messages: Annotated[list[Message], Meta(description="The conversation that was answered.")]
    passages: Annotated[list[Passage], Meta(description="Evidence that was attached.")] = []
    citations: Annotated[list[str], Meta(description="passage_id of the passages that the answer quotes.")] = []
    model: Annotated[str, Meta(description="Model that answered, as it names itself.")]
    backend: Annotated[str, Meta(description="extractive, openai or vllm; embedding where vectors were wanted.")]
    content: Annotated[str, Meta(description="The answer.")] = ""
    finish_reason: Annotated[str, Meta(description="stop, length, content_filter, tool_calls, cancelled (given up before its end) or error.")] = "stop"
    usage: Annotated[Usage, Meta(description="Tokens used.")] = Usage()
    timings: Annotated[Timings, Meta(description="Where the time went.")] = Timings()
    error: Annotated[str | None, Meta(description="Why the model gave no answer; null where it did.")] = None
    grounding: Annotated[str, Meta(description="As in GroundedRequest.")] = "off"
    embedding: Annotated[bytes | None, Meta(description="Embedding of the question, as in GroundedRequest.")] = None
    sampling: Annotated[Sampling, Meta(description="Generation parameters that were asked for.")] = Sampling()
    stream: Annotated[bool, Meta(description="Whether pieces were streamed ahead of this.")] = False
    attempt: Annotated[int, Meta(description="As in GroundedRequest: an answer is asked for again once at most.")] = 0
    kind: Annotated[str, Meta(description="What the call was for: completion, judge or shadow; cached where no model was called; abandoned where the call broke off and another target was asked: it is paid for and is no answer.")] = "completion"
    request_model: Annotated[str | None, Meta(description="Model that was asked for, as the route names it: the one that is priced.")] = None
    embedder: Annotated[str | None, Meta(description="Name of the embedding model, as in GroundedRequest.")] = None
    embedding_tokens: Annotated[int, Meta(description="As in GroundedRequest.")] = 0
    cached_by: Annotated[str | None, Meta(description="Cache that answered: exact or semantic; null where the model did. usage is then what the call would have used.")] = None
    cached_from: Annotated[str | None, Meta(description="event_id of the completion whose answer is repeated; null where the model answered.")] = None
    reduced_input_tokens: Annotated[int, Meta(description="Estimate of the prompt tokens that were left out because they stood in the prompt twice.")] = 0
    alternatives: Annotated[list[Alternative], Meta(description="The answers after the first, where several were asked for.")] = []
    logprobs: Annotated[list[TokenLogprob], Meta(description="Tokens of the answer, where their probabilities are wanted.")] = []
    target: Annotated[str | None, Meta(description="Name of the target of the route that was called; null where none was.")] = None
    failures: Annotated[list[TargetFailure], Meta(description="Targets that were asked before and gave no answer, in their order.")] = []
    energy: Annotated[Energy | None, Meta(description="Estimate of what the call took from the grid; null where nothing is stated of the model.")] = None
    ends_as: Annotated[str | None, Meta(description="Status that the request ends with, where there is an error: expired or cancelled; null: failed, or expired where it came after the deadline.")] = None
    tool_calls: Annotated[list[ToolCall], Meta(description="Tools that the model wants called; content is then often empty.")] = []
    cache_similarity: Annotated[float | None, Meta(description="Cosine of this question and the one that the answer was given to, -1 to 1; null unless the semantic cache answered.")] = None
    cached_request_id: Annotated[str | None, Meta(description="Request that the answer was given to first; null unless the semantic cache answered.")] = None
    embeddings: Annotated[list[bytes], Meta(description="Vectors of the messages, float32 little-endian, unit length, in their order; empty unless the purpose is embed.")] = []


class CompletionChunk(Record, frozen=True, kw_only=True):
    """A piece of an answer as the model streams it, before it is screened."""

    context: Annotated[Context, Meta(description="What is known of the request.")]
    sequence: Annotated[int, Meta(description="Position of the piece, from 0.")]
    content: Annotated[str, Meta(description="Text of the piece.")]
    finish_reason: Annotated[str | None, Meta(description="Set on the last piece.")] = None
    offset: Annotated[int, Meta(description="Offset of the piece's first character in the answer.")] = 0
    preceding: Annotated[str, Meta(description="Digest of the answer up to offset (see penstock.contracts.digest): an answer that is generated again with other words is noticed.")] = ""
    messages: Annotated[list[Message], Meta(description="The conversation that is answered; on the first piece only.")] = []
    passages: Annotated[list[Passage], Meta(description="Evidence that was attached; on the first piece only.")] = []


class LlmResult(Record, frozen=True, kw_only=True):
    """The one public outcome of a request."""

    context: Annotated[Context, Meta(description="What is known of the request.")]
    status: Annotated[str, Meta(description="completed, blocked, rejected, failed, expired or cancelled.")]
    prompt: Annotated[str, Meta(description="The question as screened: the last user message.")] = ""
    content: Annotated[str, Meta(description="The released answer; empty unless completed.")] = ""
    citations: Annotated[list[Passage], Meta(description="Passages that the answer quotes.")] = []
    finish_reason: Annotated[str | None, Meta(description="Why the generation ended; null where there was none.")] = None
    model: Annotated[str | None, Meta(description="Model that answered; null where none was asked.")] = None
    usage: Annotated[Usage, Meta(description="Tokens used.")] = Usage()
    timings: Annotated[Timings, Meta(description="Where the time of the model call went.")] = Timings()
    stage: Annotated[str | None, Meta(description="Stage that ended the request early; null where it ran to its end.")] = None
    code: Annotated[str | None, Meta(description="Machine-readable reason of an early end, e.g. unknown_team, prompt_injection.")] = None
    reason: Annotated[str | None, Meta(description="The same in words, with the remedy.")] = None
    action: Annotated[str, Meta(description="The output verdict: allow, flag, mask or block.")] = "allow"
    calls: Annotated[int | None, Meta(description="Completions there are of the request: so many costs it has; null in events older than this field.")] = None
    alternatives: Annotated[list[Alternative], Meta(description="The released answers after the first, where several were asked for.")] = []
    logprobs: Annotated[list[TokenLogprob], Meta(description="Tokens of the answer, where their probabilities are wanted and it is released as the model gave it.")] = []
    tool_calls: Annotated[list[ToolCall], Meta(description="Tools that the model wants called, released as the answer is.")] = []
    retry_after_ms: Annotated[int | None, Meta(description="After so many milliseconds the same request may be admitted; null where waiting does not help.")] = None
    cached_by: Annotated[str | None, Meta(description="As in Completion: exact or semantic; null where the model answered.")] = None
    cached_from: Annotated[str | None, Meta(description="event_id of the completion whose answer is repeated; null where the model answered.")] = None
    cache_similarity: Annotated[float | None, Meta(description="Cosine of this question and the one that the answer was given to, -1 to 1; null unless the semantic cache answered.")] = None
    cached_request_id: Annotated[str | None, Meta(description="Request that the answer was given to first; null unless the semantic cache answered.")] = None
    embeddings: Annotated[list[bytes], Meta(description="Vectors of the messages, float32 little-endian, unit length, in their order; empty unless the purpose is embed.")] = []


class ResultChunk(Record, frozen=True, kw_only=True):
    """A released piece of a streamed answer."""

    context: Annotated[Context, Meta(description="What is known of the request.")]
    sequence: Annotated[int, Meta(description="Position of the piece, from 0.")]
    content: Annotated[str, Meta(description="Text of the piece.")]
    finish_reason: Annotated[str | None, Meta(description="Set on the last piece.")] = None


class Cancellation(Record, frozen=True, kw_only=True):
    """The answer to a request is of no use any more. Public: written by producers."""

    conversation_id: Annotated[str | None, Meta(description="Conversation of the request; the record's key where set, else request_id is.")] = None
    reason: Annotated[str, Meta(description="Why, in words.")] = ""


class Refusal(Record, frozen=True, kw_only=True):
    """A stage ended a request early; the release gate turns it into the one result."""

    context: Annotated[Context, Meta(description="What is known of the request.")]
    stage: Annotated[str, Meta(description="intake, guardrails, retrieval or inference.")]
    status: Annotated[str, Meta(description="blocked, rejected, failed, expired or cancelled.")]
    code: Annotated[str, Meta(description="Machine-readable reason, e.g. unknown_team.")]
    reason: Annotated[str, Meta(description="The same in words, with the remedy.")]
    prompt: Annotated[str, Meta(description="The question, masked where guardrails saw it; empty before.")] = ""
    calls: Annotated[int, Meta(description="Completions there are of the request: so many costs it has.")] = 0
    retry_after_ms: Annotated[int | None, Meta(description="As in LlmResult.")] = None


class RequestConflict(Record, frozen=True, kw_only=True):
    """A request came under the request_id of another one of the same team. It was not taken up; the other has its own result.
    causation_id is the event that was turned away."""

    code: Annotated[str, Meta(description="conflict.")]
    reason: Annotated[str, Meta(description="The same in words, with the remedy.")]
    key_id: Annotated[str | None, Meta(description="Credential of the one that was turned away.")] = None


class Verdict(Record, frozen=True, kw_only=True):
    """What guardrails decided about one text: the audit trail. causation_id is the event that was judged."""

    stage: Annotated[str, Meta(description="input, output, alternative (another answer to the same request), piece (of a streamed answer), document or review (a person decided).")]
    action: Annotated[str, Meta(description="What was done: allow, flag, pseudonymise, hash, mask, ask_again, review or block.")]
    policy_name: Annotated[str, Meta(description="Policy that judged.")]
    policy_version: Annotated[str, Meta(description="Content hash of the policy.")]
    findings: Annotated[list[Finding], Meta(description="What the scanners found.")] = []
    scanners: Annotated[dict[str, str], Meta(description="Version of every scanner that ran, by the rule's name.")] = {}
    errors: Annotated[dict[str, str], Meta(description="Scanners that failed or ran out of time, with the reason.")] = {}
    latency_us: Annotated[int, Meta(description="Time spent on scanning, microseconds.")] = 0
    mode: Annotated[str, Meta(description="enforce, or shadow: the policy was tried beside the one in force, and action is what that one did.")] = "enforce"
    would_action: Annotated[str | None, Meta(description="What would have been done with the policy, or its rules, in shadow enforced; null where nothing is in shadow.")] = None
    scores: Annotated[dict[str, float], Meta(description="Highest score of every rule that scored, whether it counts or not.")] = {}
    released: Annotated[str, Meta(description="Digest of the text that may be released (see penstock.contracts.digest); empty where none may.")] = ""
    sequence: Annotated[int | None, Meta(description="Position of the piece from 0, or of the alternative from 1; null in other stages.")] = None
    reviewer: Annotated[str | None, Meta(description="Who decided; null unless stage is review.")] = None
    purpose: Annotated[str, Meta(description="What the text's request is for, as in Context: serve, judge or evaluation; serve where the text is a document's.")] = "serve"


class Review(Record, frozen=True, kw_only=True):
    """A text that is held until a person decides. Read by reviewers."""

    context: Annotated[Context, Meta(description="What is known of the request.")]
    stage: Annotated[str, Meta(description="input (a request is held) or output (an answer is).")]
    policy_name: Annotated[str, Meta(description="Policy that held it.")]
    policy_version: Annotated[str, Meta(description="Content hash of the policy.")]
    prompt: Annotated[str, Meta(description="The question as screened.")] = ""
    content: Annotated[str, Meta(description="The answer as screened; empty where the request is held.")] = ""
    findings: Annotated[list[Finding], Meta(description="Why it is held.")] = []
    due_at: Annotated[datetime, Meta(description="Undecided by then, the request ends as expired.")]


class ReviewDecision(Record, frozen=True, kw_only=True):
    """What a person decided about a held text. Public: written by reviewers."""

    review_id: Annotated[str, Meta(description="event_id of the review.")]
    conversation_id: Annotated[str | None, Meta(description="Conversation of the request; the record's key where set, else request_id is.")] = None
    approved: Annotated[bool, Meta(description="Whether the text goes on.")]
    reviewer: Annotated[str, Meta(description="Who decided.")]
    reason: Annotated[str, Meta(description="Why.")] = ""


class Document(Record, frozen=True, kw_only=True):
    """A document to make retrievable, or to remove. Public: written by producers. request_id is the document's upload."""

    document_id: Annotated[str, Meta(description="Identity within the team; a newer event replaces the document.")]
    title: Annotated[str, Meta(description="Title.")] = ""
    source: Annotated[str, Meta(description="Where it came from: a path or an address.")] = ""
    content_type: Annotated[str, Meta(description="text/plain, text/markdown or text/html; with data application/pdf, too, and a charset where it is known.")] = "text/plain"
    content: Annotated[str, Meta(description="The text; empty where deleted, and where the file is in data.")] = ""
    tags: Annotated[dict[str, str], Meta(description="Free labels for filters.")] = {}
    deleted: Annotated[bool, Meta(description="True removes the document.")] = False
    data: Annotated[bytes | None, Meta(description="The file as it is, where content is not given: a PDF, or text of any encoding.")] = None
    language: Annotated[str | None, Meta(description="Language of the text, ISO 639-1; null where the owner does not say: then it is detected.")] = None
    valid_from: Annotated[datetime | None, Meta(description="From then on it may ground requests, UTC; null for always.")] = None
    valid_to: Annotated[datetime | None, Meta(description="From then on it may not any more, UTC; null for never.")] = None


class ScreenedDocument(Record, frozen=True, kw_only=True):
    """A document that guardrails found free of hidden instructions."""

    document_id: Annotated[str, Meta(description="Identity within the team.")]
    title: Annotated[str, Meta(description="Title.")] = ""
    source: Annotated[str, Meta(description="Where it came from.")] = ""
    content_type: Annotated[str, Meta(description="text/plain, text/markdown or text/html.")] = "text/plain"
    content: Annotated[str, Meta(description="The text, as it was uploaded.")] = ""
    tags: Annotated[dict[str, str], Meta(description="Free labels for filters.")] = {}
    deleted: Annotated[bool, Meta(description="True removes the document.")] = False
    policy_version: Annotated[str, Meta(description="Content hash of the policy that was applied.")] = ""
    language: Annotated[str | None, Meta(description="Language of the text, ISO 639-1; null where the owner does not say: then it is detected.")] = None
    valid_from: Annotated[datetime | None, Meta(description="From then on it may ground requests, UTC; null for always.")] = None
    valid_to: Annotated[datetime | None, Meta(description="From then on it may not any more, UTC; null for never.")] = None


class DocumentIndexed(Record, frozen=True, kw_only=True):
    """A document is retrievable, or gone."""

    document_id: Annotated[str, Meta(description="Identity within the team.")]
    source: Annotated[str, Meta(description="Where it came from.")] = ""
    status: Annotated[str, Meta(description="indexed, unchanged, deleted or failed.")]
    chunks: Annotated[int, Meta(description="Chunks the document now has.")] = 0
    chunks_embedded: Annotated[int, Meta(description="Chunks that were new or changed.")] = 0
    chunks_removed: Annotated[int, Meta(description="Stale chunks that were removed.")] = 0
    embedder: Annotated[str, Meta(description="Name of the embedding model.")] = ""
    reason: Annotated[str | None, Meta(description="Why it failed; null otherwise.")] = None
    embedded_tokens: Annotated[int, Meta(description="Tokens that were embedded.")] = 0


class Cost(Record, frozen=True, kw_only=True):
    """What one call cost, or saved."""

    context: Annotated[Context, Meta(description="Whom and what it is allocated to.")]
    kind: Annotated[str, Meta(description="What the call was for: completion, repeat (the answer was asked for again), cancelled, abandoned (another target was asked instead), cached (no model was called), judge, shadow or embedding.")] = "completion"
    model: Annotated[str, Meta(description="Model that was asked for, as the route names it.")]
    backend: Annotated[str, Meta(description="Backend that was called.")] = ""
    priced: Annotated[bool, Meta(description="False where no price is known: then the amounts are null, never zero.")]
    price_version: Annotated[str | None, Meta(description="Content hash of the price; null where unpriced.")] = None
    amount: Annotated[Decimal | None, Meta(description="Total, USD: the sum of the shares.")] = None
    input_amount: Annotated[Decimal | None, Meta(description="Share of the prompt, USD.")] = None
    output_amount: Annotated[Decimal | None, Meta(description="Share of the answer, USD.")] = None
    usage: Annotated[Usage, Meta(description="Tokens that were priced.")] = Usage()
    compute_amount: Annotated[Decimal | None, Meta(description="Share of what is charged by time or by request, USD.")] = None
    compute_us: Annotated[int, Meta(description="Time that was priced, microseconds; 0 where the price has none.")] = 0
    saved: Annotated[dict[str, Decimal], Meta(description="What was not spent, USD, by cause: exact_cache, semantic_cache, prefix_cache, prompt_reduction (an estimate).")] = {}
    accounted_at: Annotated[datetime | None, Meta(description="Instant that decides the windows it counts in, UTC: the admission of its request; null means occurred_at.")] = None
    attempt: Annotated[int, Meta(description="Which call of the request: 0, or 1 for an answer that was asked for again.")] = 0
    response_model: Annotated[str | None, Meta(description="Model that answered, as it names itself.")] = None


class TeamSpend(Record, frozen=True, kw_only=True):
    """What a team, or the subject of one of its budgets, has spent in one window; the newest event of a key replaces the older ones."""

    window: Annotated[str, Meta(description="day or month (UTC), or rolling-<hours>h.")]
    window_start: Annotated[datetime, Meta(description="First instant of the window, UTC.")]
    amount: Annotated[Decimal, Meta(description="Sum of the priced calls, USD.")]
    calls: Annotated[int, Meta(description="Calls, unpriced and cached ones included.")] = 0
    unpriced_calls: Annotated[int, Meta(description="Calls without a known price.")] = 0
    input_tokens: Annotated[int, Meta(description="Prompt tokens.")] = 0
    output_tokens: Annotated[int, Meta(description="Generated tokens.")] = 0
    budget: Annotated[Decimal | None, Meta(description="Limit of the budget, or the team's lowest one of this window, USD; null where it has none.")] = None
    window_end: Annotated[datetime | None, Meta(description="First instant after the window, UTC.")] = None
    cached_input_tokens: Annotated[int, Meta(description="Prompt tokens from the provider's prefix cache.")] = 0
    cached_calls: Annotated[int, Meta(description="Calls that a cache answered.")] = 0
    saved: Annotated[Decimal | None, Meta(description="Sum of what was not spent, USD; null in events older than this field.")] = None
    budget_name: Annotated[str | None, Meta(description="Budget whose subject this is; null for the whole team.")] = None
    subject: Annotated[str | None, Meta(description="The user, key, model or tag's value that the budget is for; null for the whole team.")] = None


class ScoredSentence(Part, frozen=True, kw_only=True):
    """What an evaluator says of one sentence."""

    start: Annotated[int, Meta(description="Offset of the first character in the scored text.")]
    end: Annotated[int, Meta(description="Offset after the last character.")]
    score: Annotated[float, Meta(description="From 0 to 1, as the whole score.")]
    label: Annotated[str, Meta(description="The verdict.")] = ""
    passage_id: Annotated[str | None, Meta(description="Passage that bears most on it; null where there is none.")] = None
    reason: Annotated[str, Meta(description="Why, e.g. which number or name no passage has.")] = ""


class Score(Part, frozen=True, kw_only=True):
    """One score of one text."""

    name: Annotated[str, Meta(description="What was scored, e.g. toxicity, groundedness.")]
    subject: Annotated[str, Meta(description="prompt, answer or feedback.")]
    score: Annotated[float, Meta(description="From 0 to 1.")]
    label: Annotated[str, Meta(description="The verdict at the evaluator's threshold, e.g. toxic, clean.")] = ""
    version: Annotated[str, Meta(description="Version of the evaluator and of its model.")] = ""
    features: Annotated[dict[str, float], Meta(description="What moved the score most, with its weight.")] = {}
    categories: Annotated[dict[str, float], Meta(description="Finer labels with their scores, e.g. insult, threat.")] = {}
    sentences: Annotated[list[ScoredSentence], Meta(description="The same for each sentence, where the evaluator judges by sentence.")] = []
    reason: Annotated[str, Meta(description="Why, in words; empty where score and label say it.")] = ""
    latency_us: Annotated[int, Meta(description="Time the evaluator took, microseconds; its share where texts are scored together.")] = 0


class Evaluation(Record, frozen=True, kw_only=True):
    """The scores of one result."""

    context: Annotated[Context, Meta(description="What is known of the request.")]
    model: Annotated[str | None, Meta(description="Model that answered.")] = None
    status: Annotated[str, Meta(description="Status of the result.")] = "completed"
    scores: Annotated[list[Score], Meta(description="One entry an evaluator and subject.")] = []


class Feedback(Record, frozen=True, kw_only=True):
    """What a person thought of a result. Public: written by producers, under the key of the request it is about."""

    conversation_id: Annotated[str | None, Meta(description="Conversation of the request; the record's key where set, else request_id is.")] = None
    user_id: Annotated[str | None, Meta(description="Who gave it.")] = None
    source: Annotated[str, Meta(description="user, moderator or system.")] = "user"
    rating: Annotated[float | None, Meta(description="From 0 (bad) to 1 (good); thumbs are 0 and 1.")] = None
    labels: Annotated[dict[str, str], Meta(description="Labels by subject and name, e.g. prompt.toxicity = toxic.")] = {}
    correction: Annotated[str | None, Meta(description="What the answer should have been.")] = None
    comment: Annotated[str | None, Meta(description="Free text.")] = None
    chosen: Annotated[str | None, Meta(description="Of two answers the better one: a, b or tie; null where none were compared.")] = None
    queue: Annotated[str | None, Meta(description="Annotation queue that asked for it; null where nobody did.")] = None


class Label(Record, frozen=True, kw_only=True):
    """A labelled text, for a classifier that learns online. Carries the text's features, never the text."""

    model: Annotated[str, Meta(description="Classifier that is taught, e.g. toxicity; the record's key.")]
    subject: Annotated[str, Meta(description="prompt or answer.")]
    label: Annotated[str, Meta(description="The label, e.g. toxic or clean.")]
    source: Annotated[str, Meta(description="user, moderator or system.")]
    author: Annotated[str, Meta(description="Who gave the label: what rate limits count; empty where it is not said.")] = ""
    features: Annotated[bytes, Meta(description="Features of the text as the classifier packs them.")]
    features_version: Annotated[str, Meta(description="Version of the features.")]
    score: Annotated[float, Meta(description="What the classifier in force said of the text.")]
    version: Annotated[str, Meta(description="Version of the classifier that said it.")]


class ModelCommand(Record, frozen=True, kw_only=True):
    """What people decide about a classifier that learns. Public in."""

    model: Annotated[str, Meta(description="Classifier, e.g. toxicity; the record's key.")]
    action: Annotated[str, Meta(description="promote (the challenger, whatever its score), rollback (to a version, or to the one before), freeze (no more promotions), unfreeze or reset (the challenger becomes the champion's copy).")]
    version: Annotated[str | None, Meta(description="Version to roll back to; null for the one before.")] = None
    author: Annotated[str, Meta(description="Who commands it.")] = ""
    reason: Annotated[str, Meta(description="Why.")] = ""


class JudgeTask(Record, frozen=True, kw_only=True):
    """Something that a model is to judge by a rubric. Partitioned like llm-results, where the judge's answer arrives."""

    context: Annotated[Context, Meta(description="Of the request that is judged: its team pays.")]
    rubric: Annotated[str, Meta(description="Registered rubric to judge by.")]
    question: Annotated[str, Meta(description="The question that was asked.")]
    answers: Annotated[list[str], Meta(description="The answer, or the two that are compared.")]
    passages: Annotated[list[str], Meta(description="Texts of the passages that were attached.")] = []
    reference: Annotated[str | None, Meta(description="The right answer, where it is known.")] = None
    models: Annotated[list[str], Meta(description="Model of each answer, as events name it; empty where unknown.")] = []
    reply_key: Annotated[str, Meta(description="Key of the evaluation: the judged request's conversation_id, else its request_id. The judge's requests have keys of the same partition.")]


class AnnotationTask(Record, frozen=True, kw_only=True):
    """A result that a person should look at. Read by annotators, who answer on feedback."""

    context: Annotated[Context, Meta(description="What is known of the request.")]
    queue: Annotated[str, Meta(description="Queue it stands in.")]
    reason: Annotated[str, Meta(description="Why it was picked: uncertain, risk, disagreement (people or evaluators differ) or sample.")]
    priority: Annotated[float, Meta(description="From 0 to 1: what to look at first.")]
    prompt: Annotated[str, Meta(description="The question as screened.")] = ""
    content: Annotated[str, Meta(description="The released answer.")] = ""
    citations: Annotated[list[Passage], Meta(description="Passages that the answer quotes.")] = []
    model: Annotated[str | None, Meta(description="Model that answered.")] = None
    scores: Annotated[dict[str, float], Meta(description="What the evaluators said, by subject.name.")] = {}
    labels: Annotated[list[str], Meta(description="Labels that are wanted, by subject.name, e.g. answer.toxicity.")] = []
    raters: Annotated[int, Meta(description="How many people should label it.")] = 1


class Observation(Record, frozen=True, kw_only=True):
    """What one event says of an experiment. Keyed by team and experiment, so that one place sees all of it in order."""

    experiment: Annotated[str, Meta(description="Name of the experiment.")]
    version: Annotated[str, Meta(description="Content hash of the experiment's configuration.")]
    arm: Annotated[str, Meta(description="Arm that the request was assigned to.")]
    unit: Annotated[str, Meta(description="Keyed hash of what was assigned (user, conversation or request): its observations depend on each other.")]
    source: Annotated[str, Meta(description="Topic of the event.")]
    values: Annotated[dict[str, float], Meta(description="Metrics by name, e.g. answer.groundedness, cost, latency_ms, feedback.rating; empty for the assignment itself.")] = {}


class ExperimentEvent(Record, frozen=True, kw_only=True):
    """A decision about a running experiment, or an objection to it."""

    experiment: Annotated[str, Meta(description="Name of the experiment.")]
    version: Annotated[str, Meta(description="Content hash of its configuration.")]
    decision: Annotated[str, Meta(description="better, worse (a guard metric is harmed), no_difference (within the margin), sample_ratio_mismatch or ended (its time is over without a decision).")]
    arm: Annotated[str, Meta(description="Arm it is about, compared with control.")] = ""
    metric: Annotated[str, Meta(description="Metric that decided.")] = ""
    control: Annotated[str, Meta(description="Arm it is compared with.")] = ""
    difference: Annotated[float | None, Meta(description="Mean of the arm less that of the control.")] = None
    interval: Annotated[list[float], Meta(description="Confidence sequence of the difference at the decision: lower and upper bound.")] = []
    confidence: Annotated[float | None, Meta(description="Coverage of the interval at all times together.")] = None
    means: Annotated[dict[str, float], Meta(description="Mean of the metric by arm.")] = {}
    units: Annotated[dict[str, int], Meta(description="Units by arm.")] = {}
    p_value: Annotated[float | None, Meta(description="Always-valid p-value of the test that decided.")] = None
    evidence: Annotated[list[LogRange], Meta(description="Where the observations lie in the log.")] = []


class Signal(Record, frozen=True, kw_only=True):
    """Figures of one event of one segment, for the drift detectors. The record's key is team|route: the segments of a route
    keep their order towards each other."""

    segment: Annotated[str, Meta(description="team|model|prompt version|route.")]
    source: Annotated[str, Meta(description="Topic the figures were taken from.")]
    source_partition: Annotated[int, Meta(description="Partition of the source event.")]
    source_offset: Annotated[int, Meta(description="Offset of the source event.")]
    values: Annotated[dict[str, float], Meta(description="Numbers by signal name.")] = {}
    categories: Annotated[dict[str, str], Meta(description="Categories by signal name.")] = {}
    embedding: Annotated[bytes | None, Meta(description="Embedding of the question in events of version 1; since then it stands in vectors.")] = None
    vectors: Annotated[dict[str, bytes], Meta(description="Embeddings by signal name, float32 little-endian.")] = {}
    versions: Annotated[dict[str, str], Meta(description="What was in force, by name (model, prompt, policy): a new one is a likely cause of a change.")] = {}
    conversation_id: Annotated[str | None, Meta(description="Conversation of the request: its messages are about one thing, so they say once what a segment is about.")] = None


class Release(Part, frozen=True, kw_only=True):
    """Something that was replaced close to a change: its likely cause."""

    name: Annotated[str, Meta(description="What was replaced: model, prompt, policy or another name of Signal.versions.")]
    before: Annotated[str, Meta(description="Version before.")]
    after: Annotated[str, Meta(description="Version since.")]
    since: Annotated[datetime, Meta(description="When its first event occurred, UTC.")]
    first_offset: Annotated[int, Meta(description="Offset of that event in the same partition of signals.")]


class DriftEvent(Record, frozen=True, kw_only=True):
    """A signal of a segment changed. request_id is that of the event at which the change was confirmed."""

    segment: Annotated[str, Meta(description="Segment.")]
    signal: Annotated[str, Meta(description="Signal that changed.")]
    detector: Annotated[str, Meta(description="Detector and its parameters.")]
    kind: Annotated[str, Meta(description="What changed: data (inputs), model (outputs at like inputs), concept (feedback against score), retrieval, quality, guardrail, cost or latency.")]
    statistic: Annotated[float, Meta(description="Test statistic at the confirmation; since version 2 the log of a likelihood ratio on the events after the candidate, nats.")]
    threshold: Annotated[float, Meta(description="Bound it crossed.")]
    before: Annotated[dict[str, float], Meta(description="Figures of the reference window.")] = {}
    after: Annotated[dict[str, float], Meta(description="Figures of the test window.")] = {}
    reference: Annotated[list[LogRange], Meta(description="Where the reference window lies in the log.")] = []
    test: Annotated[list[LogRange], Meta(description="Where the test window lies in the log.")] = []
    sample_before: Annotated[list[str], Meta(description="request_id of some requests before the change.")] = []
    sample_after: Annotated[list[str], Meta(description="request_id of some requests after the change.")] = []
    what: Annotated[str, Meta(description="What of the signal changed: level, spread, mixture (of categories) or topic (of vectors).")] = "level"
    pattern: Annotated[str, Meta(description="How: abrupt, gradual, recurring (a state that was there before) or outlier (a burst that is over).")] = "abrupt"
    returned: Annotated[bool, Meta(description="Whether the baseline is back: what was told before has ended.")] = False
    size: Annotated[float, Meta(description="How large the change is, in the reference's standard deviations.")] = 0.0
    alpha: Annotated[float | None, Meta(description="Chance of a false alarm that was accepted here; part of the day's budget.")] = None
    reference_mode: Annotated[str, Meta(description="Where the reference comes from: baseline, pinned or release (the segment of the version before).")] = "baseline"
    releases: Annotated[list[Release], Meta(description="Likely causes: what was replaced close to the change.")] = []
    contributions: Annotated[dict[str, float], Meta(description="Shares of the change by segment of the same team and route, the largest first; they add up to 1.")] = {}


class DriftCommand(Record, frozen=True, kw_only=True):
    """What a person tells the drift detectors. Public in; the record's key is team|route of the segments."""

    action: Annotated[str, Meta(description="rebase (the present is the reference from now on), pin (the reference stays as given) or unpin.")]
    segment: Annotated[str, Meta(description="team|model|prompt version|route; * stands for any model or prompt version.")]
    signal: Annotated[str | None, Meta(description="Signal; null for all.")] = None
    since: Annotated[datetime | None, Meta(description="Begin of the pinned period, UTC.")] = None
    until: Annotated[datetime | None, Meta(description="End of the pinned period, UTC.")] = None
    reference: Annotated[bytes | None, Meta(description="What a pinned period looked like, as the detectors keep it.")] = None
    author: Annotated[str, Meta(description="Who commands it.")] = ""
    reason: Annotated[str, Meta(description="Why.")] = ""


class Alert(Record, frozen=True, kw_only=True):
    """Something on-call should know, with the evidence to act on."""

    kind: Annotated[str, Meta(description="cost, toxicity, quality, drift, guardrail, dlq, lag, health or test; names the runbook's page.")]
    name: Annotated[str, Meta(description="What exactly, e.g. budget_threshold, topic_shift.")]
    severity: Annotated[str, Meta(description="info, warning or critical.")]
    status: Annotated[str, Meta(description="firing or resolved.")] = "firing"
    title: Annotated[str, Meta(description="One line.")]
    description: Annotated[str, Meta(description="What happened, with the figures.")]
    suggested_action: Annotated[str, Meta(description="What to do first.")] = ""
    fingerprint: Annotated[str, Meta(description="Equal for alerts about the same condition; the record's key.")]
    labels: Annotated[dict[str, str], Meta(description="For grouping and routing.")] = {}
    figures: Annotated[dict[str, float], Meta(description="The figures behind it, for people; exact money stands in the description.")] = {}
    evidence: Annotated[list[LogRange], Meta(description="Where in the log to look.")] = []
    sample_requests: Annotated[list[str], Meta(description="request_id of some requests concerned.")] = []
    runbook: Annotated[str, Meta(description="Path of the runbook's page.")] = ""
    starts_at: Annotated[datetime | None, Meta(description="When the condition began, as far as it is known, UTC; null: at occurred_at.")] = None


class AlertAction(Record, frozen=True, kw_only=True):
    """What a person does about alerts. Public in; the record's key is the fingerprint, or the silence's id."""

    action: Annotated[str, Meta(description="acknowledge, unacknowledge, resolve, silence or unsilence.")]
    fingerprint: Annotated[str | None, Meta(description="Alert that is acknowledged or resolved.")] = None
    silence_id: Annotated[str | None, Meta(description="Silence that begins or ends.")] = None
    match: Annotated[dict[str, str], Meta(description="Alerts that a silence covers: patterns (* and ?) by kind, name, severity, team, fingerprint or label.")] = {}
    starts_at: Annotated[datetime | None, Meta(description="Begin of the silence, UTC; null: at once.")] = None
    ends_at: Annotated[datetime | None, Meta(description="End of the silence, or of the acknowledgement, UTC.")] = None
    author: Annotated[str, Meta(description="Who.")] = ""
    comment: Annotated[str, Meta(description="Why.")] = ""


class AlertDelivery(Record, frozen=True, kw_only=True):
    """What became of one alert at one receiver: one record a try, and one for what was held back."""

    fingerprint: Annotated[str, Meta(description="Fingerprint of the alert.")]
    alert_kind: Annotated[str, Meta(description="Kind of the alert.")]
    channel: Annotated[str, Meta(description="webhook, slack, pagerduty, alertmanager, email or console; empty where the alert went to none.")]
    destination: Annotated[str, Meta(description="Where to, without credentials.")]
    outcome: Annotated[str, Meta(description="delivered, failed (it is tried again), dead (given up) or suppressed (a repetition, silenced, stale or over the rate).")]
    attempts: Annotated[int, Meta(description="Tries made.")] = 0
    status_code: Annotated[int | None, Meta(description="Status of the last try's answer.")] = None
    reason: Annotated[str | None, Meta(description="Why it failed, was suppressed or was given up.")] = None
    receiver: Annotated[str, Meta(description="Name of the receiver in the alerting configuration.")] = ""
    notification_id: Annotated[str, Meta(description="Identity of the message that the alert went in, with others of its group: the idempotency key of the receiver.")] = ""
    purpose: Annotated[str, Meta(description="Why it was sent: firing, resolved, repeat (still firing) or escalation.")] = "firing"
    next_try_at: Annotated[datetime | None, Meta(description="When it is tried again, UTC; null where it is not.")] = None


class ConfigEntry(Record, frozen=True, kw_only=True):
    """One version of one entry of the configuration; its name is the record's key. request_id is empty, tenant_id the owner's."""

    kind: Annotated[str, Meta(description="prompts, policies, prices, routes or teams.")]
    name: Annotated[str, Meta(description="Name of the entry.")]
    version: Annotated[str, Meta(description="Content hash: first 16 hex digits of SHA-256 over the canonical JSON.")]
    content: Annotated[str, Meta(description="The entry as canonical JSON; empty where deleted.")]
    deleted: Annotated[bool, Meta(description="True withdraws the entry.")] = False
    author: Annotated[str, Meta(description="Who applied it.")] = ""
    reason: Annotated[str, Meta(description="Why.")] = ""


class ModelWeights(Record, frozen=True, kw_only=True):
    """Plain weights of a classifier that one service trains and another uses; its name is the record's key."""

    name: Annotated[str, Meta(description="Name of the classifier.")]
    version: Annotated[str, Meta(description="Version of the weights.")]
    format: Annotated[str, Meta(description="How weights is laid out, e.g. float32-le.")]
    shape: Annotated[list[int], Meta(description="Shape of the array.")]
    weights: Annotated[bytes, Meta(description="The numbers.")]
    metadata: Annotated[dict[str, str], Meta(description="What a reader needs to use them.")] = {}


class DeadLetter(Record, frozen=True, kw_only=True):
    """A message that a service could not decode or process, with where it came from and why."""

    service: Annotated[str, Meta(description="Service that gave it up.")]
    group: Annotated[str, Meta(description="Consumer group that read it.")]
    origin_topic: Annotated[str, Meta(description="Topic it was read from.")]
    origin_partition: Annotated[int, Meta(description="Partition.")]
    origin_offset: Annotated[int, Meta(description="Offset.")]
    origin_key: Annotated[bytes | None, Meta(description="Key as read.")] = None
    origin_value: Annotated[bytes | None, Meta(description="Value as read; cut to 64 KiB where truncated is true.")] = None
    origin_headers: Annotated[dict[str, bytes], Meta(description="Headers as read.")] = {}
    truncated: Annotated[bool, Meta(description="Whether origin_value was cut; the whole stands at its origin while retention lasts.")] = False
    code: Annotated[str, Meta(description="Machine-readable cause, e.g. wrong_magic_byte, unknown_schema_id, invalid_record, step_failed.")]
    reason: Annotated[str, Meta(description="Cause and remedy in words.")]
