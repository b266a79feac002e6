"""Images to meshes, as one visible algorithm: preprocess, encode, sample, decode, build the meshes.

What goes wrong with one image stays with it. This module does not know of jobs, of files to be written, or how a
checkpoint is read.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TypeVar

import torch
from PIL import Image
from torch import Tensor

from backend.errors import CheckpointKeyError, InvalidImage, InvalidParameter, OutOfMemory, ServiceError
from backend.hunyuan3d.acceleration import evaluated_steps, integrate, needed_steps
from backend.hunyuan3d.batches import (
    Batches,
    Indices,
    PartProgress,
    Progress,
    StageProgress,
    WholeBatches,
    by_stage,
    for_images,
)
from backend.hunyuan3d.checkpoint.load import Checkpoint, Denoiser, load_checkpoint
from backend.hunyuan3d.device.choice import resolve_device, resolve_dtype
from backend.hunyuan3d.device.offload import Offloading
from backend.hunyuan3d.device.transfer import Upload, joined, upload
from backend.hunyuan3d.finishing import Outcome, PendingShape, build_meshes, in_parallel
from backend.hunyuan3d.image.image_processor import ImageBatch, ImageInput, as_list
from backend.hunyuan3d.image.outline import Outline
from backend.hunyuan3d.memory_errors import named_memory_errors
from backend.hunyuan3d.options import (
    BackgroundModes,
    GenerationOptions,
    ImageOptions,
    Seeds,
    TargetFaces,
    check_seeds,
    image_options,
)
from backend.hunyuan3d.preprocess import (
    MaybePrepared,
    Prepared,
    PreparedImage,
    ViewIndices,
    batches_of_same_views,
    prepare_each,
    prepare_image,
    prepare_or_error,
    stack,
    unique_rows,
    view_rows,
    with_background,
)
from backend.hunyuan3d.results import ShapeMetadata, ShapeResult, Stopwatch
from backend.hunyuan3d.volume.decode import DecodeOptions, Reshape, decode_volume
from backend.hunyuan3d.volume.host_copy import to_main_memory
from backend.hunyuan3d.volume.outline import FollowOutlines
from backend.limits import (
    DEFAULT_ACCELERATION,
    DEFAULT_OUTLINE,
    Acceleration,
    BackgroundMode,
    ObjectChoice,
    OutlineMode,
)

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Sampled:
    """One image's latents (N, E) float32, on the device.

    metadata : what was done for it so far. outline : where the shape is to end; None where the network says.
    """

    latents: Tensor
    metadata: ShapeMetadata
    outline: Outline | None = None


class Hunyuan3DShapePipeline:
    """A loaded model. Its stages can be called one by one, or all at once through `__call__`.

    The callbacks on_step and on_progress get (done, total) with done rising to total. What they raise cancels the work:
    it reaches the caller, and the pipeline stays usable.
    """

    def __init__(self, checkpoint: Checkpoint, device: torch.device, dtype: torch.dtype) -> None:
        self.name = checkpoint.name
        self.config = checkpoint.config
        self.denoiser: Denoiser = checkpoint.denoiser
        self.shape_vae = checkpoint.vae
        self.conditioner = checkpoint.conditioner
        self.scheduler = checkpoint.config.scheduler
        self.image_processor = checkpoint.config.image_processor
        self.device = device
        self.dtype = dtype
        self.decode_options = DecodeOptions()
        waiting = [checkpoint.vae, checkpoint.conditioner] if checkpoint.offloaded else []
        self.offloading = Offloading([network for network in waiting if network is not None], device)

    @classmethod
    def from_pretrained(
        cls,
        path_or_repo: str | Path,
        subfolder: str | None = None,
        device: str | torch.device | None = None,
        dtype: str | torch.dtype | None = None,
        *,
        vae: str | Path | None = None,
        offload: Callable[[int], bool] = lambda _: False,
    ) -> Hunyuan3DShapePipeline:
        """Load a local folder, a short name (checkpoint.files.SHORT_NAMES, 'demo') or a hub repository.

        device : default CUDA, MPS or CPU, whichever is there. dtype : default float32 on the CPU, else half.
        vae : a separate VAE folder or repository in place of the checkpoint's own. offload : given the bytes of all
        weights, says whether image encoder and ShapeVAE are on the device for their stages only.

        Raises CheckpointError.
        """
        resolved = resolve_device(device)
        precision = resolve_dtype(dtype, resolved)
        checkpoint = load_checkpoint(
            path_or_repo, subfolder, vae=vae, device=resolved, dtype=precision, offload=offload
        )
        return cls(checkpoint, resolved, precision)

    def preprocess(
        self, images: ImageInput | Sequence[ImageInput], remove_background: BackgroundMode = "never"
    ) -> ImageBatch:
        """Bring images, or mappings of views, to one batch. Raises the first one's InvalidImage or NoForeground."""
        return stack([prepare_image(item, self.image_processor, remove_background) for item in as_list(images)])

    def prepare_images(
        self, images: Sequence[ImageInput], remove_background: Sequence[BackgroundMode], objects: Sequence[ObjectChoice]
    ) -> list[PreparedImage | ServiceError]:
        """Preprocess every image by itself and begin to upload it; what comes of it may be given to prepare_shapes.

        remove_background, objects : one for each. Any thread may call it while others use the device.
        """
        prepare = partial(prepare_or_error, processor=self.image_processor)
        opened = in_parallel(prepare, images, remove_background, objects)
        return [self._uploading(image) if isinstance(image, PreparedImage) else image for image in opened]

    def prepare_shapes(self, images: Sequence[MaybePrepared], options: Sequence[ImageOptions]) -> list[Prepared]:
        """Preprocess every image by itself, once where the same object is given again. options : one for each image."""
        watch = Stopwatch(self.device)
        with watch.stage("preprocess"):
            opened = prepare_each(
                images,
                options,
                self.image_processor,
                may_follow=self.config.defaults.view_aligned,
                bounds=self.decode_options.bounds,
            )
        return [
            Prepared(image, own, with_background(self._wanted(own), image, unused).after(watch), outline)
            for own, (image, outline, unused) in zip(options, opened, strict=True)
        ]

    def sample_and_decode(
        self,
        prepared: Sequence[Prepared],
        options: GenerationOptions,
        report: PartProgress | None = None,
        batches: Batches | None = None,
    ) -> list[PendingShape]:
        """Turn prepared images into fields, off the device, in order; an image that cannot go on keeps its error.

        batches : how the images are put on the device; all of the same views at once when None, which raises
        OutOfMemory. Latents are kept until they are decoded, so that no denoising step is taken twice.
        """
        batches = batches or WholeBatches(self.decode_options)

        def sample(part: Indices) -> list[Sampled]:
            return self.sample_shapes([prepared[k] for k in part], options, for_images(part, report))

        pending = refused(prepared)
        for indices in batches_of_same_views(prepared):
            for part, sampled in batches.run("sample", indices, sample):
                if isinstance(sampled, OutOfMemory):
                    pending.update((k, _lost(sampled, prepared[k].metadata, batches)) for k in part)
                else:
                    latents = dict(zip(part, sampled, strict=True))
                    pending.update(self._decode_parts(latents, options, report, batches))
        aligned = self.config.defaults.view_aligned
        return [replace(pending[k], cutout=_cutout(prepared[k].image), view_aligned=aligned) for k in sorted(pending)]

    def sample_shapes(
        self, prepared: Sequence[Prepared], options: GenerationOptions, report: StageProgress | None = None
    ) -> list[Sampled]:
        """Encode and denoise usable images of the same views as one batch. Raises OutOfMemory."""
        batch = stack([item.image for item in prepared])
        watch = Stopwatch(self.device)
        with watch.stage("encode"):
            uploads = [item.image.uploaded for item in prepared if isinstance(item.image, PreparedImage)]
            cond = self.encode_images(batch.image, batch.view_indices, uploads)
        if report is not None:
            report("encode", 1, 1)
        with watch.stage("sample"):
            noise = self._draw_noise([item.options.seed for item in prepared])
            latents = self.denoise(cond, noise, options, partial(report, "sample") if report else None)
        made = len(evaluated_steps(self.scheduler, options))
        ran = [replace(item.metadata, batch_size=len(prepared), evaluations=made).after(watch) for item in prepared]
        outlines = [item.outline for item in prepared]
        return [Sampled(*each) for each in zip(latents, ran, outlines, strict=True)]

    def decode_shapes(
        self,
        sampled: Sequence[Sampled],
        options: GenerationOptions,
        report: StageProgress | None = None,
        decode_options: DecodeOptions | None = None,
    ) -> list[PendingShape]:
        """Find the fields of a batch and take them off the device, which is then free. Raises OutOfMemory."""
        watch = Stopwatch(self.device)
        with watch.stage("decode"), named_memory_errors():
            latents = torch.stack([item.latents for item in sampled])
            on_level = partial(report, "decode") if report else None
            follow = FollowOutlines([item.outline for item in sampled])
            volumes = self.decode_volumes(latents, options.octree_resolution, on_level, decode_options, follow)
            found = to_main_memory(volumes)
        done = [replace(item.metadata, outline=follow.facts.get(k)).after(watch) for k, item in enumerate(sampled)]
        return [PendingShape(*each) for each in zip(found, done, strict=True)]

    @property
    def takes_views(self) -> bool:
        """Whether the model takes several views of an object."""
        return self.conditioner is not None and self.conditioner.takes_views

    @torch.no_grad()
    def encode_images(
        self, image: Tensor, view_indices: ViewIndices | None = None, uploads: Sequence[Upload | None] = ()
    ) -> Tensor:
        """Turn images into context tokens; encode identical ones once.

        image : (B, 3, S, S), or (B, V, 3, S, S) with the V views' indices, in [-1, 1]. uploads : the same images,
        (1, ...) each, where they are on their way to the device; used when all are. Returns cond (B, T, D).
        """
        if self.conditioner is None:
            raise CheckpointKeyError(f"{self.name} has no conditioner section: it can only sample from given cond.")
        image = image[None] if image.dim() == 3 else image
        views = image.dim() == 5
        if image.dim() not in (4, 5) or image.shape[-3] != 3 or (views and not self.conditioner.takes_views):
            raise InvalidImage(f"The conditioner cannot take pictures of shape {tuple(image.shape)}.")
        rows = view_rows(view_indices, len(image), image.shape[1]) if views else None
        first, inverse = unique_rows(image, rows)
        on_the_way = [each for k in first if k < len(uploads) and (each := uploads[k]) is not None]
        with named_memory_errors(), self.offloading.using(self.conditioner):
            chosen = joined(on_the_way) if len(on_the_way) == len(first) else image[first]
            cond: Tensor = self.conditioner(chosen.to(self.device), [rows[k] for k in first] if rows else None)
        return cond[inverse]

    @torch.no_grad()
    def sample_latents(
        self,
        cond: Tensor,
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        noise: Tensor | None = None,
        seeds: Seeds | None = None,
        on_step: Progress | None = None,
    ) -> Tensor:
        """Check what is given and denoise it; what is None is the checkpoint's own.

        cond : (B, T, D). noise : (B, N, E), else drawn from `seeds`, one generator an image. Returns latents as
        `denoise` does. Raises InvalidParameter, OutOfMemory.
        """
        options = self.options(num_inference_steps, guidance_scale)
        x = self.initial_noise(len(cond), seeds) if noise is None else self._given_noise(noise, len(cond))
        return self.denoise(cond, x, options, on_step)

    @torch.no_grad()
    def denoise(
        self, cond: Tensor, noise: Tensor, options: GenerationOptions, on_step: Progress | None = None
    ) -> Tensor:
        """Go from noise at time 0 to latents at time 1.

        cond : (B, T, D). noise : (B, N, E) float32, on the device. Returns latents (B, N, E) float32, before division
        by the scale factor. Formulas: docs/model.md, section 6, and acceleration.py. Raises OutOfMemory.
        """
        steps, guidance = self.scheduler.steps(options.num_inference_steps), options.guidance_scale
        # At scale 1 the two branches' sum is the conditional branch alone.
        classifier_free = not self.denoiser.guidance_embed and guidance != 1
        times = torch.tensor([step.t for step in steps], device=self.device)
        embedded = torch.tensor([guidance], device=self.device)
        with named_memory_errors():
            context = self.denoiser.prepare(cond.to(self.device, self.dtype), classifier_free=classifier_free)

            def velocity(x: Tensor, index: int) -> Tensor:
                v = self.denoiser.velocity(x, times[index], context, embedded).float()
                return guided(v, guidance) if classifier_free else v

            return integrate(noise, steps, evaluated_steps(self.scheduler, options), velocity, on_step)

    def initial_noise(self, count: int, seeds: Seeds | None = None) -> Tensor:
        """Draw the noise of `count` images, (B, N, E) float32, as strong as the checkpoint says. Raises InvalidSeed.

        Each image has a generator of its own, on the CPU, so that its noise depends on neither batch nor device.
        """
        return self._draw_noise(check_seeds(seeds, count))

    @torch.no_grad()
    def decode_volumes(
        self,
        latents: Tensor,
        octree_resolution: int,
        on_progress: Progress | None = None,
        decode_options: DecodeOptions | None = None,
        reshape: Reshape | None = None,
    ) -> list[Outcome]:
        """Turn latents (B, N, E) into each image's field near its surface, or that image's NonFiniteValues.

        decode_options : how the field is searched; self.decode_options when None. reshape : as decode_volume's.
        Raises InvalidResolution, OutOfMemory.
        """
        with named_memory_errors(), self.offloading.using(self.shape_vae):
            field = self.shape_vae.field(self.shape_vae.decode(latents.to(self.device)))
            chosen = decode_options or self.decode_options
            return decode_volume(field, octree_resolution, chosen, on_progress, reshape)

    def __call__(
        self,
        images: ImageInput | Sequence[ImageInput],
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        seeds: Seeds | None = None,
        octree_resolution: int | None = None,
        target_faces: TargetFaces = None,
        remove_background: BackgroundModes = "auto",
        on_step: Progress | None = None,
        on_progress: Progress | None = None,
        acceleration: Acceleration = DEFAULT_ACCELERATION,
        outline: OutlineMode = DEFAULT_OUTLINE,
    ) -> list[ShapeResult]:
        """Make one mesh of every image, cleaned and, with target_faces, decimated.

        images : images, or mappings of views for a multi-view model. seeds, target_faces, remove_background : one for
        all or one for each. outline : as ImageOptions'. Returns one result each, in order: a mesh in world units (box
        ±1.01, Y up), or that image's error. Raises InvalidParameter, MissingImage, OutOfMemory.
        """
        items = as_list(images)
        generation = self.options(num_inference_steps, guidance_scale, octree_resolution, acceleration)
        options = image_options(generation, len(items), seeds, target_faces, remove_background, outline=outline)
        prepared = self.prepare_shapes(items, options)
        pending = self.sample_and_decode(prepared, generation, by_stage(on_step, on_progress))
        return build_meshes(pending)

    def options(
        self,
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        octree_resolution: int | None = None,
        acceleration: Acceleration = DEFAULT_ACCELERATION,
    ) -> GenerationOptions:
        """Return what is asked for, with the checkpoint's defaults in the gaps. Raises InvalidParameter."""
        defaults = self.config.defaults
        return GenerationOptions(
            _given(num_inference_steps, defaults.num_inference_steps),
            _given(guidance_scale, defaults.guidance_scale),
            _given(octree_resolution, defaults.octree_resolution),
            acceleration,
        )

    def _wanted(self, options: ImageOptions) -> ShapeMetadata:
        """Return what is known of an image before anything is done for it."""
        generation = options.generation
        return ShapeMetadata(
            self.name,
            batch_size=0,
            seed=options.seed,
            num_inference_steps=generation.num_inference_steps,
            guidance_scale=generation.guidance_scale,
            octree_resolution=generation.octree_resolution,
            acceleration=generation.acceleration,
            evaluations_needed=len(needed_steps(self.scheduler, generation.num_inference_steps)),
            target_faces=options.target_faces,
            objects=options.objects,
        )

    def _decode_parts(
        self,
        sampled: Mapping[int, Sampled],
        options: GenerationOptions,
        report: PartProgress | None,
        batches: Batches,
    ) -> dict[int, PendingShape]:
        """Decode sampled images, by their index in the call."""

        def decode(part: Indices) -> list[PendingShape]:
            own = [sampled[k] for k in part]
            return self.decode_shapes(own, options, for_images(part, report), batches.decode_options)

        pending: dict[int, PendingShape] = {}
        for part, shapes in batches.run("decode", tuple(sampled), decode):
            if isinstance(shapes, OutOfMemory):
                pending.update((k, _lost(shapes, sampled[k].metadata, batches)) for k in part)
            else:
                pending.update(
                    (k, shape.with_fallbacks(batches.fallbacks)) for k, shape in zip(part, shapes, strict=True)
                )
        return pending

    def _uploading(self, image: PreparedImage) -> PreparedImage:
        return replace(image, uploaded=upload(image.batch.image, self.device))

    def _draw_noise(self, seeds: Sequence[int]) -> Tensor:
        shape = self.shape_vae.latent_shape
        drawn = [torch.randn(shape, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
        return (torch.stack(drawn) * self.config.defaults.noise_scale).to(self.device)

    def _given_noise(self, noise: Tensor, count: int) -> Tensor:
        wanted = (count, *self.shape_vae.latent_shape)
        if noise.shape != wanted:
            raise InvalidParameter(f"The noise must have shape {wanted}, not {tuple(noise.shape)}.")
        return noise.to(self.device, torch.float32)


def refused(prepared: Sequence[Prepared]) -> dict[int, PendingShape]:
    """Return the images that cannot go on the device, by index, with what is wrong with them."""
    wrong = ((index, item.image, item.metadata) for index, item in enumerate(prepared))
    return {index: PendingShape(error, facts) for index, error, facts in wrong if isinstance(error, ServiceError)}


def guided(v: Tensor, scale: float) -> Tensor:
    """Compute v_u + scale (v_c - v_u), v : (2B, N, E), the conditional rows first -> (B, N, E)."""
    conditional, unconditional = v.chunk(2)
    return unconditional + scale * (conditional - unconditional)


def _lost(error: OutOfMemory, metadata: ShapeMetadata, batches: Batches) -> PendingShape:
    """Give up an image that does not fit on the device even alone."""
    return PendingShape(error, metadata).with_fallbacks(batches.fallbacks)


def _cutout(image: PreparedImage | ServiceError) -> Image.Image | None:
    return None if isinstance(image, ServiceError) else image.cutout


def _given(value: T | None, default: T) -> T:
    return default if value is None else value
