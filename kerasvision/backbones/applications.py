"""How nets of keras.applications come to stand on a given tensor; the families are in the files beside this one.

The application is built once on an input of its own, so that its graph is complete and its ImageNet weights load. Then
it is transplanted: every layer is made again on our tensor, flat, under a name that does not depend on what was built
before. Graphs and weights are those of keras.applications.
"""

import inspect
import re
from collections.abc import Callable, Mapping
from typing import Any

import keras
from keras import layers

from kerasvision.errors import WeightsError
from kerasvision.layers.attention import attend, multi_head_self_attention
from kerasvision.preprocessing import Preprocessing
from kerasvision.registry import Weights

# What keras.applications calls "tf" and "torch" style, on pixels of 0..255.
SIGNED_RANGE = Preprocessing(scale=(1 / 127.5,), offset=(-1.0,), fit="crop", crop_fraction=0.875)
STANDARDIZED = Preprocessing(
    scale=tuple(1 / (255 * deviation) for deviation in (0.229, 0.224, 0.225)),
    offset=(-0.485 / 0.229, -0.456 / 0.224, -0.406 / 0.225),
    fit="crop",
    crop_fraction=0.875,
)
# Its "caffe" style is BGR pixels minus these means; `turn_to_rgb` lets the kernel take RGB.
RGB_MINUS_MEANS = Preprocessing(scale=(1.0,), offset=(-123.68, -116.779, -103.939), fit="crop", crop_fraction=0.875)


def imagenet(
    folder: str,
    preprocessing: Preprocessing,
    *,
    parameters: int,
    top1: float,
    top5: float | None = None,
    license: str = "Apache-2.0",
    recipe: str = "https://keras.io/api/applications/",
) -> Weights:
    """The registry's description of ImageNet weights that keras.applications publishes.

    Args:
        folder: below the folder of all applications.
        preprocessing: what the weights were trained with.
        parameters: number of parameters with 1000 classes, hidden preprocessing not counted.
        top1: published accuracy.
        top5: published accuracy, where there is one.
        license: SPDX identifier of the weights.
        recipe: where the figures stand, a URL.
    """
    return Weights(
        source=f"https://storage.googleapis.com/{folder}/",
        sha256=None,
        preprocessing=preprocessing,
        classes=1000,
        parameters=parameters,
        metrics={"imagenet_top1": top1, **({} if top5 is None else {"imagenet_top5": top5})},
        recipe=recipe,
        license=license,
    )


def build(application: Callable[..., keras.Model], x: Any, weights: str | None, **arguments: Any) -> keras.Model:
    """The application on an input of its own, of the shape of ours.

    Args:
        application: such as keras.applications.MobileNetV2.
        x: the tensor the net will be transplanted to, [B, H, W, C].
        weights: None or "imagenet".
        **arguments: of the application; without `include_top` it ends at its last feature map.

    Raises:
        WeightsError: the weights could not be downloaded.
    """
    # The shape must be ours: padding in front of strided convolutions depends on it.
    return _download_or_explain(
        application, **{"include_top": False, **arguments}, weights=weights, input_shape=tuple(x.shape[1:])
    )


def head(application: Callable[..., keras.Model], layer: str = "predictions", **arguments: Any) -> list[Any]:
    """[kernel, bias] of the ImageNet classifier that keras.applications publishes for the net.

    Args:
        application: such as keras.applications.MobileNetV2.
        layer: name of the classifier's last layer with weights, Dense or a 1x1 convolution.
        **arguments: of the application.

    Returns:
        Arrays of shapes [features, 1000] and [1000].

    Raises:
        WeightsError: the weights could not be downloaded.
    """
    net = _download_or_explain(application, include_top=True, weights="imagenet", **arguments)
    kernel, bias = net.get_layer(layer).get_weights()
    return [kernel.reshape(-1, kernel.shape[-1]), bias]


def _download_or_explain(application: Callable[..., keras.Model], **arguments: Any) -> keras.Model:
    try:
        return application(**arguments)
    except Exception as error:
        # keras.utils.get_file raises a bare Exception for every way in which a download can fail.
        if "URL fetch failure" not in str(error) and "does not match" not in str(error):
            raise
        raise WeightsError(
            f"The ImageNet weights of {application.__name__} could not be downloaded ({error}). Connect this machine "
            "to the internet, or download that file elsewhere and put it into ~/.keras/models (or $KERAS_HOME/models), "
            "or train from fresh weights with weights=None."
        ) from error


def turn_to_rgb(net: keras.Model, stem: str) -> None:
    """Turn the input channels of the first kernel of a net that was trained on BGR."""
    layer = net.get_layer(stem)
    kernel, *others = layer.get_weights()  # kernel [h, w, 3, F]
    layer.set_weights([kernel[:, :, ::-1], *others])


