"""The sections of a recipe: names, types, units, defaults and the rules inside one section.

Rules across sections are in recipe.py. A method's own section stands in its file under methods/. What fields are made
of, and what `free` means, says section.py.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from system.section import Actors, Positive, Ratio, Section, free

# How clips are taken from a video in fine-tuning and tests (core/views.py names them too: a decoder's process
# imports no pydantic).
Sampling = Literal["dense", "segments"]

RUN_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$"
# CLIPSxCROPS of a video.
VIEWS = r"^[1-9][0-9]{0,2}x[1-9][0-9]{0,2}$"


class RunSection(Section):
    """Who the run is. Name and storage together are its identity: submitting them again resumes it."""

    name: str = Field("run", pattern=RUN_NAME, description="Folder of the run under `run.storage`.")
    storage: str = Field("./runs", description="Local path or s3:// prefix under which the run's folder lies.")
    seed: int = Field(0, ge=0, lt=2**63, description="Seed of the plan, of every sample and of the weights.")
    stop_at_step: int | None = free(None, ge=1, description="Stop, resumable, after this step. Default: at the end.")


class DataSection(Section):
    """Which videos, how clips are cut from them, and the limits of the stages that do it."""

    uri: str = Field(description="Folder or prefix of videos or tar shards, an index.parquet, or synthetic://...")
    num_frames: Positive = Field(16, description="Frames of a clip.")
    stride: Positive = Field(4, description="Original frames from one sampled frame to the next.")
    size: int = Field(224, ge=16, description="Side of the square clip, px.")
    views: Positive = Field(1, description="Clips cut from one decoded video (repeated augmentation).")
    decoder: Literal["auto", "pyav", "decord", "torchcodec"] = Field(
        "auto", description="`auto`: pyav, and decord for a codec that it does not know."
    )
    shuffle_window: int = Field(16384, ge=1, description="Videos that are shuffled among each other.")
    max_bad_ratio: Annotated[float, Field(ge=0.0, le=1.0)] = free(
        0.1, description="Share of unreadable videos above which the run stops."
    )
    clips_per_block: int | None = free(None, ge=1, le=512, description="Default: derived, at most 48.")
    lookahead: int | None = free(
        None,
        ge=2,
        description="Blocks read ahead of the trainers, at least 2 for each rank and one. Default: 4 for each, or 3 for"
        " each decode actor where that is more.",
    )
    blocks_per_stream: int = free(500_000, ge=1, description="Blocks after which the stream is rebuilt.")
    deadline_s: float = free(20.0, gt=0, description="Wall-clock limit for decoding one video; once more with 5x.")
    child_cpu_s: float | None = free(None, gt=0, description="CPU time for decoding one video. Default: deadline_s.")
    child_memory_mb: int = free(8192, ge=512, description="Address space limit of a decode child, MiB.")
    child_rss_mb: int = free(1536, ge=128, description="A decode child above this resident size is replaced, MiB.")
    child_videos: int = free(5000, ge=1, description="A decode child is replaced after this many videos.")


class MotionSection(Section):
    """Where motion comes from, for the methods that need it."""

    source: Literal["auto", "raft", "dis", "frame_difference", "codec"] = Field(
        "auto", description="`auto`: what the method was made for where that needs no weights, else dis."
    )
    weights: str | None = free(None, description="raft: URI of RAFT-small's weights, torchvision's or the original's.")
    updates: int = Field(6, ge=1, le=64, description="raft: flow updates.")
    size: int | None = Field(
        None, ge=128, multiple_of=8, description="raft: side at which flow is computed, px. Default: data.size."
    )
    fallback: Literal["dis", "frame_difference"] = Field(
        "dis", description="codec: what serves a clip whose stream has no motion vectors (AV1, HEVC, VP9, ...)."
    )
    preset: Literal["ultrafast", "fast", "fine", "medium"] = Field(
        "fast", description="dis: OpenCV's presets, and `fine` of ours between fast and medium."
    )
    device: Literal["auto", "cpu", "cuda"] = free(
        "auto", description="raft: `auto` is cuda where resources.mask.gpus_per_actor is above 0, else cpu."
    )


class ModelSection(Section):
    """The video transformer and its pixel decoder; a number that is said replaces that of `size`."""

    size: Literal["tiny", "small", "base", "large", "huge"] = Field(
        "base", description="Which sizes the fields below have where they are not said: VideoMAE's."
    )
    tubelet_frames: Positive = Field(2, description="Frames that one token covers.")
    patch_px: Positive = Field(16, description="Side of a token's square, px.")
    width: int | None = Field(None, ge=8, description="Channels of the encoder. Default: of `size`.")
    depth: int | None = Field(None, ge=1, description="Blocks of the encoder. Default: of `size`.")
    heads: int | None = Field(None, ge=1, description="Attention heads of the encoder. Default: of `size`.")
    decoder_width: int | None = Field(None, ge=8, description="Channels of the decoder. Default: of `size`.")
    decoder_depth: int | None = Field(None, ge=1, description="Blocks of the decoder. Default: of `size`.")
    decoder_heads: int | None = Field(None, ge=1, description="Attention heads of the decoder. Default: of `size`.")


class TrainSection(Section):
    """What one optimizer step is, and how many there are."""

    global_batch: Positive = Field(description="Clips of one step, over all workers; a multiple of data.views.")
    micro_batch: int = free(8, ge=1, description="Clips of one forward on one worker; changes speed and memory only.")
    epochs: float | None = Field(None, gt=0, description="Passes over the videos (a video's views count as one).")
    steps: int | None = Field(None, ge=1, description="Steps of the run; either this or `epochs`.")
    base_lr: float = Field(1.5e-4, ge=0, description="Learning rate for a batch of 256.")
    min_lr: float = Field(1e-5, ge=0, description="Final learning rate for a batch of 256.")
    lr_counts: Literal["clips", "videos"] = Field("clips", description="What the 256 of the learning-rate rule counts.")
    warmup_epochs: float | None = Field(
        None, ge=0, description="Epochs in which the learning rate grows evenly from 0. Default: none."
    )
    warmup_steps: int | None = Field(None, ge=0, description="The same in steps; either this or `warmup_epochs`.")
    betas: tuple[float, float] = Field((0.9, 0.95), description="AdamW's, of VideoMAE's pre-training.")
    eps: float = Field(1e-8, gt=0, description="AdamW's.")
    weight_decay: float = Field(
        0.05, ge=0, description="Of matrices; biases, norms, mask tokens and positions have none."
    )
    clip_grad: float | None = Field(None, gt=0, description="Largest global gradient norm. Default: no clipping.")
    max_nonfinite: int = free(
        3, ge=1, description="Steps in a row without a finite gradient after which the run goes back a checkpoint."
    )
    init_from: str | None = Field(
        None,
        description="Weights to start from: a file, a folder of Hugging Face, a run, or a checkpoint. Default: drawn.",
    )

    @field_validator("betas")
    @classmethod
    def _shares(cls, value: tuple[float, float]) -> tuple[float, float]:
        if not all(0 <= beta < 1 for beta in value):
            raise ValueError(f"each is at least 0 and less than 1, got [{value[0]:g}, {value[1]:g}]; use [0.9, 0.95]")
        return value

    @model_validator(mode="after")
    def _one_length(self) -> TrainSection:
        if (self.epochs is None) == (self.steps is None):
            raise ValueError("say the length once: either train.epochs or train.steps")
        if self.warmup_epochs is not None and self.warmup_steps is not None:
            raise ValueError("say the warm-up once: either train.warmup_epochs or train.warmup_steps")
        return self


class EngineSection(Section):
    """How the optimizer step is carried out."""

    name: Literal["deepspeed", "torch"] = free(
        "deepspeed", description="torch: a replica on each worker, gradients summed by one all-reduce a step."
    )
    zero_stage: Literal[0, 1, 2, 3] = free(1, description="deepspeed: what is sharded over the workers.")
    precision: Literal["bf16", "fp32"] = Field("bf16", description="bf16: fp32 parameters under bf16 autocast.")
    reduce_dtype: Literal["fp32", "bf16"] = Field("fp32", description="deepspeed: gradients on the wire.")
    activation_checkpointing: bool = free(
        False, description="Compute each block again in the backward pass: less memory, about a third more time."
    )
    compile: bool = free(False, description="torch.compile the model.")


class MaskResources(Section):
    """What the stage asks for that computes flow on its own; sources that run beside the decoder ask for nothing."""

    actors: Actors = free(1, description="Actors that compute flow; or [min, max].")
    gpus_per_actor: float = free(0.0, ge=0, le=1, description="Share of a GPU of each; 0: one CPU core of each.")
    accelerator: str | None = free(
        None, min_length=1, description="Only on machines of this accelerator type as Ray calls it, e.g. L4."
    )

    @model_validator(mode="after")
    def _accelerator_is_used(self) -> MaskResources:
        if self.accelerator is not None and not self.gpus_per_actor:
            raise ValueError(
                f"accelerator={self.accelerator} names machines for their GPUs, and gpus_per_actor=0 takes none;"
                " use gpus_per_actor=1, or accelerator=null"
            )
        return self


class ResourcesSection(Section):
    """What each stage asks of the cluster."""

    num_workers: Actors = free(
        1, description="Ray Train workers (ranks); or [min, max]: as many as the machines have room for."
    )
    use_gpu: bool | Literal["auto"] = free("auto", description="auto: when the cluster has or can get GPUs.")
    cpus_per_worker: float = free(1.0, gt=0, description="Cores of each worker, which are its torch threads as well.")
    train_gpus_per_worker: float = free(
        1.0, description="Share of a GPU of each worker, above 0.5; what is left is for resources.mask."
    )
    read_actors: int = free(
        1, ge=1, description="Actors that fetch bytes, a block at a time with 16 requests in flight."
    )
    decode_actors: Actors = free(
        1, description="Actors that decode, one core each; or [min, max]: as many as keep the trainers fed."
    )
    ranks_per_stream: int = free(
        8,
        ge=1,
        description="Workers that one Ray Data stream serves; more get further streams, which share the actors.",
    )
    mask: MaskResources = Field(default_factory=MaskResources, description="Actors of motion.source=raft.")
    decode_resources: dict[str, float] = free({}, description="Custom resources of a decode actor, e.g. {decode: 1}.")
    worker_resources: dict[str, float] = free({}, description="Custom resources of a train worker, e.g. {train: 1}.")
    max_padding: Annotated[float, Field(ge=0.0, lt=1.0)] = free(
        0.25, description="Largest share of a step that may be padding."
    )
    max_failures: int = free(
        10, ge=0, description="Failures within an hour, machines taken back not counted, before the run gives up."
    )
    worker_timeout_s: float = free(
        900.0, gt=0, description="Longest wait in a collective; a video that hangs makes one of 6 x data.deadline_s."
    )

    @field_validator("train_gpus_per_worker")
    @classmethod
    def _own_gpu(cls, value: float) -> float:
        if not 0.5 < value <= 1:
            raise ValueError(
                f"each worker trains on a GPU that no other one has, so it takes more than 0.5 and at most 1, got"
                f" {value:g}; use 0.75, which leaves 0.25 to resources.mask.gpus_per_actor, or 1"
            )
        return value


class CheckpointSection(Section):
    """When a run's state is kept, and for how long."""

    every_steps: int = free(
        500, ge=1, description="Steps between checkpoints: what an unannounced death costs at most."
    )
    keep: int = free(2, ge=1, description="Newest complete checkpoints that are kept.")
    keep_every_steps: int | None = free(None, ge=1, description="Checkpoints at multiples of this are never deleted.")


