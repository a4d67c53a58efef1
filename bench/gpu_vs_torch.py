#!/usr/bin/env python3
"""Times our steps against PyTorch's best mode on the same GPU and prints one table.

    bench/gpu_vs_torch.py [--seconds 400] [--only train:resnet18:256:bf16,...] [--roof roof.json] [--out FILE.json]

PYTHON names the interpreter that has PyTorch (default: python3). A case is STEP:MODEL:BATCH:PRECISION; MODEL of an
inversion step is the teachers, joined by '+'. PyTorch's modes are probed for the first case of each network family,
the fastest is the peer there and for the cases that follow. Then both programs stay warm beside each other and take
turns, A B A B; the ratio is the median over the pairs. What the time did not allow is listed as skipped.
Columns: ms of both sides (median), ratio, the floor from the measured roofs (sum over the ops of the larger of
FLOP/peak and bytes/bandwidth, printed by our program), and the share of it that we reach.
"""
import argparse
import datetime
import json
import os
import statistics
import sys
import time

from step_server import ROOT, THREE, Server, ours_command, ratio_of, torch_command

MODES = ["eager", "cudagraph", "compile", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs"]
DEFAULT = ",".join(
    [f"train:{m}:{b}:bf16" for m, b in
     [("resnet18", 256), ("wrn16_1", 128), ("resnet34", 256)]] + [f"inversion:{THREE}:256:bf16"] +
    [f"train:{m}:{b}:bf16" for m, b in
     [("resnet18", 1024), ("wrn40_2", 256), ("vgg11", 256), ("wrn16_1", 1024), ("resnet34", 1024), ("wrn40_2", 128),
      ("resnet18", 128), ("vgg11", 1024), ("wrn16_1", 256), ("resnet34", 128), ("vgg11", 128), ("wrn40_2", 1024)]] +
    [f"train:{m}:256:tf32" for m in ("resnet18", "wrn16_1")] + [f"inversion:{THREE}:256:tf32"])


def family(step, model):
    return program, "small" if model.startswith("wrn16") else "large"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=400, help="for everything")
    parser.add_argument("--only", default=DEFAULT)
    parser.add_argument("--modes", default=",".join(MODES), help="PyTorch modes to probe")
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--steps", type=int, default=60, help="per turn")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--build", default=os.path.join(ROOT, "build"))
    parser.add_argument("--roof", default="", help="roof.json of `mtcki roof`")
    parser.add_argument("--out", default=os.path.join(ROOT, "bench", "results", "gpu_vs_torch.json"))
    a = parser.parse_args()
    end = time.monotonic() + a.seconds

    def left():
        return end - time.monotonic()

    best_mode, records, skipped = {}, [], []
    for case in a.only.split(","):
        step, model, batch, precision = case.split(":")
        key = family(step, model)
        modes = [best_mode[key]] if key in best_mode else a.modes.split(",")
        if left() < 20:
            skipped.append((case, "no time left"))
            continue
        common = ["--model", model.replace("+", ","), "--batch", batch, "--precision", precision, "--device", a.device]
        roof = ["--roof", a.roof] if a.roof else []
        try:
            ours = Server(ours_command(a.build, step, *common, "--graph", "--autotune", *roof),
                          min(120, left()))
        except (RuntimeError, OSError) as e:
            skipped.append((case, f"ours: {e}"))
            continue
        probes, peer = {}, None
        for mode in modes:
            if left() < 15 and peer:
                probes[mode] = "no time left"
                continue
            try:
                server = Server(torch_command(step, *common, "--mode", mode, "--warmup", "12"), min(150, left()))
                probes[mode] = statistics.median(server.run(a.steps))
            except (RuntimeError, OSError) as e:
                probes[mode] = str(e)
                continue
            if peer is None or probes[mode] < probes[peer[0]]:
                if peer:
                    peer[1].close()
                peer = (mode, server)
            else:
                server.close()
        if peer is None:
            ours.close()
            skipped.append((case, f"PyTorch: {probes}"))
            continue
        best_mode.setdefault(key, peer[0])
        pairs = []
        for _ in range(a.pairs):
            if pairs and left() < 5:
                break
            pairs.append((statistics.median(ours.run(a.steps)), statistics.median(peer[1].run(a.steps))))
        record = {
            "step": step, "model": model, "batch": int(batch), "precision": precision,
            "ours": ours.hello, "torch": peer[1].hello, "torch_mode": peer[0], "torch_probes_us": probes,
            **ratio_of(pairs), "floor_us": ours.hello.get("floor_us"),
            "ours_peak_bytes": ours.peaks["peak_bytes"], "torch_peak_bytes": peer[1].peaks["peak_bytes"]}
        ours.close()
        peer[1].close()
        records.append(record)
        print(f"{case}: {record['ratio']:.2f}x ({peer[0]})", file=sys.stderr, flush=True)

    result = {"command": "bench/gpu_vs_torch.py " + " ".join(sys.argv[1:]),
              "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
              "device": records[0]["ours"].get("device_name", a.device) if records else a.device,
              "records": records, "skipped": skipped}
    os.makedirs(os.path.dirname(os.path.abspath(a.out)), exist_ok=True)
    with open(a.out, "w") as f:
        json.dump(result, f, indent=1)
    print(f"{result['device']}, {result['date']}, medians of {a.pairs} turns of {a.steps} steps\n")
    print("| step | network | batch | precision | ours ms | PyTorch ms | ratio | PyTorch's mode | floor ms | % of floor |")
    print("|---|---|---:|---|---:|---:|---:|---|---:|---:|")
    for r in records:
        floor = r["floor_us"]
        print(f"| {r['step']} | {r['model']} | {r['batch']} | {r['precision']} | {r['ours_us'] / 1e3:.3f} | "
              f"{r['torch_us'] / 1e3:.3f} | **{r['ratio']:.2f}** ({r['ratio_min']:.2f}-{r['ratio_max']:.2f}) | "
              f"{r['torch_mode']} | " + (f"{floor / 1e3:.3f} | {100 * floor / r['ours_us']:.0f} |" if floor else "- | - |"))
    for case, why in skipped:
        print(f"skipped: {case}: {why}")
    print(f"\n{os.path.relpath(a.out)}")
    sys.exit(0 if records else 1)


if __name__ == "__main__":
    main()
