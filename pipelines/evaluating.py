"""What `vqbeam evaluate` and `vqbeam encode --evaluate` share: the job that measures, and its totals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from models import find
from models.errors import ConfigError
from models.image_tokenizer import TokenizerCheckpoint
from pipelines import image_reading
from pipelines.planned_models import (
    CLIP_BATCH,
    DECODE,
    ENCODE,
    PlannedModel,
    clip_model,
    clip_preprocessing,
    tokenizer_model,
)
from pipelines.request import JobOptions, Settings, Task, TokenizerChoice, check_decoder, tokenizer_provenance
from transforms import storage
from transforms.image_options import ImageOptions, image_options, preprocessing_id
from transforms.ledger.folder import EVALUATION
from transforms.ledger.plan import Plan
from transforms.ledger.sums import Totals
from transforms.outputs.evaluation import as_text, summarise

MODEL, PREPROCESSING = "model", "preprocessing"


@dataclass(frozen=True)
class Contender:
    """A tokenizer that is measured. The first of a job has no `number`; it ends the names of what belongs to others."""

    number: str
    tokenizer: TokenizerChoice
    checkpoint: TokenizerCheckpoint
    image: ImageOptions

    @property
    def icc(self) -> str:
        return f"{PREPROCESSING}{self.number}.icc"

    def planned(self) -> PlannedModel:
        model = tokenizer_model(self.checkpoint, str(self.tokenizer.model), MODEL + self.number, ENCODE + DECODE)
        return replace(model, flops=2 * model.flops)  # images become codes and again images

    def about(self, plan: Plan) -> dict[str, Any]:
        """What is said of it beside its totals."""
        role, spec = MODEL + self.number, self.checkpoint.spec
        stored = plan.settings.get("models", {}).get(role)
        identity = plan.fingerprint[role] if self.number else plan.fingerprint
        return {
            "model": stored["name"] if stored else plan.settings["model"],
            "model_source": stored["source"] if stored else plan.settings["model_source"],
            "weights_id": identity["weights_id"],
            "image_size": spec.resolution,
            "codes_per_image": spec.codes_per_image,
            "codebook_size": spec.codebook_size,
        }


def contenders(tokenizers: Sequence[TokenizerChoice], given: Mapping[str, Any]) -> list[Contender]:
    """Opens the tokenizers; `given` are the fields of `ImageOptions` that were given.

    Raises `CheckpointError` and `ConfigError`.
    """
    found = []
    for position, tokenizer in enumerate(tokenizers, 1):
        checkpoint = tokenizer.open()
        spec = checkpoint.spec
        if not spec.has_encoder:
            raise ConfigError(
                f"--model {tokenizer.model} ({spec.format}) holds a decoder only: it can decode, not encode"
            )
        check_decoder(str(tokenizer.model), spec)
        image = image_options(spec.resolution, spec.preprocessing, given)
        found.append(Contender("" if position == 1 else f"_{position}", tokenizer, checkpoint, image))
    return found


def evaluation(
    job: JobOptions,
    tokenizers: Sequence[TokenizerChoice],
    given: Mapping[str, Any],
    clip: str | None,
    require_caption: bool,
) -> Task:
    """The job that encodes, decodes and measures. Raises `CheckpointError` and `ConfigError`."""
    from transforms.work.evaluate import Candidate, Evaluate, written
    from transforms.work.step import ClipSettings

    found = contenders(tokenizers, given)
    models = [one.planned() for one in found]
    specs = [one.checkpoint.spec for one in found]
    models[0] = replace(models[0], batch_size=lambda kind, gpu: min(spec.batch_size(kind, gpu) for spec in specs))
    seen_by_clip: dict[str, Any] = {}
    clip_about: dict[str, Any] = {}
    if clip is not None:
        from models.clip.scorer import read_clip_parts

        checkpoint = find(clip, job.model_cache).clip
        models.append(clip_model(checkpoint, clip, job.model_cache))
        seen_by_clip = {"clip_preprocessing": clip_preprocessing(read_clip_parts(checkpoint)[0])}
        clip_about = {"name": checkpoint.name, "size": checkpoint.config.projection_dim}

    def work(plan: Plan, settings: Settings) -> Evaluate:
        candidates = [
            Candidate(
                model=one.tokenizer.settings(settings),
                image=image_reading.as_planned(one.image, plan, one.icc),
                spec=one.checkpoint.spec,
            )
            for one in found
        ]
        eyes = clip and ClipSettings(models[-1].source, job.model_cache, settings.device, CLIP_BATCH, settings.threads)
        return Evaluate(tuple(candidates), eyes or None, clip_about.get("size", 0), require_caption)

    def with_clip(plan: Plan) -> dict[str, Any]:
        return {"clip": clip_about | {"weights_id": plan.fingerprint["clip"]["weights_id"]}} if clip else {}

    def provenance(plan: Plan) -> dict[str, Any]:
        said = [{PREPROCESSING: plan.fingerprint[PREPROCESSING + one.number]} for one in found]
        if len(found) == 1:
            return tokenizer_provenance(found[0].checkpoint, plan) | said[0] | with_clip(plan)
        kept = {name: plan.fingerprint[name] for name in ("dtype", "schema_version")}
        of_all = [one.about(plan) | both for one, both in zip(found, said, strict=True)]
        return {"command": plan.command, "models": of_all, **kept, **with_clip(plan)}

    def conclude(plan: Plan, totals: Totals) -> str:
        told = [one.about(plan) for one in found]
        return as_text(summarise(job.output, plan.shards, told, totals, with_clip(plan).get("clip")))

    preprocessing = {
        PREPROCESSING + one.number: {**preprocessing_id(one.image), **image_reading.icc_choice(given, one.image)}
        for one in found
    }
    rows = image_reading.rows_choice(found[0].image, given) | {"require_caption": require_caption}
    return Task(
        models=tuple(models),
        fingerprint={
            "models": len(found),
            "with_clip": clip is not None,
            "rows": rows,
            **preprocessing,
            **seen_by_clip,
        },
        open={**image_reading.OPEN} | {one.icc: image_reading.OPEN[image_reading.ICC] for one in found},
        input=replace(job.files.request, written=written(len(found), clip=clip is not None)),
        work=work,
        provenance=provenance,
        look=storage.join(job.output, EVALUATION),
        backend=found[0].tokenizer.backend,
        max_image_bytes=found[0].image.max_image_bytes,
        conclude=conclude,
        concluded=EVALUATION,
    )
