"""The fused contrastive loss: interpreted, compiled for GPUs, and where it is missing."""

import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from headless.objectives import (
    contrastive_weight_tying_loss,
    fused,
    fused_kernels,
    unique_targets,
)

needs_triton = pytest.mark.skipif(find_spec("triton") is None, reason="needs Triton: Linux only")
KIB = 1024


@needs_triton
def test_in_the_interpreter() -> None:
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist"),
            str(Path(__file__).with_name("fused_in_the_interpreter.py")),
        ],
        env=os.environ | {"TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stdout[-3000:]
    assert " passed" in done.stdout
    assert "skipped" not in done.stdout


@pytest.mark.parametrize("missing", ["device", "triton", "dtype"])
def test_it_is_the_deduplicated_form_where_kernels_cannot_run(
    missing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fused, "HAS_TRITON", missing != "triton")
    monkeypatch.setattr(fused, "INTERPRETED", missing != "device")
    dtype = torch.float16 if missing == "dtype" else torch.float32
    hidden, table = (torch.randn(n, 8).to(dtype).requires_grad_() for n in (48, 30))
    targets = torch.randint(0, 30, (48,))
    found, wanted = (
        contrastive_weight_tying_loss(hidden, targets, table, implementation=name)  # type: ignore[arg-type]
        for name in ("fused", "deduplicated")
    )
    assert torch.equal(found, wanted)
    for a, b in zip(
        torch.autograd.grad(found, (hidden, table)),
        torch.autograd.grad(wanted, (hidden, table)),
        strict=True,
    ):
        assert torch.equal(a, b)


def test_blocks_are_bounded_whatever_n_is() -> None:
    assert fused.rows_of_a_block(32768, 7168) == 8192
    for n, m in [(0, 1), (1, 1), (2**20, 9), (2**20, 900), (2**20, 50_304), (2**20, 262_144)]:
        block = fused.rows_of_a_block(n, m)
        tile = fused.Tile(128, 256, 64, 8, 3)
        assert block % tile.n == 0
        assert block * (m + tile.m) < 2**31
        assert block * 8192 < 2**31
        assert block * m <= max(2**26, 8192 * m) + 128 * m


def resources(capability: int, own_unweighted: bool, keep: bool, tmp_path: Path) -> dict[str, int]:
    """What ptxas makes of `score_tiles` in bf16 for a GPU that is not there."""
    import triton
    from triton.backends import nvidia
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    kernel, _ = fused_kernels.kernels()
    tile = fused.tile_for(torch.device("cuda"), 2)
    constants = {
        "low": fused_kernels.LOW,
        "high": fused_kernels.HIGH,
        "own_unweighted": own_unweighted,
        "keep": keep,
        "precision": "ieee",
        "upcast": False,
        "accumulator": fused_kernels.type_of(torch.float32),
        **{"BLOCK_N": tile.n, "BLOCK_M": tile.m, "BLOCK_D": tile.d},
    }
    types = dict.fromkeys(kernel.arg_names, "*fp32")
    types |= dict.fromkeys(("hidden_ND", "rows_MD", "exps_NM"), "*bf16") | {"own_N": "*i64"}
    types |= dict.fromkeys("nmd", "i32") | dict.fromkeys(constants, "constexpr")
    place = {name: (i,) for i, name in enumerate(kernel.arg_names)}
    source = ASTSource(
        kernel,
        types,
        {place[name]: value for name, value in constants.items()},
        {place[name]: [["tt.divisibility", 16]] for name in types if name not in constants},
    )
    options = {"num_warps": tile.warps, "num_stages": tile.stages}
    made = triton.compile(source, GPUTarget("cuda", capability, 32), options)
    binary = tmp_path / "kernel.cubin"
    binary.write_bytes(made.asm["cubin"])
    tool = Path(nvidia.__file__).parent / "bin" / "cuobjdump"
    shown = subprocess.run(
        [tool, "-res-usage", binary], capture_output=True, text=True, check=True
    ).stdout
    return {
        "shared": made.metadata.shared,
        "spilled": int(re.findall(r"STACK:(\d+)", shown)[0]),
        "wgmma": made.asm["ptx"].count("wgmma.mma_async"),
    }


@needs_triton
@pytest.mark.parametrize(("capability", "shared"), [(80, 163), (86, 99), (90, 227)])
def test_compiled_it_fits_a_gpu_and_spills_nothing(
    capability: int, shared: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: divmod(capability, 10))
    monkeypatch.setattr(fused, "tile_for", fused.tile_for.__wrapped__)
    for own_unweighted, keep in ((False, True), (True, True), (False, False)):
        used = resources(capability, own_unweighted, keep, tmp_path)
        assert used["shared"] <= shared * KIB
        assert used["spilled"] == 0
        assert (used["wgmma"] > 0) == (capability == 90)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("d", [200, 512, 2048])
def test_value_and_gradients_on_a_gpu(dtype: torch.dtype, compiled: bool, d: int) -> None:
    n, v = 5000, 3000
    device = torch.device("cuda")
    hidden = torch.randn(n, d, device=device).to(dtype).requires_grad_()
    table = (torch.randn(v, d, device=device) * 3 / d**0.5).to(dtype).requires_grad_()
    targets = torch.randint(0, v, (n,), device=device) ** 2 // v
    targets[::7] = -100
    assert fused.has_kernels_for(hidden)
    function = contrastive_weight_tying_loss
    loss = (torch.compile(function, fullgraph=True) if compiled else function)(
        hidden,
        targets,
        table,
        implementation="fused",
        unique=unique_targets(targets),
    )
    leaves = [x.detach().double().requires_grad_() for x in (hidden, table)]
    exact = function(leaves[0], targets, leaves[1])
    found = (loss, *torch.autograd.grad(loss, (hidden, table)))
    wanted = (exact, *torch.autograd.grad(exact, leaves))
    # bf16: three roundings of each gradient and none of the loss, as in the interpreter's tests.
    rounded = 3 * 2**-8 if dtype == torch.bfloat16 else 1e-5
    for tolerance, a, b in zip((1e-5, rounded, rounded), found, wanted, strict=True):
        assert (a.double() - b).norm() <= tolerance * b.norm()
