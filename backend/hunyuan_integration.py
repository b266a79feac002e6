"""The door to the model: `get_3d_processor` gives this process's one processor, loaded, bounded and measured.

Knows the settings that choose a model and a device. Knows nothing of jobs, batches of jobs or files.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn

from backend.config import Settings
from backend.errors import (
    CheckpointError,
    ConfigurationError,
    InvalidParameter,
    OutOfMemory,
    PromptUnavailable,
    ServiceError,
)
from backend.hunyuan3d.checkpoint.config import PipelineDefaults
from backend.hunyuan3d.device.background_compile import BackgroundCompile
from backend.hunyuan3d.device.batch_sizing import BatchSizer, measure_costs
from backend.hunyuan3d.device.choice import resolve_device
from backend.hunyuan3d.device.compile import CompiledPieces, compiler_missing, keep_compiled_in
from backend.hunyuan3d.device.graphs import GRAPHED_TOKENS, GraphedDenoiser
from backend.hunyuan3d.device.memory import DeviceMemory, DeviceState, memory_of
from backend.hunyuan3d.device.offload import wants_offload
from backend.hunyuan3d.device.rehearsal import rehearse
from backend.hunyuan3d.finishing import draw_ball
from backend.hunyuan3d.image.image_processor import ImageInput
from backend.hunyuan3d.memory_errors import is_out_of_memory, named_memory_errors
from backend.hunyuan3d.mesh.export import export_mesh
from backend.hunyuan3d.networks.fp8 import fp8_missing, quantise_denoiser
from backend.hunyuan3d.pipeline import Hunyuan3DShapePipeline
from backend.hunyuan3d.preprocess import PreparedImage
from backend.hunyuan3d.results import ShapeMetadata, ShapeResult
from backend.limits import DEFAULT_FORMAT, BackgroundMode, ObjectChoice
from backend.text_to_image import TextToImage

if TYPE_CHECKING:
    from backend.batch_inference_extension import ShapeBatch

logger = logging.getLogger(__name__)

# The octree resolution at which decoding is measured: as fine as is done in a second or two.
_PROBED_RESOLUTIONS = {"cpu": 64}
_PROBED_RESOLUTION = 256


@dataclass(frozen=True)
class ModelChoice:
    """The settings that decide which processor it is."""

    model_path: str
    model_subfolder: str
    device: str
    dtype: str
    gpu_memory_limit: float
    torch_compile: str
    offload: str
    max_batch_size: int
    compiled_dir: Path
    text_to_image_model: str = ""

    @classmethod
    def from_settings(cls, settings: Settings) -> ModelChoice:
        """Return what the settings choose."""
        return cls(
            settings.model_path,
            settings.model_subfolder,
            settings.device,
            settings.dtype,
            settings.gpu_memory_limit,
            settings.torch_compile,
            settings.offload,
            settings.max_batch_size,
            settings.compiled_dir,
            settings.text_to_image_model,
        )


@dataclass(frozen=True)
class Rehearsal:
    """What a run of the warm-up was, and how long its files took to make, seconds; 0 for one that came to nothing."""

    metadata: ShapeMetadata
    finish: float


class Hunyuan3DProcessor:
    """A loaded model on its device. `generate_shape_batch` is there after add_batch_inference_to_processor."""

    generate_shape_batch: ShapeBatch

    def __init__(self, pipeline: Hunyuan3DShapePipeline, memory: DeviceMemory, max_batch_size: int) -> None:
        self.pipeline = pipeline
        self.memory = memory
        self.sizer = BatchSizer(memory, max_batch_size)
        # Held by whoever runs a batch, and while the network that runs it is changed.
        self.device_lock = threading.Lock()
        self.compiling: BackgroundCompile | None = None
        self.rehearsals: Sequence[Rehearsal] = ()
        self.text_to_image: TextToImage | None = None

    @property
    def compiled(self) -> bool:
        """Whether batches run compiled; false while compiling is still going on, or was given up."""
        return self.compiling is not None and self.compiling.is_used

    def compile(self, pieces: CompiledPieces) -> None:
        """Compile in the background what is run for a batch, and use it once all of it is there."""
        self.compiling = BackgroundCompile(self.pipeline, pieces, self.device_lock, self._use_graphs)
        self.compiling.start()

    def _use_graphs(self) -> None:
        if self.pipeline.device.type == "cuda":
            self.pipeline.denoiser = GraphedDenoiser(self.pipeline.denoiser, GRAPHED_TOKENS)

    @property
    def name(self) -> str:
        """The model's name, as results' metadata has it."""
        return self.pipeline.name

    @property
    def defaults(self) -> PipelineDefaults:
        """What the checkpoint says where a request says nothing: num_inference_steps, guidance_scale and so on."""
        return self.pipeline.config.defaults

    @property
    def takes_views(self) -> bool:
        """Whether the model takes several views of an object."""
        return self.pipeline.takes_views

    def device_state(self) -> DeviceState:
        """Return the device and its memory now. Raises what the device's driver raises when it answers no more."""
        return self.memory.state()

    def batch_capacity(self, octree_resolution: int) -> int:
        """How many pictures fit together now, at least 1, at most the processor's max_batch_size."""
        return self.sizer.capacity(octree_resolution)

    @property
    def prepares_ahead(self) -> bool:
        """Whether images are better prepared beside a running batch: on the CPU the two would share the cores."""
        return self.pipeline.device.type != "cpu"

    def prepare_images(
        self, images: Sequence[ImageInput], remove_background: Sequence[BackgroundMode], objects: Sequence[ObjectChoice]
    ) -> list[PreparedImage | ServiceError | None]:
        """Prepare images for generate_shape_batch, on any thread; None for one for which memory was short just now."""
        prepared = self.pipeline.prepare_images(images, remove_background, objects)
        return [None if isinstance(each, OutOfMemory) else each for each in prepared]

    def draw_image(self, prompt: str, seed: int) -> bytes:
        """Return a picture of a prompt as PNG, drawn while no batch runs.

        Raises PromptUnavailable without a model that draws, CheckpointError, OutOfMemory.
        """
        if self.text_to_image is None:
            raise PromptUnavailable
        with self.device_lock:
            return self.text_to_image.draw(prompt, seed)

    def warm_up(self) -> None:
        """Run drawn pictures, so that the first request need not wait; measure what one more and what each stage takes.

        Raises OutOfMemory when not even one fits.
        """
        resolution = _PROBED_RESOLUTIONS.get(self.pipeline.device.type, _PROBED_RESOLUTION)
        self.sizer.costs = measure_costs(self.pipeline, self.memory, resolution)
        self.memory.release()
        export_mesh(draw_ball(), "glb")
        results = rehearse(self.pipeline, sorted({resolution, self.defaults.octree_resolution}))
        # The finest shows what its files take; a coarse one's would be of little use beside it.
        self.rehearsals = [
            Rehearsal(result.metadata, _finish_seconds(result) if result is results[-1] else 0.0) for result in results
        ]
        self.memory.release()


