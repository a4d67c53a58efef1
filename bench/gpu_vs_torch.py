#!/usr/bin/env python3
"""Times our steps against PyTorch's best mode on the same GPU and prints one table.

    bench/gpu_vs_torch.py [--seconds 400] [--only train:resnet18:256:bf16,...] [--roof roof.json] [--out FILE.json]

PYTHON names the interpreter that has PyTorch (default: python3). A case is STEP:MODEL:BATCH:PRECISION; MODEL of an
inversion step is the teachers, joined by '+'. Cases come in groups (--together; smaller ones in the last minutes):
PyTorch's compiled modes start at once, since that takes a minute or more of the CPU, our programs beside them one after
the other, since they time candidates for their convolutions, then eager PyTorch. When all are warm only one works at a time: each mode is probed, the
fastest is the peer of that case, and both sides take turns, A B A B; the ratio is the median over the pairs. What the time did not allow is listed as skipped.
With --fill-cache it only starts PyTorch's compiled modes, case after case, and times nothing: what they compiled stays in
PyTorch's cache (TORCHINDUCTOR_CACHE_DIR), and a comparison afterwards starts in a fraction of the time.
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
from concurrent.futures import ThreadPoolExecutor

from step_server import ROOT, THREE, Server, ours_command, ratio_of, torch_command

COMPILED = ["compile", "reduce-overhead", "compile-cudagraph", "max-autotune", "max-autotune-no-cudagraphs"]
# "compile" is reduce-overhead without its graph
MODES = ["eager", "cudagraph", "reduce-overhead", "compile-cudagraph", "max-autotune"]
DEFAULT = ",".join(
    ["train:resnet18:256:bf16", "train:wrn16_1:128:bf16", "train:resnet34:256:bf16", f"inversion:{THREE}:256:bf16"] +
    [f"train:{m}:{b}:bf16" for m, b in
     [("resnet18", 1024), ("resnet34", 1024), ("wrn40_2", 128), ("vgg11", 256), ("wrn16_1", 1024), ("wrn40_2", 256),
      ("resnet18", 128), ("vgg11", 1024), ("wrn16_1", 256), ("resnet34", 128), ("vgg11", 128), ("wrn40_2", 1024)]] +
    [f"train:{m}:256:tf32" for m in ("resnet18", "wrn16_1")] + [f"inversion:{THREE}:256:tf32"])
SLOW_TO_START, SLOW_SECONDS = "max-autotune", 300  # minutes of compiling: left out where less time is left


def arguments(case, device):
    step, model, batch, precision = case.split(":")
    return step, "--model", model.replace("+", ","), "--batch", batch, "--precision", precision, "--device", device


def torch_step(case, mode, device):
    step, *flags = arguments(case, device)
    return torch_command(step, *flags, "--mode", mode, "--warmup", "12")


def started(command, seconds):
    """The warm program, or why there is none."""
    try:
        return Server(command, seconds)
    except (RuntimeError, OSError) as e:
        return str(e)


def probe(server, steps):
    if isinstance(server, str):
        return server
    try:
        return statistics.median(server.run(steps))
    except (RuntimeError, OSError) as e:
        return str(e)


def close_all(servers):
    warm = [server for server in servers if isinstance(server, Server)]
    for server in warm:
        server.ask_to_quit()
    for server in warm:
        server.close()


def write(path, result):
    os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
    with open(path, "w") as f:
        json.dump(result, f, indent=1)


def result_of(records, skipped, device):
    return {"command": "bench/gpu_vs_torch.py " + " ".join(sys.argv[1:]),
            "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
            "device": records[0]["ours"].get("device_name", device) if records else device,
            "records": records, "skipped": skipped}


def fill_cache(cases, modes, a, left):
    """As many cases as run together in one mode, then in the next. What fails here fails again, and counts, in the comparison."""
    def compile_once(case, mode):
        if left() < 5:
            return
        server = started(torch_step(case, mode, a.device), left())
        close_all([server])
        print(f"{case} {mode}: {server if isinstance(server, str) else server.hello['warmup_s']}", flush=True)
    with ThreadPoolExecutor(a.together) as pool:
        for first in range(0, len(cases), a.together):
            for mode in modes:
                for case in cases[first:first + a.together]:
                    pool.submit(compile_once, case, mode)


def group_size(together, seconds):
    """Few at once where there is little time: a group's first result comes when all of it is warm."""
    return together if seconds > 200 else min(together, 2) if seconds > 120 else 1


