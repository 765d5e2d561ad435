"""Record, or hold, what training steps ask of a GPU, without one; and estimate what they cost.

    python scripts/check_gpu_trace.py ENVIRONMENT [--check] [--rows NAME ...] [--output FILE.json]

ENVIRONMENT is a folder with a program `gpu-trace`, see docs/contributing.md. Each row is a run of
`gpu_trace.py` under it. With --check nothing is written: the exit status is 1 where a row waits
for the device more often than recorded, has more graphs, attends otherwise, or needs 3 % more bytes
or memory. Estimates are arithmetic from rates that such a GPU reaches, not measurements.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
RECORD = ROOT / "benchmarks" / "gpu_trace.json"
WHAT = (
    "A compiled training step of 16 x 2,048 tokens in bf16 over a stub of the driver that says it "
    "is an H100. No GPU was there: figures are counts, estimates are arithmetic with `rates`."
)
ROWS = {  # model, objective
    "pythia-70m, CWT": ("pythia-70m", "cwt"),
    "pythia-70m, CWT fused": ("pythia-70m", "cwt-fused"),
    "pythia-70m, cross-entropy": ("pythia-70m", "ce"),
    "pythia-70m, Hugging Face": ("pythia-70m", "hugging-face"),
    "pythia-160m, CWT": ("pythia-160m", "cwt"),
    "pythia-160m, cross-entropy": ("pythia-160m", "ce"),
    "gpt2 of 4 layers, CWT": ("gpt2, 4 layers", "cwt"),
    "llama of 4 layers, CWT": ("llama, 4 layers", "cwt"),
}
EXACT = ("waits", "graphs", "graph_breaks")  # may not grow at all
CLOSE = ("triton_gb", "peak_mib")  # may grow by this share
ROOM = 0.03
RATES = {  # what is assumed of an H100
    "matrix_products_tflops": 600.0,
    "memory_tb_per_s": 3.0,
    "causal_flash_attention_tflops": 360.0,
    "masked_attention_tflops": 240.0,  # of twice the FLOPs: it does not leave out what it masks
    "optimizer_bytes_a_weight": 40.0,  # AdamW 28, norm 4, clipping 8
    "us_between_kernels": 2.0,
    "ms_of_a_wait": 1.0,
    "peak_tflops": 989.4,  # dense bf16, as the vendor gives it: what MFU is a share of
}


def estimate(figures: dict[str, Any], made: dict[str, Any]) -> dict[str, float]:
    """Milliseconds of a step, by part, and its MFU, if the rates are reached."""
    causal = figures["attention"] == "flash, causal"
    kind = "causal_flash" if causal else "masked"
    passes = made["attention_tflop"] * (1.0 if causal else 2.0)
    moved = RATES["optimizer_bytes_a_weight"] * made["weights"] / 1e12
    parts = {
        "matrix_products_ms": 1e3 * made["matrix_tflop"] / RATES["matrix_products_tflops"],
        "triton_kernels_ms": figures["triton_gb"] / RATES["memory_tb_per_s"],
        "attention_ms": 1e3 * passes / RATES[f"{kind}_attention_tflops"],
        "optimizer_ms": 1e3 * moved / RATES["memory_tb_per_s"],
        "between_kernels_ms": 1e-3 * figures["launches"] * RATES["us_between_kernels"],
        "waits_ms": figures["waits"] * RATES["ms_of_a_wait"],
    }
    step_ms = sum(parts.values())
    mfu = 1e3 * made["model_tflop"] / step_ms / RATES["peak_tflops"]
    return {
        **parts,
        "step_ms": step_ms,
        "mfu": mfu,
        "tokens_per_second": 1e3 * made["tokens"] / step_ms,
    }


def trace(environment: Path, row: str) -> dict[str, Any]:
    """Figures of a row, what they are estimated from, the estimate, and where they were made."""
    model, objective = ROWS[row]
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder, "figures.json")
        script = [
            str(ROOT / "scripts" / "gpu_trace.py"),
            "--model",
            model,
            "--objective",
            objective,
        ]
        done = subprocess.run(
            [str(environment / "gpu-trace"), "run", "--", *script, str(output)],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode or not output.exists():
            sys.exit(f"{row}: gpu-trace failed\n{done.stderr[-3000:]}")
        found = json.loads(output.read_text())
    return {**found, "estimate": estimate(found["figures"], found["arithmetic"])}


def compare(row: str, recorded: dict[str, Any], found: dict[str, Any]) -> list[str]:
    """What a row does worse than it did: figures of a record and of now."""
    worse = [
        f"{row}: {name} {recorded[name]:g} -> {found[name]:g}"
        for names, share in ((EXACT, 0.0), (CLOSE, ROOM))
        for name in names
        if found[name] > recorded[name] * (1 + share)
    ]
    if found["attention"] != recorded["attention"]:
        worse.append(f"{row}: attention {recorded['attention']} -> {found['attention']}")
    return worse


def ratios(rows: dict[str, dict[str, Any]]) -> dict[str, float]:
    """Estimated speed-ups of pythia-70m."""
    step = {row: found["estimate"]["step_ms"] for row, found in rows.items()}
    pairs = {
        "headless / own cross-entropy": ("cross-entropy", "CWT"),
        "own cross-entropy / Hugging Face": ("Hugging Face", "cross-entropy"),
        "headless / Hugging Face": ("Hugging Face", "CWT"),
    }
    return {
        name: step[f"pythia-70m, {slow}"] / step[f"pythia-70m, {fast}"]
        for name, (slow, fast) in pairs.items()
        if {f"pythia-70m, {slow}", f"pythia-70m, {fast}"} <= set(step)
    }


def show(rows: dict[str, dict[str, Any]]) -> None:
    """A table."""
    print(f"{'':28s}waits launches Triton GB peak GiB graphs   step ms    MFU  attention")
    for row, found in rows.items():
        f, e = found["figures"], found["estimate"]
        print(
            f"{row:28s}{f['waits']:5g}{f['launches']:9g}{f['triton_gb']:10.2f}"
            f"{f['peak_mib'] / 1024:9.2f}{f['graphs']:7d}{e['step_ms']:10.1f} {e['mfu']:6.2f}  "
            f"{f['attention']}"
        )
    for name, value in ratios(rows).items():
        print(f"{name}: {value:.2f} (estimated)")


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("environment", type=Path, help="the folder with gpu-trace")
    parser.add_argument("--check", action="store_true", help="compare with what is recorded")
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS))
    parser.add_argument("--output", type=Path, default=RECORD, help="the record")
    return parser.parse_args()


def main() -> None:
    """Trace the rows, then write or compare."""
    options = parse()
    record = json.loads(options.output.read_text()) if options.output.exists() else {}
    known = record.get("rows", {})
    if options.check and (missing := [row for row in options.rows if row not in known]):
        sys.exit(f"{options.output} has no row {missing[0]}: record it, without --check")
    worse, found = [], {}
    for row in options.rows:
        found[row] = trace(options.environment.resolve(), row)
        if options.check:
            worse += compare(row, known[row]["figures"], found[row]["figures"])
            continue
        rows = {name: made for name in ROWS if (made := (known | found).get(name))}
        record |= {"what": WHAT, "rates": RATES, "rows": rows, "estimated_ratios": ratios(rows)}
        options.output.write_text(json.dumps(record, indent=2) + "\n")
    show(found)
    sys.exit("\n".join(["worse than recorded:", *worse]) if worse else 0)


if __name__ == "__main__":
    main()
