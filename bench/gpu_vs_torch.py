#!/usr/bin/env python3
"""Times our steps against PyTorch's best mode on the same GPU and prints one table.

    bench/gpu_vs_torch.py [--seconds 400] [--only training:resnet18:256:bf16,...] [--roof roof.json] [--out FILE.json]

PYTHON names the interpreter that has PyTorch (default: python3). A case is PROGRAM:MODEL:BATCH:PRECISION; MODEL of an
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
import subprocess
import sys
import threading
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
PYTHON = os.environ.get("PYTHON", "python3")
MODES = ["eager", "cudagraph", "compile", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs"]
THREE = "resnet34+vgg11+wrn40_2"
DEFAULT = ",".join(
    [f"training:{m}:{b}:bf16" for m, b in
     [("resnet18", 256), ("wrn16_1", 128), ("resnet34", 256)]] + [f"inversion:{THREE}:256:bf16"] +
    [f"training:{m}:{b}:bf16" for m, b in
     [("resnet18", 1024), ("wrn40_2", 256), ("vgg11", 256), ("wrn16_1", 1024), ("resnet34", 1024), ("wrn40_2", 128),
      ("resnet18", 128), ("vgg11", 1024), ("wrn16_1", 256), ("resnet34", 128), ("vgg11", 128), ("wrn40_2", 1024)]] +
    [f"training:{m}:256:tf32" for m in ("resnet18", "wrn16_1")] + [f"inversion:{THREE}:256:tf32"])


class Server:
    """A step program that stays warm: a number in, a line of JSON out."""

    def __init__(self, command, seconds):
        self.command, self.process, self.peak = command, None, 0
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                        text=True, cwd=ROOT)
        self.errors = []
        threading.Thread(target=lambda: self.errors.extend(self.process.stderr), daemon=True).start()
        self.hello = self.read(seconds)

    def read(self, seconds):
        killer = threading.Timer(max(1.0, seconds), self.process.kill)
        killer.start()
        try:
            for line in self.process.stdout:
                if line.startswith("{"):
                    return json.loads(line)
        finally:
            killer.cancel()
        self.process.wait()
        why = "".join(self.errors).strip().splitlines()
        raise RuntimeError(why[-1] if why else f"ended with {self.process.returncode} (out of time?)")

    def run(self, steps, seconds=60):
        self.process.stdin.write(f"{steps}\n")
        self.process.stdin.flush()
        answer = self.read(seconds)
        self.peak = max(self.peak, answer.get("peak_bytes", 0))
        return answer["us"]

    def close(self):
        if self.process.poll() is None:
            try:
                self.process.stdin.write("quit\n")
                self.process.stdin.close()
                self.process.wait(10)
            except (OSError, subprocess.TimeoutExpired):
                self.process.kill()


def family(program, model):
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
        program, model, batch, precision = case.split(":")
        key = family(program, model)
        modes = [best_mode[key]] if key in best_mode else a.modes.split(",")
        if left() < 20:
            skipped.append((case, "no time left"))
            continue
        common = ["--model", model.replace("+", ","), "--batch", batch, "--precision", precision, "--device", a.device]
        ours_command = [os.path.join(a.build, "bench", program + "_step"), *common, "--graph", "on", "--autotune", "on",
                        "--serve", "1"] + (["--roof", a.roof] if a.roof else [])
        try:
            ours = Server(ours_command, min(120, left()))
        except (RuntimeError, OSError) as e:
            skipped.append((case, f"ours: {e}"))
            continue
        probes, peer = {}, None
        for mode in modes:
            if left() < 15 and peer:
                probes[mode] = "no time left"
                continue
            try:
                server = Server([PYTHON, os.path.join(ROOT, "bench", "gpu_torch.py"), program, *common, "--mode", mode],
                                min(150, left()))
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
        ratios = sorted(t / o for o, t in pairs)
        record = {
            "program": program, "model": model, "batch": int(batch), "precision": precision,
            "ours": ours.hello, "torch": peer[1].hello, "torch_mode": peer[0], "torch_probes_us": probes,
            "pairs_us": pairs, "ours_us": statistics.median(o for o, _ in pairs),
            "torch_us": statistics.median(t for _, t in pairs), "ratio": statistics.median(ratios),
            "ratio_min": ratios[0], "ratio_max": ratios[-1], "floor_us": ours.hello.get("floor_us"),
            "ours_peak_bytes": ours.peak, "torch_peak_bytes": peer[1].peak}
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
        print(f"| {r['program']} | {r['model']} | {r['batch']} | {r['precision']} | {r['ours_us'] / 1e3:.3f} | "
              f"{r['torch_us'] / 1e3:.3f} | **{r['ratio']:.2f}** ({r['ratio_min']:.2f}-{r['ratio_max']:.2f}) | "
              f"{r['torch_mode']} | " + (f"{floor / 1e3:.3f} | {100 * floor / r['ours_us']:.0f} |" if floor else "- | - |"))
    for case, why in skipped:
        print(f"skipped: {case}: {why}")
    print(f"\n{os.path.relpath(a.out)}")
    sys.exit(0 if records else 1)


if __name__ == "__main__":
    main()
