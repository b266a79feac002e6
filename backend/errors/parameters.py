"""What is wrong with what a caller sent: fields, pictures, forms."""

from __future__ import annotations

from backend.errors.base import ServiceError


class InvalidParameter(ServiceError):
    """A parameter is outside its allowed range."""

    code = "INVALID_PARAMETER"


class InvalidResolution(InvalidParameter):
    """The octree resolution must be a whole number from 8 to 1024."""

    code = "INVALID_RESOLUTION"


class InvalidOctreeResolution(InvalidParameter):
    """octree_resolution must be a whole number from 16 to the service's MAX_OCTREE_RESOLUTION."""

    code = "INVALID_OCTREE_RESOLUTION"


class InvalidQuality(InvalidParameter):
    """The quality must be a whole number from 1 to 10."""

    code = "INVALID_QUALITY"


class InvalidSteps(InvalidParameter):
    """The number of inference steps must be a whole number of at least 1."""

    code = "INVALID_STEPS"


class InvalidGuidance(InvalidParameter):
    """The guidance scale must be a finite number of at least 0."""

    code = "INVALID_GUIDANCE_SCALE"


class InvalidAcceleration(InvalidParameter):
    """The acceleration must be one of none, balanced, fast."""

    code = "INVALID_ACCELERATION"


class InvalidSeed(InvalidParameter):
    """A seed must be a whole number from 0 to 2^32 - 1, one for each image, or -1 to have it drawn."""

    code = "INVALID_SEED"


class InvalidTargetFaces(InvalidParameter):
    """target_faces must be a whole number from 100 to 2 000 000, or none."""

    code = "INVALID_TARGET_FACES"


class InvalidScale(InvalidParameter):
    """scale_mm must be a number of millimetres from 0.1 to 10 000."""

    code = "INVALID_SCALE_MM"


class InvalidFormat(InvalidParameter):
    """The format must be one of glb, stl, obj, ply, 3mf, usdz, or several of them with commas between."""

    code = "INVALID_FORMAT"


class InvalidObjects(InvalidParameter):
    """objects must be one of all, largest."""

    code = "INVALID_OBJECTS"


class InvalidCandidates(InvalidParameter):
    """candidates must be a whole number from 1 to 8."""

    code = "INVALID_CANDIDATES"


class InvalidKeep(InvalidParameter):
    """keep must be one of best, all."""

    code = "INVALID_KEEP"


class InvalidPrompt(InvalidParameter):
    """prompt must be a text of 1 to 1000 characters without control characters."""

    code = "INVALID_PROMPT"


class InvalidImageSeed(InvalidParameter):
    """image_seed must be a whole number from -1 to 4294967295, beside a prompt."""

    code = "INVALID_IMAGE_SEED"


class PromptUnavailable(InvalidParameter):
    """Words alone make no mesh here: this service has no model that draws pictures. Send a picture."""

    code = "PROMPT_UNAVAILABLE"


class InvalidOutline(InvalidParameter):
    """outline must be one of auto, off."""

    code = "INVALID_OUTLINE"


class InvalidColor(InvalidParameter):
    """color must be one of auto, none, vertex, texture."""

    code = "INVALID_COLOR"


class InvalidPlace(InvalidParameter):
    """place must be one of ground, center, as_is."""

    code = "INVALID_PLACE"


class InvalidUpright(InvalidParameter):
    """upright must be one of auto, off."""

    code = "INVALID_UPRIGHT"


class InvalidCompress(InvalidParameter):
    """compress must be one of none, meshopt, draco."""

    code = "INVALID_COMPRESS"


class InvalidPreview(InvalidParameter):
    """preview must be true or false."""

    code = "INVALID_PREVIEW"


class InvalidTurntable(InvalidParameter):
    """turntable must be true or false."""

    code = "INVALID_TURNTABLE"


class InvalidBackgroundMode(InvalidParameter):
    """remove_background must be one of auto, always, never."""

    code = "INVALID_REMOVE_BACKGROUND"


class InvalidAsync(InvalidParameter):
    """async must be true or false."""

    code = "INVALID_ASYNC"


class InvalidWebhookUrl(InvalidParameter):
    """webhook_url must begin with one of the agent's prefixes: the same scheme, host and port, and whole segments."""

    code = "INVALID_WEBHOOK_URL"


class InvalidLabel(InvalidParameter):
    """A label has at most 200 characters, none of them a control character."""

    code = "INVALID_LABEL"


class InvalidAcceptPartial(InvalidParameter):
    """accept_partial must be true or false."""

    code = "INVALID_ACCEPT_PARTIAL"


class InvalidWait(InvalidParameter):
    """The seconds to wait must be a whole number from 1 to 60."""

    code = "INVALID_WAIT"


class InvalidStatus(InvalidParameter):
    """The status must be one or more of queued, processing, completed, failed, cancelled, with commas between."""

    code = "INVALID_STATUS"


class InvalidCursor(InvalidParameter):
    """The cursor is not one that a page of jobs gave."""

    code = "INVALID_CURSOR"


class InvalidLimit(InvalidParameter):
    """The limit must be a whole number from 1 to 100."""

    code = "INVALID_LIMIT"


class InvalidIdempotencyKey(InvalidParameter):
    """Idempotency-Key must be one header of 1 to 128 printable ASCII characters without spaces and commas."""

    code = "INVALID_IDEMPOTENCY_KEY"


class InvalidForm(InvalidParameter):
    """The body is not a readable form, in multipart or JSON."""

    code = "INVALID_FORM"


class UnknownField(InvalidParameter):
    """This call does not know a field of the form, or a parameter of the query."""

    code = "UNKNOWN_FIELD"


class MissingImage(InvalidParameter):
    """At least one image is needed."""

    code = "MISSING_IMAGE"


class TooFewImages(InvalidParameter):
    """A batch needs at least 2 pictures."""

    code = "TOO_FEW_IMAGES"


class TooManyImages(InvalidParameter):
    """A batch takes at most 10 pictures, and a single request exactly one."""

    code = "TOO_MANY_IMAGES"


class ConflictingInputs(InvalidParameter):
    """One object is made of exactly one of these: one image, several views, or a prompt."""

    code = "CONFLICTING_INPUTS"


class ViewsUnsupported(InvalidParameter):
    """The model takes one picture of an object, not several views of it."""

    code = "VIEWS_UNSUPPORTED"


class InvalidImage(InvalidParameter):
    """The file is not a readable picture."""

    code = "INVALID_IMAGE"


class ImageUrlRefused(InvalidParameter):
    """Its address is not one that is fetched here: https, port 443, a public host, and allowed by IMAGE_URLS."""

    code = "IMAGE_URL_REFUSED"


class ImageUrlFailed(ServiceError):
    """Nothing could be fetched from its address."""

    code = "IMAGE_URL_FAILED"


class UnsupportedImage(ServiceError):
    """The picture's format is not supported; send PNG, JPEG, MPO, WebP, AVIF, GIF, BMP or TIFF."""

    code = "UNSUPPORTED_IMAGE"


class UnsupportedMediaType(ServiceError):
    """Send the request as multipart/form-data, or as application/json with the picture in base64."""

    code = "UNSUPPORTED_MEDIA_TYPE"


class FileTooLarge(ServiceError):
    """The upload is larger than the service takes."""

    code = "FILE_TOO_LARGE"


class LengthRequired(ServiceError):
    """This server cannot read a body without a length; send it with a Content-Length."""

    code = "LENGTH_REQUIRED"
