# SPDX-License-Identifier: Apache-2.0
"""Why a part has no verdict, or a model no place here. grpc_errors maps this tree to status codes, once."""


class InferenceRefused(Exception):
    """Something that this service will not do, told to the caller. `reason` is one of NotInspected's reasons."""

    reason = "internal"


class PartRefused(InferenceRefused):
    """The part can't be judged; asking again with the same part is no use."""


class UnreadableImage(PartRefused):
    """Not a whole JPEG or PNG."""

    reason = "unreadable_image"


class ImageTooLarge(PartRefused):
    """More bytes or pixels than the limit."""

    reason = "image_too_large"


class WrongShape(PartRefused):
    """Another kind, size, type or number of values than the model's package says."""

    reason = "wrong_shape"


class NotFinite(PartRefused):
    """A NaN or an infinite value."""

    reason = "not_finite"


class FrozenChannel(PartRefused):
    """A sensor that repeats itself where it can't."""

    reason = "frozen_channel"


class UnknownRegime(PartRefused):
    """Operating conditions that the model was not trained for."""

    reason = "unknown_regime"


class ModelNotFound(InferenceRefused):
    """No such model, or no such version of it."""

    reason = "model_not_found"


class Busy(InferenceRefused):
    """Every worker is busy and the queue is full."""

    reason = "busy"


class NotServing(InferenceRefused):
    """Models are loading, or the server is stopping."""

    reason = "inference_unavailable"


class DeadlinePassed(InferenceRefused):
    """The caller's budget ran out before a worker was free."""

    reason = "deadline"


class PackageRefused(InferenceRefused):
    """The model package does not hold; the one that served before stays."""

    reason = "package_refused"


class ModelFault(Exception):
    """The graph failed or gave values that are no answer, such as NaN: a bug of the package, never a verdict."""