def _finish_seconds(result: ShapeResult) -> float:
    """Return how long it takes to make the files that a request gets when it asks for nothing else."""
    from backend.rendering.outputs import OutputOptions, make_outputs

    started = time.perf_counter()
    if result.ok:
        make_outputs(result, OutputOptions((DEFAULT_FORMAT,)))
    return time.perf_counter() - started if result.ok else 0.0


class ProcessorCache:
    """One processor for each choice in each process. Threads that ask for one while it is loaded wait for it."""

    def __init__(self, load: Callable[[ModelChoice], Hunyuan3DProcessor]) -> None:
        self._load = load
        self._lock = threading.Lock()
        self._loaded: dict[tuple[int, ModelChoice], Hunyuan3DProcessor] = {}

    def get(self, choice: ModelChoice) -> Hunyuan3DProcessor:
        """Return the choice's processor. A load that failed raises and is tried again at the next call."""
        # A forked child must not use its parent's: neither CUDA nor torch's threads survive a fork.
        key = os.getpid(), choice
        with self._lock:
            if key not in self._loaded:
                self._loaded[key] = self._load(choice)
            return self._loaded[key]


def get_3d_processor(settings: Settings | None = None) -> Hunyuan3DProcessor:
    """Return this process's processor for these settings (the environment's when None), loaded and warmed up at first.

    Raises ConfigurationError for a device that is not here, CheckpointError, OutOfMemory.
    """
    settings = settings or Settings.from_environment(os.environ)
    return _PROCESSORS.get(ModelChoice.from_settings(settings))


