"""From a plain PyTorch module to the bytes of a small, deterministic ONNX file."""

from __future__ import annotations

import importlib.util
import inspect
import io
import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from typing import Any

import onnx
import torch
from torch import nn

from nat2deploy.errors import UserError, first_line

INPUT = "input"
OUTPUT = "output"
# 17 is the newest opset that ONNX Runtime 1.12, TensorRT 8.6 and OpenVINO 2023 all read whole, so the file
# runs on edge devices whose vendor image is years old. HardSwish is one node since 14 and fuses into Conv.
OPSET = 17
_OLDEST_DYNAMO_OPSET = 18  # the newer exporter writes nothing older


def to_onnx(
    module: nn.Module,
    input_shape: tuple[int, ...],
    *,
    dynamic_batch: bool = False,
    outputs: Sequence[str] = (OUTPUT,),
) -> bytes:
    """Export ``module`` in evaluation mode, with BN folded into the convolutions.

    The tensors are named ``input`` and ``output``, or as ``outputs`` says. The same module gives the same
    bytes: names come from the graph alone, and what exporters write about themselves and the source code is
    removed.

    Args:
        module: takes one float32 tensor of ``input_shape`` and returns one tensor, or a tuple of as many as
            there are ``outputs``; on any device, left as it was.
        input_shape: ``(B, 3, H, W)``, or what a block takes.
        dynamic_batch: leave the first axis free.
        outputs: names of what the module returns.

    Raises:
        UserError: the module does not take this shape, returns another number of tensors, or holds an
            operator that no exporter of the installed PyTorch knows.
    """
    with _evaluation(module):
        sample = _sample(module, input_shape, len(outputs))
        if _has_torchscript_exporter():
            raw = _export_torchscript(module, sample, outputs, dynamic_batch)
        else:
            raw = _export_dynamo(module, sample, outputs, dynamic_batch)
    return normalise(onnx.load_model_from_string(raw))


@contextmanager
def _evaluation(module: nn.Module) -> Iterator[None]:
    """Hold every part in evaluation mode, and give each its own mode back (some may be frozen)."""
    training = [part for part in module.modules() if part.training]
    module.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for part in training:
            part.training = True


def _sample(module: nn.Module, input_shape: tuple[int, ...], outputs: int) -> torch.Tensor:
    """Zeros of ``input_shape`` on the module's device, once the module is known to take them."""
    parameter = next(module.parameters(), None)
    sample = torch.zeros(input_shape, device=parameter.device if parameter is not None else "cpu")
    try:
        output = module(sample)
    except (AssertionError, RuntimeError, ValueError, IndexError, TypeError) as error:
        raise UserError(
            f"the network does not take an input of shape {input_shape}: {first_line(error)}; mend the shape"
        ) from error
    given = output if isinstance(output, tuple) and outputs > 1 else (output,)
    if len(given) != outputs or not all(isinstance(one, torch.Tensor) for one in given):
        wanted = "one tensor" if outputs == 1 else f"a tuple of {outputs} tensors"
        raise UserError(
            f"the network returns a {type(output).__name__}; only networks that return {wanted} export"
        )
    return sample


def _has_torchscript_exporter() -> bool:
    # It takes some 10 ms a block where the newer one takes a second, and needs no onnxscript; PyTorch
    # deprecates it, so a future one may come without.
    return "dynamo" in inspect.signature(torch.onnx.export).parameters and hasattr(torch._C, "_jit_pass_onnx")


def _export_torchscript(
    module: nn.Module, sample: torch.Tensor, outputs: Sequence[str], dynamic_batch: bool
) -> bytes:
    buffer = io.BytesIO()
    axes = {name: {0: "batch"} for name in (INPUT, *outputs)} if dynamic_batch else None
    with _silence():
        try:
            torch.onnx.export(
                module,
                (sample,),
                buffer,  # type: ignore[arg-type]
                dynamo=False,
                opset_version=OPSET,
                input_names=[INPUT],
                output_names=list(outputs),
                dynamic_axes=axes,
            )
        except Exception as error:
            raise UserError(f"the network cannot be exported to ONNX: {first_line(error)}") from error
    return buffer.getvalue()


def _export_dynamo(
    module: nn.Module, sample: torch.Tensor, outputs: Sequence[str], dynamic_batch: bool
) -> bytes:
    if importlib.util.find_spec("onnxscript") is None:
        raise UserError("this PyTorch exports ONNX through onnxscript only; run `pip install onnxscript`")
    shapes = ({0: torch.export.Dim("batch")},) if dynamic_batch else None
    # Exported shapes take a batch of one for a constant, so a free batch is traced with two.
    traced = torch.cat((sample, sample)) if dynamic_batch and sample.shape[0] == 1 else sample
    options: dict[str, Any] = {} if _newest_only() else {"dynamo": True}
    with _silence():
        try:
            program = torch.onnx.export(
                module,
                (traced,),
                opset_version=_OLDEST_DYNAMO_OPSET,
                input_names=[INPUT],
                output_names=list(outputs),
                dynamic_shapes=shapes,
                **options,
            )
        except Exception as error:
            raise UserError(f"the network cannot be exported to ONNX: {first_line(error)}") from error
    assert program is not None
    model: onnx.ModelProto = program.model_proto
    return bytes(model.SerializeToString())


def _newest_only() -> bool:
    return "dynamo" not in inspect.signature(torch.onnx.export).parameters


def normalise(model: onnx.ModelProto) -> bytes:
    """Strip what is not the network, check the graph and serialise it with a fixed field order.

    Raises:
        UserError: the graph is not valid.
    """
    model.producer_name = "nat2deploy"
    model.producer_version = ""
    model.ClearField("doc_string")
    del model.metadata_props[:]
    graph = model.graph
    graph.name = "network"
    graph.ClearField("doc_string")
    # Equal initialisers (fresh BN) are exported once, with Identity nodes around; quantisers and folding
    # want the initialiser itself.
    constants = {initialiser.name for initialiser in graph.initializer}
    alias: dict[str, str] = {}
    kept = []
    for node in graph.node:
        if node.op_type == "Identity" and node.input[0] in constants and node.output[0] != OUTPUT:
            alias[node.output[0]] = node.input[0]
        else:
            node.input[:] = [alias.get(name, name) for name in node.input]
            kept.append(node)
    for node in kept:
        node.ClearField("doc_string")
        del node.metadata_props[:]
    nodes = [onnx.NodeProto.FromString(node.SerializeToString()) for node in kept]
    del graph.node[:]
    graph.node.extend(nodes)
    for value in (*graph.input, *graph.output, *graph.value_info, *graph.initializer):
        value.ClearField("doc_string")
        if hasattr(value, "metadata_props"):
            del value.metadata_props[:]
    del graph.metadata_props[:]
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise UserError(f"the ONNX graph is not valid: {first_line(error)}") from error
    return bytes(model.SerializeToString(deterministic=True))


@contextmanager
def _silence() -> Iterator[None]:
    """Keep the exporters' progress and deprecation notes away from the user."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