def is_automatic(operation: Any) -> bool:
    """Whether Keras named it after its class and a counter of the whole process, such as "max_pooling2d_3"."""
    return re.sub(r"_\d+$", "", operation.name).replace("_", "") == type(operation).__name__.lower()


def automatic_names(net: keras.Model, kind: str) -> list[str]:
    """Names that Keras gave to the operations of one class, in the order in which they were made."""
    names = [each.name for each in net.operations if type(each).__name__ == kind and is_automatic(each)]
    return sorted(names, key=lambda name: int((re.findall(r"_(\d+)$", name) or ["0"])[0]))


def same_layer(layer: keras.Layer, name: str, **changes: Any) -> keras.Layer:
    """A new layer with the arguments of a stock layer, which keeps each of them as an attribute, but for changes."""
    # Not from_config: Keras's serialization loads TensorFlow, whatever the backend.
    parameters = inspect.signature(type(layer).__init__).parameters.values()
    keys = [each.name for each in parameters if each.kind is each.POSITIONAL_OR_KEYWORD and each.name != "self"]
    arguments = {key: getattr(layer, key) for key in keys if key != "name"}
    return type(layer)(**{"dtype": layer.dtype_policy, **arguments, **changes, "name": name})


def transplant(
    net: keras.Model,
    x: Any,
    *,
    begin: Any = None,
    end: Any = None,
    names: Mapping[str, str] | None = None,
    replace: Callable[[Any, Any, str], Any] | None = None,
    attention: str | None = None,
    self_attention: str = "",
) -> dict[str, Any]:
    """Make a net again on another tensor: the same layers, flat, with the same weights.

    Args:
        net: made by `build`; nested models in it are flattened.
        x: normalized image, [B, H, W, C], of the net's input shape.
        begin: tensor of the net that x takes the place of, behind hidden preprocessing; None is the net's input.
        end: tensor of the net that is built last; None is the net's output.
        names: operation of the net -> name of its layer here, where it is not the same.
        replace: `(operation, its first operand here, name) -> tensor` for what becomes another layer; it returns the
            operand itself to leave the operation out, and None to keep it as it is.
        attention: what stands in front of every residual add, see `kerasvision.layers.attention.attend`.
        self_attention: for attention="mhsa", regular expression of the layers it concerns: convolutions (with the
            padding in front of them) it takes the place of, or residual adds it stands in front of.

    Returns:
        Layer name -> its output, in the order of the graph.
    """
    made: dict[str, Any] = {}
    # Number of layers on the longest way from x: tells a residual branch from its shortcut, projected or not.
    distance = {id(x): 0}

    def attends(name: str) -> bool:
        return attention == "mhsa" and re.fullmatch(self_attention, name) is not None

    def grow(operation: Any, arguments: tuple[Any, ...], operands: list[Any], name: str) -> Any:
        changed = replace(operation, operands[0], name) if replace else None
        if changed is not None:
            return changed
        if type(operation).__name__ == "Add":
            branch = max(operands, key=lambda operand: distance[id(operand)])
            attended = multi_head_self_attention(branch, name) if attends(name) else attend(branch, attention, name)
            return layers.Add(name=name)([attended if operand is branch else operand for operand in operands])
        if attends(name):
            padding = isinstance(operation, layers.ZeroPadding2D)
            return operands[0] if padding else multi_head_self_attention(operands[0], name.removesuffix("_conv"))
        layer = same_layer(operation, name)
        output = layer(*arguments)
        for weight, value in zip(layer.weights, operation.weights, strict=True):
            weight.assign(value)
        return output

    def visit(operation: Any) -> Callable[..., Any]:
        nested = getattr(operation, "_functional", operation)  # The graph of a Sequential.
        if isinstance(nested, keras.Model):
            return lambda operand, **_: nested._run_through_graph([operand], operation_fn=visit)

        def place(*arguments: Any, **_: Any) -> Any:
            operands = [each for each in keras.tree.flatten(arguments) if keras.backend.is_keras_tensor(each)]
            name = (names or {}).get(operation.name, operation.name)
            output = grow(operation, arguments, operands, name)
            if id(output) not in distance:
                distance[id(output)] = 1 + max(distance[id(operand)] for operand in operands)
                made[name] = output
            return output

        return place

    graph = keras.Model(net.input if begin is None else begin, net.output if end is None else end)
    graph._run_through_graph([x], operation_fn=visit)
    return made


def graft(layer: keras.Layer, x: Any, values: list[Any]) -> Any:
    """Put a layer on a tensor and give it weights: the new one, for what `replace` changes."""
    output = layer(x)
    layer.set_weights(values)
    return output


def last_of(made: Mapping[str, Any], prefix: str) -> Any:
    """Output of the last layer whose name begins so."""
    return [tensor for name, tensor in made.items() if name.startswith(prefix)][-1]