def load_processor(choice: ModelChoice) -> Hunyuan3DProcessor:
    """Load the model, bound its device's memory, compile it where asked, warm it up. Raises as get_3d_processor."""
    device = _device(choice.device)
    compiles = _compiles(choice.torch_compile, device)
    if compiles:
        keep_compiled_in(choice.compiled_dir)
    with named_memory_errors():
        try:
            # Before the weights are: they are to stay within the limit too.
            memory = memory_of(device, choice.gpu_memory_limit)
            pipeline = _pipeline(choice, device, memory)
        except (RuntimeError, OSError) as failure:
            if is_out_of_memory(failure):
                raise
            raise CheckpointError(f"{choice.model_path} cannot be loaded on {device}: {failure}") from failure
    processor = Hunyuan3DProcessor(pipeline, memory, choice.max_batch_size)
    if choice.text_to_image_model:
        processor.text_to_image = TextToImage(choice.text_to_image_model, device, pipeline.dtype, memory)
    processor.warm_up()
    if compiles:
        processor.compile(CompiledPieces(_networks(pipeline)))
    return processor


def _compiles(asked: str, device: torch.device) -> bool:
    """Whether to compile: where `on` cannot be had, that is said once."""
    if asked == "off" or (asked == "auto" and device.type != "cuda"):
        return False
    missing = compiler_missing(device)
    if missing is not None:
        log = logger.warning if asked == "on" else logger.info
        log("The model is not compiled (TORCH_COMPILE=%s): %s.", asked, missing)
    return missing is None


def _networks(pipeline: Hunyuan3DShapePipeline) -> list[nn.Module]:
    """Return the networks whose pieces are compiled."""
    return [network for network in (pipeline.denoiser, pipeline.shape_vae) if isinstance(network, nn.Module)]


def _pipeline(choice: ModelChoice, device: torch.device, memory: DeviceMemory) -> Hunyuan3DShapePipeline:
    fp8 = choice.dtype == "fp8"
    why = fp8_missing(device) if fp8 else None
    if why is not None:
        raise ConfigurationError(f"DTYPE=fp8 cannot be used: {why}.")
    dtype = None if choice.dtype == "auto" or fp8 else choice.dtype
    pipeline = Hunyuan3DShapePipeline.from_pretrained(
        choice.model_path,
        choice.model_subfolder or None,
        device=device,
        dtype=dtype,
        offload=lambda weights: _offloads(choice.offload, device, weights, memory),
    )
    if fp8:
        quantise_denoiser(pipeline.denoiser)
    folder = Path(choice.model_path).expanduser()
    if folder.exists():
        # The name is told to agents; where a folder lies on this machine is not theirs to know.
        pipeline.name = folder.resolve().name
    return pipeline


def _offloads(mode: str, device: torch.device, weights: int, memory: DeviceMemory) -> bool:
    """Decide whether networks wait in main memory, which is also a CPU's and Apple's GPU's, and say so."""
    if device.type != "cuda" or not wants_offload(mode, weights, memory.state().memory_free):
        return False
    logger.info("Image encoder and ShapeVAE wait in main memory between their stages (OFFLOAD=%s).", mode)
    return True


def _device(name: str) -> torch.device:
    try:
        return resolve_device(None if name == "auto" else name)
    except InvalidParameter as failure:
        raise ConfigurationError(f"DEVICE={name} cannot be used: {failure.message}") from failure


_PROCESSORS = ProcessorCache(load_processor)