def compare(case, ours, torch, a, left):
    """The record of a case, or why there is none."""
    if isinstance(ours, str):
        return f"ours: {ours}"
    probes = {mode: probe(server, a.steps) for mode, server in torch.items()}
    timed = [mode for mode, us in probes.items() if not isinstance(us, str)]
    if not timed:
        return f"PyTorch: {probes}"
    peer = min(timed, key=probes.get)
    pairs = []
    try:
        while len(pairs) < a.pairs and (not pairs or left() > 5):
            pairs.append((statistics.median(ours.run(a.steps)), statistics.median(torch[peer].run(a.steps))))
    except (RuntimeError, OSError) as e:
        return f"while they took turns: {e}"
    step, model, batch, precision = case.split(":")
    return {"step": step, "model": model, "batch": int(batch), "precision": precision,
            "ours": ours.hello, "torch": torch[peer].hello, "torch_mode": peer, "torch_probes_us": probes,
            **ratio_of(pairs), "floor_us": ours.hello.get("floor_us"),
            "ours_peak_bytes": ours.peaks["peak_bytes"], "torch_peak_bytes": torch[peer].peaks["peak_bytes"]}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=400, help="for everything")
    parser.add_argument("--only", default=DEFAULT)
    parser.add_argument("--modes", default=",".join(MODES), help="PyTorch modes to probe")
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--steps", type=int, default=60, help="per turn")
    parser.add_argument("--together", type=int, default=4, help="cases whose programs are warm at once")
    parser.add_argument("--fill-cache", action="store_true", help="compile for PyTorch's cache and time nothing")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--build", default=os.path.join(ROOT, "build"))
    parser.add_argument("--roof", default="", help="roof.json of `mtcki roof`")
    parser.add_argument("--out", default=os.path.join(ROOT, "bench", "results", "gpu_vs_torch.json"))
    a = parser.parse_args()
    a.roof = os.path.abspath(a.roof) if a.roof else ""
    if a.roof and not os.path.isfile(a.roof):
        print(f"no floors: {a.roof} is not there (mtcki roof writes it)", file=sys.stderr)
        a.roof = ""
    end = time.monotonic() + a.seconds

    def left():
        return end - time.monotonic()

    modes, records, skipped = a.modes.split(","), [], []
    cases = a.only.split(",")
    if a.fill_cache:
        fill_cache(cases, [mode for mode in modes if mode in COMPILED and mode != SLOW_TO_START], a, left)
        return
    failed = False
    while cases:
        size = group_size(a.together, left())
        group, cases = cases[:size], cases[size:]
        if left() < 30:
            skipped += [(case, "no time left") for case in group]
            continue
        ours, torch, of_group = {}, {case: {} for case in group}, modes
        if SLOW_TO_START in modes and left() < SLOW_SECONDS:
            of_group = [mode for mode in modes if mode != SLOW_TO_START]
            skipped += [(case, f"{SLOW_TO_START} left out, no time for it") for case in group]
        with ThreadPoolExecutor(len(group) * len(of_group)) as pool:

            def start_torch(chosen):
                for case in group:
                    for mode in chosen:
                        torch[case][mode] = pool.submit(started, torch_step(case, mode, a.device), left() - 12 * len(group))
            start_torch([mode for mode in of_group if mode in COMPILED])
            # It is the peer that is left where compiling does not end in time.
            start_torch([mode for mode in of_group if mode == "cudagraph"])
            for case in group:
                step, *flags = arguments(case, a.device)
                gpu = ["--graph", "--autotune"] if a.device != "cpu" else []
                roof = ["--roof", a.roof] if a.roof else []
                ours[case] = started(ours_command(a.build, step, *flags, *gpu, *roof), min(120, left()))
            start_torch([mode for mode in of_group if mode not in COMPILED and mode != "cudagraph"])
        for case in group:
            torch[case] = {mode: future.result() for mode, future in torch[case].items()}
        for case in group:
            record = compare(case, ours[case], torch[case], a, left)
            skipped += [(case, f"{mode}: {server}") for mode, server in torch[case].items() if isinstance(server, str)]
            if isinstance(record, str):
                skipped.append((case, record))
                failed = failed or "out of time" not in record
            else:
                records.append(record)
                write(a.out, result_of(records, skipped, a.device))  # whatever ends this later
                print(f"{case}: {record['ratio']:.2f}x ({record['torch_mode']})", file=sys.stderr, flush=True)
            close_all([ours[case], *torch[case].values()])

    result = result_of(records, skipped, a.device)
    write(a.out, result)
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
    print(f"\n{len(records)} of {len(a.only.split(','))} cases measured: {os.path.relpath(a.out)}")
    sys.exit(1 if failed or not records else 0)


if __name__ == "__main__":
    main()