class TelemetrySection(Section):
    """What is written down about a run."""

    log_every_steps: int = free(10, ge=1, description="Steps between the lines of metrics.jsonl.")
    tensorboard: bool = free(True, description="Write TensorBoard's files as well.")
    picture_clips: int = free(4, ge=0, le=16, description="Clips on the picture at the end; 0: no picture.")
    report: bool = free(True, description="Write report.html into the run's folder at the end of a job.")
    price_per_hour: float | None = free(
        None, ge=0, description="Of all that the run holds, in any currency: its cost is then exported and summed up."
    )
    trackers: tuple[Literal["wandb", "mlflow"], ...] = free(
        (), description="Services that get the logged steps as well; keys and addresses are taken of the environment."
    )
    logs: Literal["auto", "text", "json"] = free(
        "auto", description="How lines are written; `auto`: as TUBELET_LOGS says, else as text."
    )


class ProbeSection(Section):
    """What checkpoints are probed with while the run goes on: nothing without `uri`. The training does not change."""

    uri: str | None = free(
        None, description="Labelled videos: a folder, a prefix, an index.parquet. Default: no probe."
    )
    labels: str = free("index", description="`index`, `folder`, or a list of `path label`.")
    test_uri: str | None = free(None, description="Videos to test on. Default: `test_share` of `uri`.")
    test_labels: str | None = free(None, description="Labels of test_uri. Default: those of `labels`.")
    test_share: Ratio = free(0.25, description="Share of each class of `uri` to test on, where there is no test_uri.")
    only_listed: bool = free(False, description="Leave out videos that a list does not name.")
    videos: int = free(256, ge=2, description="Most videos of each of the two sets, taken evenly from the classes.")
    every_steps: int = free(1, ge=1, description="The first checkpoint from each multiple on is probed; 1: each one.")
    kinds: tuple[Literal["knn", "linear"], ...] = free(
        ("knn",), min_length=1, description="Nearest neighbours, and a linear probe swept over learning rates."
    )
    views: str = free("1x1", pattern=VIEWS, description="CLIPSxCROPS of a training video.")
    test_views: str = free("1x1", pattern=VIEWS, description="CLIPSxCROPS of a test video.")
    sampling: Sampling = free("dense", description="How clips are taken from a video.")
    pool: Literal["mean", "slots"] = free("mean", description="slots: one mean for each slot of time.")
    cpus: int = free(
        0, ge=0, description="Cores that it asks for; 0: one thread of what the driver's machine has left."
    )
    gpus: float = free(0.0, ge=0, le=1, description="Share of a GPU that it asks for.")
    wait_s: float = free(600.0, ge=0, description="Longest wait for the last probe when the training is done.")
